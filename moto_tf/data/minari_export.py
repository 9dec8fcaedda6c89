"""Our episodes as a Minari dataset, for other people's tools.

A dataset is <root>/<id>/data with metadata.json and main_data.hdf5, where each
group episode_<i> holds T actions, rewards, terminations, truncations, and T + 1
observations. Minari keeps images as encoded files, JPEG by its own hand. It
decodes whatever format it finds, so PNG loses nothing.
"""

import json
import pathlib
import re

import h5py
import numpy as np

import moto_tf
from moto_tf import images, rules
from moto_tf.data import episodes
from moto_tf.data.exporters import DatasetError, appearing, read_source
from moto_tf.data.inspect import range_of

# The Minari that was seen to load such a dataset.
VERSION = '0.5.4'


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
    DatasetError: the name is none, is taken, or an episode is damaged.
    EpisodeError: there is no such directory.
    FileError: the dataset cannot be written.
  """
  if not re.fullmatch(r'([\w-]+/)*[\w-]+-v\d+', name):
    raise DatasetError(
      f'{name!r} is no name of a Minari dataset; it ends in a version and has '
      'letters, digits, _ and - between slashes, such as drawer/scripted-v0.'
    )
  info = read_source(directory)
  with appearing(root, name) as partial:
    (partial / 'data').mkdir()
    _write(info, partial / 'data', name)
  return rules.expand(root) / name


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
    f'{moto_tf.__version__}; infos/success: solved so far.' + _units(info),
    'dataset_size': round(size / 1e6, 1),
    'minari_version': VERSION,
  }
  (folder / 'metadata.json').write_text(json.dumps(metadata))


def _units(info):
  ends = range_of(info.record)
  if not ends:
    return ''
  return f' In units of the robot -1 is {ends["low"]}, and 1 {ends["high"]}.'


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
