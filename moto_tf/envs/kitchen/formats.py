"""The formats that public data of the kitchen comes in, and where to get it."""

import functools

from moto_tf.data.formats import Format, Reader
from moto_tf.registry import resolve


def _open(source: str, path, task, env, relabel) -> Reader:
  """Reader of the trajectories that a source finds at a path."""
  from moto_tf.envs.kitchen.playback import Playback

  return Playback(resolve(source)(path), path, task, env, relabel)


def _format(name: str, where: str) -> Format:
  source = f'moto_tf.envs.kitchen.sources.{name}:Source'
  report = 'moto_tf.envs.kitchen.table:equal_rewards'
  opener = functools.partial(_open, source)
  # Logs of relay policy learning hold no rewards.
  return Format(opener, where, 'kitchen', report, relabels=name != 'rpl')


FORMATS = {
  'minari': _format(
    'minari',
    'Get it by `pip install minari[hdf5] && minari download NAME`, where NAME '
    'is D4RL/kitchen/partial-v2 for kitchen_mixed, D4RL/kitchen/mixed-v2 for '
    'kitchen_partial, D4RL/kitchen/complete-v2 for kitchen_complete, and give '
    'its folder below ~/.minari/datasets, or the main_data.hdf5 in it.',
  ),
  'd4rl': _format(
    'd4rl',
    'Get it from http://rail.eecs.berkeley.edu/datasets/offline_rl/kitchen: '
    'kitchen_microwave_kettle_light_slider-v0.hdf5 for kitchen_mixed, '
    'kitchen_microwave_kettle_bottomburner_light-v0.hdf5 for kitchen_partial, '
    'mini_kitchen_microwave_kettle_light_slider-v0.hdf5 for kitchen_complete.',
  ),
  'rpl': _format(
    'rpl',
    'Get kitchen_demos_multitask.zip (700 MB) from https://github.com/'
    'google-research/relay-policy-learning, for example by `git lfs clone`, '
    'unzip it, and give the folder.',
  ),
  'd5rl': _format(
    'd5rl',
    'Get it by `gsutil -m cp -r gs://d5rl_datasets/KITCHEN_DATA/'
    'kitchen_demos_multitask_lexa_view_and_wrist_npz .`, and give the folder.',
  ),
}
