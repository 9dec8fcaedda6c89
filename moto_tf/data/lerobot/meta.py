"""What a dataset of LeRobot says of itself, checked."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from moto_tf import rules
from moto_tf.bounded import read_json
from moto_tf.data import lerobot
from moto_tf.data.formats import SourceError, reading
from moto_tf.data.lerobot import pictures, tables

# By which an action may be beyond [-1, 1] and count as within.
TOLERANCE = 1e-3
FILES = 10**6  # More files, or frames per second, are no dataset.
INSTRUCTIONS = 20  # That are recorded.
_plain = re.compile(r'[\w.-]+')


@dataclasses.dataclass(frozen=True)
class Meta:
  """A dataset before its frames are read.

  Attributes:
    root: its folder.
    fps: frames per second.
    features: what meta/info.json says, by name.
    episodes: columns of meta/episodes by name, an entry for each episode.
    instructions: texts of its tasks.
  """

  root: Path
  fps: float
  features: dict
  episodes: dict
  instructions: list

  def vectors(self) -> dict[str, int]:
    """Vector observations with their sizes, in the order of the file."""
    found = {}
    for name in self.features:
      if not name.startswith(lerobot.OBSERVATION):
        continue
      kind, shape = self.feature(name)
      if kind not in ('image', 'video', 'string') and len(shape) == 1:
        found[name] = shape[0]
    return found

  def cameras(self) -> dict[str, tuple[int, int]]:
    """Height and width of cameras with three colours, in their order."""
    found = {}
    for name in self.features:
      if not name.startswith(lerobot.OBSERVATION):
        continue
      kind, shape = self.feature(name)
      if kind not in ('image', 'video') or len(shape) != 3:
        continue
      # Channels may come first, as in PyTorch.
      first = shape[0] == 3 and shape[2] != 3
      height, width, channels = (*shape[1:], shape[0]) if first else shape
      if channels != 3:
        continue
      if height * width > pictures.PIXELS or not _plain.fullmatch(name):
        raise SourceError(
          f'{self.root / lerobot.INFO}: {rules.brief(name)} has {height} x '
          f'{width} pixels, expected at most {pictures.PIXELS:,} and a name of '
          'letters, digits, points, _ and -.'
        )
      found[name] = height, width
    return found

  def feature(self, name: str) -> tuple[str, list[int]]:
    """Type and shape of a feature.

    Raises:
      SourceError: there is none, or it is described otherwise.
    """
    path = self.root / lerobot.INFO
    if name not in self.features:
      found = rules.cut(', '.join(map(str, self.features)))
      raise SourceError(f'{path}: has no feature {name!r}, found {found}.')
    entry = self.features[name]
    entry = entry if isinstance(entry, dict) else {}
    kind, shape = entry.get('dtype'), entry.get('shape')
    if (
      not isinstance(kind, str)
      or not isinstance(shape, list)
      or not all(type(x) is int and 0 < x < 2**31 for x in shape)
    ):
      raise SourceError(
        f'{path}: features.{rules.cut(name)} has dtype {rules.brief(kind)} and '
        f'shape {rules.brief(shape)}, expected a text and a list of lengths.'
      )
    return kind, shape

  def video(self, name: str, index: int) -> tuple[Path, float]:
    """File of a camera that holds an episode, and seconds until it begins.

    Raises:
      SourceError: meta/episodes does not say it.
    """
    keys = ('chunk_index', 'file_index', 'from_timestamp')
    chunk, file, start = (self._cell(f'videos/{name}/{x}', index) for x in keys)
    return self.root / lerobot.VIDEO.format(
      video_key=name, chunk_index=int(chunk), file_index=int(file)
    ), float(start)

  def data(self, index: int) -> tuple[Path, int, int]:
    """File that holds the rows of an episode, the first of them, and how many.

    Raises:
      SourceError: meta/episodes contradicts itself.
    """
    chunks, files, starts, stops, lengths = (
      self.episodes[x]
      for x in (
        'data/chunk_index',
        'data/file_index',
        'dataset_from_index',
        'dataset_to_index',
        'length',
      )
    )
    if stops[index] - starts[index] != lengths[index]:
      raise SourceError(
        f'{self.root}/meta/episodes: episode {index} has length '
        f'{lengths[index]}, and its frames are {starts[index]} to '
        f'{stops[index] - 1}.'
      )
    chunk, file = chunks[index], files[index]
    same = (chunks == chunk) & (files == file)
    path = self.root / lerobot.DATA.format(
      chunk_index=int(chunk), file_index=int(file)
    )
    return path, int(starts[index] - starts[same].min()), int(lengths[index])

  def _cell(self, name, index):
    if name not in self.episodes:
      raise SourceError(f'{self.root}/meta/episodes: has no column {name!r}.')
    return self.episodes[name][index]


def read(path: Path) -> Meta:
  """What is known of a dataset from its meta/.

  Args:
    path: its folder, or meta/info.json in it.

  Raises:
    SourceError: there is none, it is of another version, or contradicts itself.
  """
  root = path.parents[1] if path.is_file() else path
  info_path = root / lerobot.INFO
  if not info_path.is_file():
    raise SourceError(f'{info_path}: there is no such file. {lerobot.WHERE}')
  with reading(info_path):
    info = read_json(info_path, constants=True)
  if not isinstance(info, dict):
    raise SourceError(f'{info_path}: expected a JSON object.')
  _check_version(info_path, info.get('codebase_version'))
  fps, features = info.get('fps'), info.get('features')
  if type(fps) not in (int, float) or not 0 < fps < FILES:
    raise SourceError(
      f'{info_path}: fps is {rules.brief(fps)}, expected frames per second.'
    )
  if not isinstance(features, dict):
    raise SourceError(f'{info_path}: has no features.')
  for key, wanted in (
    ('data_path', lerobot.DATA),
    ('video_path', lerobot.VIDEO),
  ):
    if info.get(key) not in (None, wanted):
      raise SourceError(
        f'{info_path}: {key} is {rules.brief(info[key])}, expected {wanted}.'
      )
  episodes = _read_episodes(root, features)
  count = len(episodes['length'])
  if info.get('total_episodes') != count:
    raise SourceError(
      f'{info_path}: total_episodes is '
      f'{rules.brief(info.get("total_episodes"))}, and meta/episodes has '
      f'{count}.'
    )
  return Meta(root, float(fps), features, episodes, _instructions(root))


def read_range(meta: Meta, size: int) -> tuple[np.ndarray, np.ndarray]:
  """The numbers [A] that become -1 and 1 of an action.

  Each number of an action is scaled from its smallest and largest value in
  the data if one of them is beyond -1 or 1, and else left as it is.

  Args:
    meta: of a dataset.
    size: of an action.

  Raises:
    SourceError: meta/stats.json does not say them.
  """
  path = meta.root / lerobot.STATS
  if not path.is_file():
    raise SourceError(
      f'{path}: there is no such file, which says how large actions are.'
    )
  with reading(path):
    stats = read_json(path, constants=True)
    ends = [np.array(stats['action'][x], np.float64) for x in ('min', 'max')]
  for name, end in zip(('min', 'max'), ends):
    if end.shape != (size,) or not np.isfinite(end).all():
      raise SourceError(
        f'{path}: action.{name} has shape {end.shape}, expected {size} finite '
        'numbers.'
      )
  low, high = ends
  if (low > high).any():
    raise SourceError(f'{path}: action.min is above action.max.')
  beyond = (low < -1 - TOLERANCE) | (high > 1 + TOLERANCE)
  return np.where(beyond, low, -1), np.where(beyond, high, 1)


def _check_version(path, version):
  if not isinstance(version, str) or not re.fullmatch(r'v\d+(\.\d+)*', version):
    raise SourceError(
      f'{path}: codebase_version is {rules.brief(version)}, expected one such '
      f'as v3.0. {lerobot.WHERE}'
    )
  major = int(version[1:5].partition('.')[0])
  if major < 3:
    raise SourceError(
      f'{path}: is of version {version}, and v3 is read. Convert it with '
      'LeRobot: python -m lerobot.scripts.convert_dataset_v21_to_v30 '
      '--repo-id=USER/NAME, for v2.1; older ones need its older converters '
      'first.'
    )
  if major > 3:
    raise SourceError(
      f'{path}: is of version {version}, newer than v3, which is read.'
    )


def _read_episodes(root, features):
  """Columns of all files of meta/episodes, in the order of the episodes."""
  folder = root / 'meta/episodes'
  paths = sorted(folder.glob('*/*.parquet'))
  if not paths:
    raise SourceError(f'{folder}: there is no file */*.parquet here.')
  videos = [
    f'videos/{name}/{x}'
    for name, entry in features.items()
    if isinstance(entry, dict) and entry.get('dtype') == 'video'
    for x in ('chunk_index', 'file_index', 'from_timestamp')
  ]
  whole = ['episode_index', 'length', 'data/chunk_index', 'data/file_index']
  whole += ['dataset_from_index', 'dataset_to_index']
  parts = []
  for path in paths:
    table = tables.Rows().read(path, [*whole, *videos])
    names = (*whole, *videos)
    parts.append({x: tables.numbers(table, x, None, str(path)) for x in names})
  found = {x: np.concatenate([p[x] for p in parts]) for x in (*whole, *videos)}
  order = np.argsort(found['episode_index'], kind='stable')
  found = {key: value[order] for key, value in found.items()}
  if not np.array_equal(found['episode_index'], np.arange(len(order))):
    raise SourceError(
      f'{folder}: episodes are not numbered from 0 to {len(order) - 1}.'
    )
  for key, value in found.items():
    limit = FILES if key.endswith(('chunk_index', 'file_index')) else 2**40
    exact = key.endswith('from_timestamp') or value.dtype.kind in 'iu'
    wrong = (value < (key == 'length')) | (value > limit)
    if not exact or wrong.any():
      place = int(np.argmax(wrong))
      raise SourceError(
        f'{folder}: {key} is {value[place]} of episode {place}.'
      )
  return found


def _instructions(root):
  """Texts of tasks, [] where they are missing or no texts."""
  path = root / lerobot.TASKS
  if not path.is_file():
    return []
  names = tables.column_names(path)
  # LeRobot's own files have one of these names.
  column = next((x for x in ('task', '__index_level_0__') if x in names), '')
  if not column:
    return []
  found = tables.Rows().read(path, [column]).column(column).to_pylist()
  return [rules.cut(str(x)) for x in found[:INSTRUCTIONS]]
