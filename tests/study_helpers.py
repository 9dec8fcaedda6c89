"""Episodes, runs and known critics shared by the tests of studies."""

import json

import numpy as np
import tensorflow as tf
from helpers import make_batch, randomize, tiny_config

from moto_tf.agents.moto import MOTO
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


class Known:
  """Critics whose values are known: linear in what they get."""

  def __init__(self, size, offsets=(1, 0, 2), seed=0):
    self.offsets = offsets
    self.weight = np.random.default_rng(seed).normal(size=size)

  def value(self, *inputs):
    inputs = [np.asarray(x, np.float64) for x in inputs]
    return np.concatenate(inputs, -1) @ self.weight

  def __call__(self, *inputs):
    value = self.value(*inputs)
    return tf.constant([value + x for x in self.offsets], tf.float32)


def set_critics(monkeypatch, agent):
  """Gives an agent of MOTO or DreamerV2 Known critics and returns them."""
  size, known = agent.model.rssm.feat, None
  if isinstance(agent.behavior, MOTO):
    known = Known(size + agent.act_space.shape[0])
  known = known or Known(size, [0])
  monkeypatch.setattr(agent.behavior, 'critics', known)
  return known


def naive_values(agent, known, episode, post, gamma):
  """What `compare_values` returns, by the sums as they are written.

  Args:
    known: of `set_critics`.
    post: states of the episode, [T + 1, ...].
  """
  last, reward = len(episode['reward']) - 1, episode['reward']
  twins, feat = isinstance(agent.behavior, MOTO), post['feat'].numpy()
  mean = agent.behavior.actor(feat).mean().numpy()
  rows = []
  for i in range(last):
    action = [episode['action'][i + 1]] if twins else []
    row = {'predicted': known.value(feat[i], *action)}
    row |= dict.fromkeys(('real', 'reward', 'penalty'), 0.0)
    for k in range(last - i):
      u = 0.0
      if twins:
        # Of s[i+k] and a[i+k+1]: of the heads where they lead.
        there = {key: post[key][i + k : i + k + 2, None] for key in post}
        u = agent.behavior.disagreement(there).numpy()[0, 0]
        u *= agent.behavior.penalty[1]
      row['penalty'] += u if k == 0 else 0
      came = reward[i + k + twins]
      row['reward'] += gamma**k * came
      row['real'] += gamma**k * (came - u)
    end = 0.0 if twins else reward[last]
    tail = known.value(feat[last], *([mean[last]] if twins else []))
    terminal = episode['is_terminal'][-1]
    row['reward'] += gamma ** (last - i) * end
    row['real'] += gamma ** (last - i) * (end if terminal else tail)
    rows.append(row)
  return {k: np.array([row[k] for row in rows]) for k in rows[0]}


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
