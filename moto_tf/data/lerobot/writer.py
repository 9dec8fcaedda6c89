"""Our episodes as a dataset of LeRobot; see `moto_tf.data.lerobot`."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from moto_tf import envs, files, images, rules
from moto_tf.data import episodes, lerobot
from moto_tf.data.exporters import DatasetError, appearing, read_source
from moto_tf.data.inspect import range_of, to_units
from moto_tf.data.lerobot import pictures
from moto_tf.data.lerobot.statistics import Statistics
from moto_tf.errors import warn

# Frames per second where no suite says how long a step is.
UNKNOWN, MOST = 10.0, 1000
# Of a file, in MB, and of a video in seconds: LeRobot compares times as float32
# to within 0.1 ms, and from 1,024 s on these are further apart than that.
DATA_SIZE, VIDEO_SIZE, SECONDS = 100, 200, 500
SUMS = {'write_page_checksum': True}  # So that damage is seen.
CHUNK = 1000  # Files in a folder.
IMAGE = pyarrow.struct(
  [('bytes', pyarrow.binary()), ('path', pyarrow.string())]
)
SIGNALS = {
  'next.reward': 'reward',
  'next.done': 'is_last',
  'next.success': 'success',
  'next.terminated': 'is_terminal',
}


def export(
  directory: Path, root: Path, name: str, fps: float, kept: str
) -> Path:
  """See `moto_tf.data.lerobot.export`."""
  parts = name.split('/')
  if len(parts) != 2 or not all(re.fullmatch(r'\w[\w.-]*', x) for x in parts):
    raise DatasetError(
      f'{name!r} is no name of a dataset of LeRobot, which is user/name, of '
      'letters, digits, points, _ and -.'
    )
  info = read_source(directory)
  encoder = pictures.find_encoder() if kept == 'video' else ''
  if kept == 'video' and not encoder:
    raise DatasetError(
      f'av has no encoder {" or ".join(pictures.ENCODERS)}; give --images png.'
    )
  fps = fps or _rate(info.record)
  if not fps:
    fps = UNKNOWN
    warn(
      f'how long a step of {info.task or "these episodes"} takes is unknown; '
      f'{fps:g} frames per second are written. Another rate is given by --fps.'
    )
  with appearing(root, name) as folder:
    ends = range_of(info.record)
    writer = _Writer(folder, _features(info, encoder), fps, encoder, ends)
    for path in episodes.find_episodes(directory):
      writer.add(episodes.load_episode(path))
    writer.finish(_instruction(info.record))
  return rules.expand(root) / name


class _Writer:
  """Files of a dataset while episodes are added to them."""

  def __init__(self, root, features, fps, encoder, ends):
    self._root, self._features = root, features
    self._fps, self._encoder, self._ends = fps, encoder, ends
    self._rows, self._last, self._frames, self._file = [], [], 0, -1
    self._table, self._videos = None, {}
    self._statistics = Statistics()
    self._schema = pyarrow.schema(
      [
        (name, _kind(entry))
        for name, entry in features.items()
        if entry['dtype'] != 'video'
      ]
    )

  def add(self, episode):
    """Writes an episode of T actions as T frames, and what came after them."""
    if self._is_full():
      self._close()
      self._open()
    index, count = len(self._rows), len(episode['reward']) - 1
    frame = np.arange(count)
    values = {
      'timestamp': (frame / self._fps).astype(np.float32),
      'frame_index': frame,
      'episode_index': np.full(count, index),
      'index': self._frames + frame,
      'task_index': np.zeros(count, int),
      'action': to_units(episode['action'][1:], self._ends),
      **{name: episode[key][1:] for name, key in SIGNALS.items()},
    }
    for name, entry in self._features.items():
      if name.startswith(lerobot.OBSERVATION):
        values[name] = episode[entry['key']][:-1]
    row = {
      'episode_index': index,
      'tasks': None,
      'length': count,
      'data/chunk_index': self._file // CHUNK,
      'data/file_index': self._file % CHUNK,
      'dataset_from_index': self._frames,
      'dataset_to_index': self._frames + count,
      'meta/episodes/chunk_index': 0,
      'meta/episodes/file_index': 0,
    }
    for name, video in self._videos.items():
      row |= {
        f'videos/{name}/chunk_index': self._file // CHUNK,
        f'videos/{name}/file_index': self._file % CHUNK,
        f'videos/{name}/from_timestamp': video.count / self._fps,
        f'videos/{name}/to_timestamp': (video.count + count) / self._fps,
      }
      for image in values[name]:
        video.add(image)
    arrays = [_column(values[x.name], x.type) for x in self._schema]
    self._table.write_table(pyarrow.table(arrays, schema=self._schema))
    for name, found in self._statistics.add(values).items():
      row |= {f'stats/{name}/{key}': value for key, value in found.items()}
    self._rows.append(row)
    self._last.append({k: episode[v][-1:] for k, v in self._observed().items()})
    self._frames += count

  def finish(self, instruction):
    """Writes meta/, when all episodes have been added."""
    self._close()
    meta = self._root / 'meta'
    (meta / 'episodes/chunk-000').mkdir(parents=True)
    for row in self._rows:
      row['tasks'] = [instruction]
    path = lerobot.EPISODES.format(chunk_index=0, file_index=0)
    rows = pyarrow.Table.from_pylist(self._rows)
    parquet.write_table(rows, self._root / path, **SUMS)
    _write_tasks(self._root / lerobot.TASKS, instruction)
    self._write_last()
    files.write_json(self._root / lerobot.STATS, self._statistics.total())
    whole = self._fps == int(self._fps)
    features = {
      name: {k: v for k, v in entry.items() if k != 'key'}
      for name, entry in self._features.items()
    }
    for name, video in self._videos.items():
      features[name]['info'] = video.info
    content = {
      'codebase_version': lerobot.VERSION,
      'robot_type': None,
      'total_episodes': len(self._rows),
      'total_frames': self._frames,
      'total_tasks': 1,
      'chunks_size': CHUNK,
      'data_files_size_in_mb': DATA_SIZE,
      'video_files_size_in_mb': VIDEO_SIZE,
      'fps': int(self._fps) if whole else self._fps,
      'splits': {'train': f'0:{len(self._rows)}'},
      'data_path': lerobot.DATA,
      'video_path': lerobot.VIDEO if self._encoder else None,
      'features': features,
    }
    files.write_json(self._root / lerobot.INFO, content)

  def _observed(self):
    """Our keys by the names of observations."""
    entries = self._features.items()
    return {name: entry['key'] for name, entry in entries if 'key' in entry}

  def _is_full(self):
    if self._table is None:
      return True
    size = lambda path: self._path(path).stat().st_size / 1e6
    if size(lerobot.DATA) > DATA_SIZE:
      return True
    return any(
      video.count / self._fps > SECONDS
      or size(lerobot.VIDEO.replace('{video_key}', name)) > VIDEO_SIZE
      for name, video in self._videos.items()
    )

  def _path(self, pattern):
    """Path of the file of now."""
    chunk, file = divmod(self._file, CHUNK)
    return self._root / pattern.format(chunk_index=chunk, file_index=file)

  def _open(self):
    self._file += 1
    path = self._path(lerobot.DATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._table = parquet.ParquetWriter(path, self._schema, **SUMS)
    self._videos = {
      name: pictures.VideoWriter(
        self._path(lerobot.VIDEO.replace('{video_key}', name)),
        self._fps,
        entry['shape'][:2],
        self._encoder,
      )
      for name, entry in self._features.items()
      if entry['dtype'] == 'video'
    }

  def _close(self):
    if self._table is not None:
      self._table.close()
    for video in self._videos.values():
      video.close()

  def _write_last(self):
    columns = {
      'episode_index': [row['episode_index'] for row in self._rows],
      'length': [row['length'] for row in self._rows],
    }
    for name, entry in self._features.items():
      if 'key' in entry:
        kind = IMAGE if entry['dtype'] == 'video' else _kind(entry)
        value = np.concatenate([row[name] for row in self._last])
        columns[name] = _column(value, kind)
    parquet.write_table(
      pyarrow.table(columns), self._root / lerobot.LAST, **SUMS
    )


def _features(info, encoder):
  """What meta/info.json says of each column; `key` is ours."""
  found = {}
  for key, (shape, dtype) in info.keys.items():
    if key in episodes.RESERVED:
      continue
    if len(shape) == 3 and shape[2] == 3 and dtype == 'uint8':
      found[lerobot.CAMERAS + key] = {
        'dtype': 'video' if encoder else 'image',
        'shape': list(shape),
        'names': ['height', 'width', 'channels'],
        'key': key,
      }
    elif len(shape) <= 1:
      found[lerobot.OBSERVATION + key] = _feature(dtype, shape) | {'key': key}
    else:
      raise DatasetError(
        f'{info.directory}: observation {key!r} has shape {shape} and dtype '
        f'{dtype}; LeRobot has vectors, and images with three colours.'
      )
  found['action'] = _feature(*reversed(info.keys['action']))
  found['next.reward'] = _feature('float32', ())
  for name in ('next.done', 'next.success', 'next.terminated'):
    found[name] = _feature('bool', ())
  return found | {k: _feature(v, ()) for k, v in lerobot.COLUMNS.items()}


def _feature(dtype, shape):
  return {'dtype': dtype, 'shape': list(shape) or [1], 'names': None}


def _kind(entry):
  """Type of a column."""
  if entry['dtype'] == 'image':
    return IMAGE
  number = getattr(pyarrow, entry['dtype'].replace('bool', 'bool_'))()
  (size,) = entry['shape']
  return number if size == 1 else pyarrow.list_(number, size)


def _column(value, kind):
  """Values [rows, ...] as a column."""
  if kind == IMAGE:
    return pyarrow.array(
      [{'bytes': images.encode_png(x), 'path': None} for x in value], kind
    )
  flat = np.ascontiguousarray(value).reshape(-1)
  if pyarrow.types.is_fixed_size_list(kind):
    values = pyarrow.array(flat, kind.value_type)
    return pyarrow.FixedSizeListArray.from_arrays(values, kind.list_size)
  return pyarrow.array(flat, kind)


def _write_tasks(path, instruction):
  """A table of one row, whose index is a text, as pandas stores it."""
  column = lambda name, kind, stored: {
    'name': name,
    'field_name': name,
    'pandas_type': kind,
    'numpy_type': stored,
    'metadata': None,
  }
  said = {
    'index_columns': ['task'],
    'column_indexes': [column(None, 'unicode', 'object')],
    'columns': [
      column('task_index', 'int64', 'int64'),
      column('task', 'unicode', 'object'),
    ],
    'creator': {'library': 'pyarrow', 'version': pyarrow.__version__},
    'pandas_version': '2.2.0',
  }
  table = pyarrow.table({'task_index': [0], 'task': [instruction]})
  table = table.replace_schema_metadata({'pandas': json.dumps(said)})
  parquet.write_table(table, path, **SUMS)


def _instruction(record):
  """The task in words: that of an import, or the name of ours."""
  stored = record.get('instructions', ())
  if len(stored) == 1:
    return stored[0]
  name = record.get('task', '').partition('_')[2]
  return re.sub(r'[-_]+', ' ', name).strip() or 'unknown'


def _rate(record):
  """Frames per second of recorded episodes; 0 where it is unknown."""
  suite = envs.suite_of(record.get('task', ''))
  repeat = record.get('env', {}).get('action_repeat', 1)
  if 0 < (stored := record.get('fps', 0)) <= MOST:
    return float(stored)  # Of an import.
  if not suite or not suite.step_seconds or type(repeat) is not int:
    return 0.0
  return round(1 / (suite.step_seconds * repeat), 3)
