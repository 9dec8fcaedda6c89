"""Imports of kitchen data, and what they must have made."""

import numpy as np

import moto_tf
from moto_tf.data import episodes, importers

ENV = moto_tf.make_config('kitchen').env
SHADOWS = moto_tf.make_config('kitchen', **{'env.fast_render': False}).env


def recipe(kind, path, task='kitchen_mixed', **changes):
  env = SHADOWS if kind == 'd5rl' else ENV
  return importers.Import(kind, path, task, env, **changes)


def load(directory):
  paths = episodes.find_episodes(directory)
  return [episodes.load_episode(path) for path in paths]


def check(found, wanted, keys):
  assert len(found) == len(wanted)
  for ours, theirs in zip(found, wanted):
    for key in ('action', 'reward', 'success', 'is_first', 'is_last', *keys):
      np.testing.assert_allclose(ours[key], theirs[key], atol=1e-7, err_msg=key)
    assert not ours['is_terminal'].any()
