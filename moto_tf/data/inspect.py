"""What a directory of episodes holds: numbers, damage and pictures."""

import collections
import dataclasses
import pathlib

import numpy as np

from moto_tf import envs, files, images, rules
from moto_tf.bounded import read_json
from moto_tf.data import episodes, tables
from moto_tf.registry import resolve

_is_number = lambda x: isinstance(x, int | float)
_list = (
  lambda x: isinstance(x, list) and all(map(_is_number, x)),
  'a list of numbers',
)
_text = (lambda x: isinstance(x, str), 'a text')
# What dataset.json holds, as far as anything here asks for it.
RECORD = {
  **dict.fromkeys(('task', 'order', 'policy', 'format', 'source'), _text),
  'env': (lambda x: isinstance(x, dict), 'a map'),
  'fps': (_is_number, 'a number'),
  'instructions': (
    lambda x: isinstance(x, list) and all(isinstance(i, str) for i in x),
    'a list of texts',
  ),
  **dict.fromkeys(('action_low', 'action_high'), _list),
  'dropped': (
    lambda x: isinstance(x, list) and all(type(i) is int for i in x),
    'a list of numbers',
  ),
  'equal_rewards': (
    lambda x: isinstance(x, dict) and all(map(_is_number, x.values())),
    'numbers by name',
  ),
}


@dataclasses.dataclass(frozen=True)
class Info:
  """Numbers of the intact episodes of a directory, and its damaged files.

  lengths, returns, successes and first (the record of the first success, nan
  without one) have one entry per episode, and so have measures, more numbers
  and arrays by name that the suite defines; keys maps names to (shape per
  record, dtype); damage maps file names to what is wrong; record is the content
  of dataset.json, empty without one.
  """

  directory: pathlib.Path
  lengths: np.ndarray
  returns: np.ndarray
  successes: np.ndarray
  first: np.ndarray
  measures: dict
  keys: dict
  damage: dict
  record: dict
  size: int

  @property
  def task(self) -> str:
    """Task by dataset.json, or ''."""
    return self.record.get('task', '')

  @property
  def tries(self) -> int:
    """Attempts that the recording took, as far as dataset.json knows."""
    return len(self.lengths) + len(self.record.get('dropped', ()))


def read_record(directory: pathlib.Path) -> dict:
  """Content of dataset.json in a directory, {} if there is none."""
  path = pathlib.Path(directory) / 'dataset.json'
  if not path.exists():
    return {}
  try:
    record = read_json(path)
  except OSError as error:
    raise episodes.EpisodeError(f'Cannot read {path}: {error}.') from error
  except ValueError as error:
    raise episodes.EpisodeError(
      f'{path}: no valid JSON ({rules.cut(str(error))}); restore it or remove '
      'it.'
    ) from error
  if not isinstance(record, dict):
    raise episodes.EpisodeError(f'{path}: expected a JSON object.')
  for key, (fits, wanted) in RECORD.items():
    if key in record and not fits(record[key]):
      raise episodes.EpisodeError(
        f'{path}: {key} is {rules.brief(record[key])}, expected {wanted}; '
        'restore the file or remove it.'
      )
  return record


def action_range(
  directory: pathlib.Path | None, size: int = 0
) -> dict[str, list[float]]:
  """What -1 and 1 of actions are in units of the robot: low and high.

  Empty where they are as they were recorded, or there is no directory.

  Args:
    size: of an action, if it is to be checked.

  Raises:
    EpisodeError: dataset.json says something else.
  """
  ends = range_of(read_record(directory)) if directory else {}
  for name, numbers in ends.items():
    if size and len(numbers) != size:
      raise episodes.EpisodeError(
        f'{directory / "dataset.json"}: action_{name} has {len(numbers)} '
        f'numbers, and an action {size}; restore the file or import again.'
      )
  return ends


def range_of(record: dict) -> dict[str, list[float]]:
  """The same, of what dataset.json holds."""
  ends = {x: record.get(f'action_{x}') for x in ('low', 'high')}
  return ends if all(ends.values()) else {}


def to_units(action: np.ndarray, ends: dict[str, list[float]]) -> np.ndarray:
  """Actions [..., A] within -1 and 1 in units of the robot; float32.

  Args:
    ends: of `action_range`.
  """
  if not ends:
    return action
  low, high = (np.array(ends[name], np.float32) for name in ('low', 'high'))
  scaled = low + (action + 1) / 2 * (high - low)
  # Numbers that were left as they were are left again, to the last digit.
  same = (low == -1) & (high == 1)
  return np.where(same, action, scaled).astype(np.float32)


def differences(old: dict, new: dict, prefix: str = '') -> list[str]:
  """Which settings of a recording differ from new ones, by dotted name."""
  result = []
  for key, value in new.items():
    name = prefix + key
    # What is off by default may have been unknown then.
    before = old.get(key, value if old and value in (0, '') else None)
    if isinstance(value, dict) and isinstance(before, dict):
      result += differences(before, value, f'{name}.')
    elif before != value:
      result.append(f'{name} {before!r} there, {value!r} now')
  return result


def inspect(directory: pathlib.Path) -> Info:
  """Read every episode of a directory; damaged files are reported, not raised.

  A file whose keys, shapes or dtypes differ from most others is damaged too.
  """
  directory = pathlib.Path(directory)
  record = read_record(directory)
  suite = envs.suite_of(record.get('task', ''))
  measure = resolve(suite.measure) if suite and suite.measure else None
  rows, damage, size = {}, {}, 0
  for path in episodes.find_episodes(directory):
    size += path.stat().st_size
    try:
      episode = episodes.load_episode(path)
    except episodes.EpisodeError as error:
      damage[path.name] = str(error).removeprefix(f'{path}: ')
      continue
    rows[path.name] = _row(episode)
    if measure:
      rows[path.name]['measures'] = measure(episode)
  signatures = collections.Counter(row['keys'] for row in rows.values())
  common = signatures.most_common(1)[0][0] if signatures else ()
  for name in [name for name, row in rows.items() if row['keys'] != common]:
    damage[name] = _difference(rows.pop(name)['keys'], common)
  columns = {
    key: np.array([row[key] for row in rows.values()])
    for key in ('length', 'return', 'success', 'first')
  }
  measured = [row.get('measures', {}) for row in rows.values()]
  return Info(
    directory=directory,
    lengths=columns['length'].astype(int),
    returns=columns['return'],
    successes=columns['success'].astype(bool),
    first=columns['first'],
    measures={
      key: np.array([found[key] for found in measured])
      for key in (measured[0] if measured else ())
      if all(key in found for found in measured)
    },
    keys={key: (shape, dtype) for key, shape, dtype in common},
    damage=dict(sorted(damage.items())),
    record=record,
    size=size,
  )


def describe(info: Info) -> str:
  """Text for people: numbers, keys and damaged files."""
  count = len(info.lengths)
  lines = [
    str(info.directory),
    f'  episodes       {count} ({info.successes.sum()} successful)',
    f'  transitions    {info.lengths.sum()} ({info.lengths.sum() + count} '
    'records)',
    f'  size           {info.size / 1e6:.1f} MB',
  ]
  if not count and (where := episodes.folders_with_episodes(info.directory)):
    lines.append(f'  no episodes here{where}')
  if count:
    lines += [
      f'  length         {_spread(info.lengths, 0)}',
      f'  return         {_spread(info.returns, 1)}',
    ]
  if info.successes.any():
    lines.append(f'  first success  {_spread(info.first[info.successes], 0)}')
  if info.record:
    names = ('task', 'seed', 'noise', 'format', 'source')
    parts = [f'{k} {info.record[k]}' for k in names if k in info.record]
    lines.append(f'  made as        {", ".join(parts)}')
  for index, (key, (shape, dtype)) in enumerate(sorted(info.keys.items())):
    head = '' if index else 'keys'
    lines.append(f'  {head:<15}{key:<12} {shape!s:<14} {dtype}')
  lines.append(f'  damaged files  {len(info.damage) or "none"}')
  lines += [f'    {name}: {problem}' for name, problem in info.damage.items()]
  return '\n'.join(lines)


def compare(infos: dict[str, Info]) -> str:
  """Table of datasets of one suite (task to Info), as the suite shows it."""
  suite = envs.suite_of(next(iter(infos)))
  show = suite.compare if suite and suite.compare else tables.compare
  return resolve(show)(infos)


def load_videos(
  directory: pathlib.Path, count: int, key: str = ''
) -> tuple[list, list]:
  """Images [T, H, W, C] and success flags [T] of the first count episodes.

  The image key is the first uint8 observation by default. Raises EpisodeError
  when a directory holds no images.
  """
  if count < 1:
    raise episodes.EpisodeError(
      f'{count} episodes asked for, expected at least 1.'
    )
  paths = episodes.find_episodes(directory)[:count]
  if not paths:
    where = episodes.folders_with_episodes(directory)
    raise episodes.EpisodeError(
      f'{directory}: there are no episodes here{where}.'
    )
  videos, marks = [], []
  for path in paths:
    episode = episodes.load_episode(path)
    found = [
      k
      for k, v in sorted(episode.items())
      if v.ndim == 4 and v.dtype == np.uint8 and v.shape[-1] in (1, 3)
    ]
    name = key or (found[0] if found else 'image')
    if name not in found:
      raise episodes.EpisodeError(
        f'{path}: there are no images {name!r}; image keys here: '
        f'{", ".join(found) or "none"}.'
      )
    videos.append(episode[name])
    marks.append(episode['reward'] > 0)
  shapes = {video.shape[1:] for video in videos}
  if len(shapes) > 1:
    raise episodes.EpisodeError(
      f'{directory}: images differ in shape: {sorted(shapes)}.'
    )
  return videos, marks


def render(
  directory: pathlib.Path, out: pathlib.Path, count: int, key: str = ''
) -> None:
  """Write the first count episodes as a contact sheet (.png) or a GIF.

  Frames with a reward have a green edge on the contact sheet.
  """
  out = pathlib.Path(out)
  if out.suffix not in ('.png', '.gif'):
    raise episodes.EpisodeError(
      f'{out}: expected a name that ends in .png or .gif.'
    )
  videos, marks = load_videos(directory, count, key)
  factor = max(1, round(128 / videos[0].shape[1]))
  if out.suffix == '.png':
    data = images.encode_png(
      images.contact_sheet(videos, factor=factor, marks=marks)
    )
  else:
    data = images.encode_gif(images.side_by_side(videos, factor=factor))
  files.write_atomic(out, data)


def _row(episode):
  success = episode['success']
  return {
    'length': len(success) - 1,
    'return': episodes.episode_return(episode),
    'success': bool(success.any()),
    'first': int(success.argmax()) if success.any() else np.nan,
    'keys': tuple(
      (key, value.shape[1:], str(value.dtype))
      for key, value in sorted(episode.items())
    ),
  }


def _difference(keys, common):
  """Say how the keys of a file differ from those of the others."""
  ours = {key: rest for key, *rest in keys}
  others = {key: rest for key, *rest in common}
  parts = []
  for key in sorted({*ours, *others}):
    if ours.get(key) != others.get(key):
      here, there = (
        'absent' if pair is None else f'{pair[0]} {pair[1]}'
        for pair in (ours.get(key), others.get(key))
      )
      parts.append(f'{key} is {here}, in most files {there}')
  return '; '.join(parts)


def _spread(values, digits):
  return (
    f'mean {values.mean():.1f}, min {values.min():.{digits}f}, '
    f'max {values.max():.{digits}f}'
  )
