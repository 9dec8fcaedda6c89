"""D5RL's npz files of the standard kitchen, which hold images.

Their layout is DreamerV2's, one file per episode: action[i] led into record i
and is zero at the first, reward[i] came with it. Rewards are `reward <object>`
for each object, or one `reward`. Positions of the objects are not stored, so
images cannot be rendered again.
"""

import functools
import pathlib

import numpy as np

from moto_tf.bounded import open_npz
from moto_tf.data import formats
from moto_tf.envs.kitchen import sources
from moto_tf.envs.kitchen.formats import FORMATS

WHERE = FORMATS['d5rl'].where
# The first of these that has the wanted size is taken.
IMAGES = ('image', 'extra_image_camera_12_rgb', 'image_128')


class Source:
  """A folder of episodes, or one. `names` are the files."""

  def __init__(self, path: pathlib.Path):
    """Lists the files below a folder."""
    self.files = formats.find_files(path, '*.npz', WHERE)
    self.names = formats.short_names(path, self.files)

  def read(self, index: int) -> sources.Trajectory:
    """Rewards of an episode; its images are read when they are asked for."""
    path = self.files[index]
    arrays = _load(path, lambda key: key in ('action', 'reward') or _named(key))
    label = lambda key: f'{path}: {key!r}'
    if 'action' not in arrays:
      raise formats.SourceError(f"{path}: key 'action' is missing. {WHERE}")
    action = arrays.pop('action')
    action = formats.check_array(
      label('action'), action, (None, sources.ACTIONS)
    )
    records = len(action)
    rewards = {
      key: formats.check_array(label(key), value, (records,))
      for key, value in arrays.items()
    }
    if not rewards:
      raise formats.SourceError(
        f"{path}: has neither 'reward' nor 'reward <object>'. {WHERE}"
      )
    if records < 2 or action[0].any():
      raise formats.SourceError(
        f'{path}: has {records} records and a first action of up to '
        f'{np.abs(action[:1]).max(initial=0):.3g}, expected two or more and a '
        'first action of zeros, which leads into the reset.'
      )
    return sources.Trajectory(
      action=sources.check_actions(label('action'), action[1:]),
      image=functools.partial(_images, path, records),
      reward=rewards.pop('reward', None),
      rewards={_named(key): value for key, value in rewards.items()} or None,
    )


def _named(key):
  """Object of a key 'reward <object>', or ''."""
  return key.removeprefix('reward ') if key.startswith('reward ') else ''


def _load(path, wanted):
  with formats.reading(path, WHERE), open_npz(path) as file:
    return {key: file.read(key) for key in file.names if wanted(key)}


def _images(path, records, size):
  """The first images of the wanted size."""
  found = []
  with formats.reading(path, WHERE), open_npz(path) as file:
    for key in IMAGES:
      if key in file.names:
        shape, dtype = file.header(key)
        if shape == (records, size, size, 3) and dtype == np.uint8:
          return file.read(key)
        found.append(f'{key} {dtype} {shape}')
  raise formats.SourceError(
    f'{path}: has no images uint8 ({records}, {size}, {size}, 3); there are: '
    f'{", ".join(found) or "none"}. Set --env.image_size to one of these.'
  )
