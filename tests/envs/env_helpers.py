"""Settings, rollouts and comparisons shared by the tests of environments."""

import types

import numpy as np


def settings(**changes):
  values = {
    'image_size': 64,
    'action_repeat': 2,
    'time_limit': 100,
    'image': False,
    'camera': 'default',
    'extra_size': 0,
    'extra_camera': '',
    'fast_render': True,
    'hide_goal': True,
  }
  return types.SimpleNamespace(**{**values, **changes})


def rollout(env, seed, actions):
  records = [env.reset(seed)] + [env.step(a) for a in actions]
  return {k: np.stack([r[k] for r in records]) for k in records[0]}


def same(a, b):
  return a.keys() == b.keys() and all(
    a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a
  )
