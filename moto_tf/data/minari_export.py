"""Our episodes as a Minari dataset, for other people's tools.

A dataset is <root>/<id>/data with metadata.json and main_data.hdf5, where each
group episode_<i> holds T actions, rewards, terminations, truncations, and T + 1
observations. Minari keeps images as encoded files, JPEG by its own hand. It
decodes whatever format it finds, so PNG loses nothing.
"""

import json
import os
import pathlib
import re
import shutil

import h5py
import numpy as np

import moto_tf
from moto_tf import files, images, rules
from moto_tf.data import episodes, inspect
from moto_tf.errors import MotoError

# The Minari that was seen to load such a dataset.
VERSION = '0.5.4'


class MinariError(MotoError, ValueError):
  """A dataset cannot be written; the message says why."""


def export(
  directory: pathlib.Path, root: pathlib.Path, name: str
) -> pathlib.Path:
  """Writes all episodes of a directory as the dataset <root>/<name>.

  It appears whole or not at all. To load it by its name, root must be
  MINARI_DATASETS_PATH.

  Args:
    directory: of intact episodes.
    root: folder of Minari datasets.
    name: such as drawer/scripted-v0.

  Returns:
    The folder of the dataset.

  Raises:
    MinariError: the name is none, is taken, or an episode is damaged.
    EpisodeError: there is no such directory.
    FileError: the dataset cannot be written.
  """
  if not re.fullmatch(r'([\w-]+/)*[\w-]+-v\d+', name):
    raise MinariError(
      f'{name!r} is no name of a Minari dataset; it ends in a version and has '
      'letters, digits, _ and - between slashes, such as drawer/scripted-v0.'
    )
  info = inspect.inspect(directory)
  if info.damage:
    raise MinariError(
      f'{directory}: damaged: {", ".join(info.damage)}. Look at them with '
      '`python -m moto_tf dataset info`, and move them elsewhere.'
    )
  if not len(info.lengths):
    where = episodes.folders_with_episodes(directory)
    raise MinariError(f'{directory}: there are no episodes here{where}.')
  path = rules.expand(root) / name
  if path.exists():
    raise MinariError(f'{path}: exists already; remove it, or change --id.')
  partial = path.with_name(f'.{path.name}-{os.getpid()}.tmp')
  try:
    with files.writing(path):
      (partial / 'data').mkdir(parents=True)
      _write(info, partial / 'data', name)
      partial.rename(path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return path


def _write(info, folder, name):
  spaces = {
    key: _box(shape, dtype)
    for key, (shape, dtype) in info.keys.items()
    if key not in episodes.RESERVED
  }
  paths = episodes.find_episodes(info.directory)
  with h5py.File(folder / 'main_data.hdf5', 'w', track_order=True) as file:
    for index, path in enumerate(paths):
      episode = episodes.load_episode(path)
      group = file.create_group(f'episode_{index}')
      steps = len(episode['reward']) - 1
      group.attrs.update(id=index, total_steps=steps)
      _write_episode(group, episode, spaces)
  size = (folder / 'main_data.hdf5').stat().st_size
  actions = info.keys['action'][0]
  metadata = {
    'dataset_id': name,
    'total_episodes': len(paths),
    'total_steps': int(info.lengths.sum()),
    'data_format': 'hdf5',
    'observation_space': json.dumps({'type': 'Dict', 'subspaces': spaces}),
    'action_space': json.dumps(_box(actions, 'float32', -1.0, 1.0)),
    'algorithm_name': info.record.get('policy', info.record.get('format', '')),
    'description': f'{info.record.get("task", "")}, episodes of moto_tf '
    f'{moto_tf.__version__}; infos/success: solved so far.',
    'dataset_size': round(size / 1e6, 1),
    'minari_version': VERSION,
  }
  (folder / 'metadata.json').write_text(json.dumps(metadata))


def _write_episode(group, episode, keys):
  ends = {
    'terminations': episode['is_terminal'],
    'truncations': episode['is_last'] & ~episode['is_terminal'],
  }
  for key, value in ends.items():
    group[key] = value[1:]
  group['rewards'] = episode['reward'][1:].astype(np.float64)
  group['actions'] = episode['action'][1:]
  group['infos/success'] = episode['success']
  for key in keys:
    value = episode[key]
    if _is_image(value):
      kind = h5py.vlen_dtype(np.uint8)
      data = group.create_dataset(f'observations/{key}', len(value), kind)
      for i, image in enumerate(value):
        data[i] = np.frombuffer(images.encode_png(image), np.uint8)
    else:
      group[f'observations/{key}'] = value


def _is_image(value):
  """What Minari takes for images: smaller ones it stores as numbers."""
  return (
    value.dtype == np.uint8 and value.ndim == 4 and min(value.shape[1:3]) >= 32
  )


def _box(shape, dtype, low=-np.inf, high=np.inf):
  """A Box in Minari's JSON, whose bounds have the shape of the space."""
  if dtype == 'uint8':
    low, high = 0, 255
  fill = lambda x: np.full(shape, x).tolist()
  return {
    'type': 'Box',
    'dtype': dtype,
    'shape': list(shape),
    'low': fill(low),
    'high': fill(high),
  }
