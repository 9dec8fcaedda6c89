"""Small episodes as datasets of LeRobot, and their readers."""

import functools
import json

import numpy as np
import pyarrow
from pyarrow import parquet

import moto_tf
from moto_tf.data import lerobot
from moto_tf.data.lerobot.reader import LeRobotReader

SIZE = 16
DATA = 'data/chunk-000/file-000.parquet'
EPISODES = 'meta/episodes/chunk-000/file-000.parquet'
LENGTHS = (4, 7, 3)


def make(length, seed):
  """An episode of smooth images, so that a video can hold them."""
  rng = np.random.default_rng(seed)
  records = np.arange(length + 1)
  action = rng.uniform(-1, 1, (length + 1, 3)).astype(np.float32)
  action[0] = 0
  ramp = np.linspace(0, 1, SIZE)
  light = 40 * records[:, None, None, None] % 200
  image = light + 50 * ramp[:, None, None] * ramp[None, :, None]
  return {
    'image': (image + [0, 3, 5]).astype(np.uint8),
    'image_extra': np.broadcast_to(200 - light, image.shape[:3] + (3,)).astype(
      np.uint8
    ),
    'speed': rng.normal(size=length + 1).astype(np.float32),
    'state': rng.normal(size=(length + 1, 5)).astype(np.float32),
    'action': action,
    'reward': np.where(records, rng.normal(size=length + 1), 0),
    'is_first': records == 0,
    'is_last': records == length,
    'is_terminal': (records == length) & (seed == 1),
    'success': (records > 2) & (seed != 2),
  }


@functools.cache
def env(**changes):
  options = {'image_size': SIZE, 'extra_size': SIZE, **changes}
  options = {f'env.{k}': v for k, v in options.items()}
  return moto_tf.make_config('metaworld', **options).env


def read(path, index=0, **changes):
  reader = LeRobotReader(path, env(**changes))
  reader.check()
  return reader.read(index)


def image_key():
  return 'observation.images.image'


def change_info(root, change):
  path = root / lerobot.INFO
  info = json.loads(path.read_text())
  change(info)
  path.write_text(json.dumps(info))


def change_table(root, name, **columns):
  """Columns of a parquet file made anew; None removes one."""
  table = parquet.read_table(root / name)
  for key, value in columns.items():
    place = table.schema.get_field_index(key)
    if value is not None:
      value = value(table[key]) if callable(value) else value
      table = table.set_column(place, key, pyarrow.array(value))
    else:
      table = table.remove_column(place)
  parquet.write_table(table, root / name)
