"""A tiny run on a point that is moved, and what it leaves."""

import json
from pathlib import Path

import gymnasium
import numpy as np

from moto_tf.envs.gym import wrap_gym
from moto_tf.presets import make_config
from moto_tf.training import run as module


class Reach(gymnasium.Env):
  """Moves a point on a line to a goal; the state is (point, goal)."""

  observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    self._state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
    self._steps = 0
    return self._state.copy(), {}

  def step(self, action):
    self._steps += 1
    self._state[0] = np.clip(self._state[0] + 0.2 * action[0], -2, 2)
    near = abs(self._state[0] - self._state[1]) < 0.1
    info = {'success': bool(near)}
    return self._state.copy(), float(near), False, self._steps >= 8, info


def tiny(logdir, **overrides):
  return make_config(
    'gym',
    'debug',
    'proprio',
    {
      'logdir': str(logdir),
      'task': 'custom_reach',
      'eager': False,
      'offline_steps': 0,
      'online_steps': 12,
      'updates_per_episode': 3,
      'prefill_episodes': 3,
      'checkpoint_every': 2,
      'log_every': 1,
      'eval_every': 6,
      'rssm.hidden': 8,
      'rssm.deter': 8,
      'rssm.stoch': 3,
      'rssm.discrete': 3,
      '.*layers': [8],
      'envs': 1,
      **overrides,
    },
  )


def make_run(config):
  return module.Run(config, make_env=lambda: wrap_gym(Reach(), config.env))


def rows(logdir):
  lines = (Path(logdir) / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def losses(logdir):
  """Everything learned and collected by gradient step, without timings."""
  return {
    row['gradient_step']: {
      k: v
      for k, v in row.items()
      if k.startswith(('train/', 'episode/', 'eval/', 'env_step'))
    }
    for row in rows(logdir)
  }


def kill_at(run, step):
  """Has the run end with a KeyError instead of the update at this step."""
  update = run.update

  def limited(batch):
    if run.gradient_step == step:
      raise KeyError('killed')
    update(batch)

  run.update = limited
