"""Episodes and runs shared by the tests of studies."""

import json

import numpy as np
from helpers import make_batch, randomize, tiny_config

from moto_tf.presets import make_config
from moto_tf.training.run import Run


def make_episode(length=6, seed=0, terminal=False, success=False):
  """A random episode of `length` transitions."""
  config = tiny_config(
    replay__batch=1, replay__length=length + 1, moto__start_states=0
  )
  batch = make_batch(config, seed)
  episode = {k: v[0] for k, v in batch.items()}
  episode['action'][0] = episode['reward'][0] = 0
  episode['is_last'][-1] = True
  episode['is_terminal'][-1] = terminal
  episode['success'] = np.arange(length + 1) > (2 if success else length)
  return episode


def make_run(logdir, **overrides):
  """A run on Pendulum, whose episodes a time limit cuts, of random weights."""
  config = make_config(
    'gym',
    'debug',
    'proprio',
    {
      'logdir': str(logdir),
      'task': 'gym_Pendulum-v1',
      'env.time_limit': 12,
      'env_workers': 'none',
      'prefill_episodes': 2,
      'offline_steps': 0,
      'eager': False,
      **overrides,
    },
  )
  with Run(config) as run:
    run.prefill()
    randomize(run.agent)
    run.save()
  rows = [
    {'gradient_step': step, 'phase': phase, f'train/imag_{name}': 0.1 * step}
    for step, phase in ((1, 'offline'), (2, 'online'), (3, 'online'))
    for name in ('disagreement', 'penalty', 'reward_raw')
    if config.method == 'moto'
  ]
  with (logdir / 'metrics.jsonl').open('a') as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)
  return logdir
