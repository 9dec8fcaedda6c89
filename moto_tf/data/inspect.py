"""What a directory of episodes holds: numbers, damage and pictures."""

import collections
import dataclasses
import json
import pathlib

import numpy as np

from moto_tf import images
from moto_tf.data import episodes
from moto_tf.envs.kitchen import env as kitchen

# Average return and success rate of the paper's demonstrations, its Table 1.
PAPER = {
  'assembly': (36.0, 1.0),
  'bin-picking': (20.9, 1.0),
  'box-close': (25.3, 1.0),
  'coffee-push': (36.2, 1.0),
  'disassemble': (31.556, 1.0),
  'door-open': (15.2, 1.0),
  'drawer-open': (48.0, 1.0),
  'hammer': (63.333, 1.0),
  'plate-slide': (71.1, 1.0),
  'window-open': (60.5, 1.0),
}

# Of the paper's kitchen data, C.2: episodes, transitions, mean return, objects
# per episode.
PAPER_KITCHEN = (563, 128_569, 261.12, 3.98)
OBJECTS = ('placed', 'object_steps')


@dataclasses.dataclass(frozen=True)
class Info:
  """Numbers of the intact episodes of a directory, and its damaged files.

  lengths, returns, successes and first (the record of the first success, nan
  without one) have one entry per episode; keys maps names to (shape per record,
  dtype); damage maps file names to what is wrong; record is the content of
  dataset.json, empty without one. In the kitchen, placed tells per episode
  which of all seven objects were ever in place, in the order of kitchen.GOALS,
  and object_steps sums over its steps how many were; both are empty elsewhere.
  """

  directory: pathlib.Path
  lengths: np.ndarray
  returns: np.ndarray
  successes: np.ndarray
  first: np.ndarray
  placed: np.ndarray
  object_steps: np.ndarray
  keys: dict
  damage: dict
  record: dict
  size: int

  @property
  def task(self) -> str:
    """Task by dataset.json without its suite, or ''."""
    return short_task(self.record.get('task', ''))

  @property
  def tries(self) -> int:
    """Attempts that the recording took, as far as dataset.json knows."""
    return len(self.lengths) + len(self.record.get('dropped', ()))


def short_task(task: str) -> str:
  """Name of a Meta-World task as in the paper: no suite and no version."""
  return task.removeprefix('metaworld_').removesuffix('-v3').removesuffix('-v2')


def read_record(directory: pathlib.Path) -> dict:
  """Content of dataset.json in a directory, {} if there is none."""
  path = pathlib.Path(directory) / 'dataset.json'
  if not path.exists():
    return {}
  try:
    record = json.loads(path.read_text())
  except ValueError as error:
    raise episodes.EpisodeError(
      f'{path}: no valid JSON ({error}); restore it or remove it.'
    ) from error
  if not isinstance(record, dict):
    raise episodes.EpisodeError(f'{path}: expected a JSON object.')
  return record


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
  rows, damage, size = {}, {}, 0
  for path in episodes.find_episodes(directory):
    size += path.stat().st_size
    try:
      episode = episodes.load_episode(path)
    except episodes.EpisodeError as error:
      damage[path.name] = str(error).removeprefix(f'{path}: ')
      continue
    rows[path.name] = _row(episode, record.get('task', ''))
  signatures = collections.Counter(row['keys'] for row in rows.values())
  common = signatures.most_common(1)[0][0] if signatures else ()
  for name in [name for name, row in rows.items() if row['keys'] != common]:
    damage[name] = _difference(rows.pop(name)['keys'], common)
  columns = {
    key: np.array([row[key] for row in rows.values()])
    for key in ('length', 'return', 'success', 'first', *OBJECTS)
    if all(key in row for row in rows.values())
  }
  return Info(
    directory=directory,
    lengths=columns['length'].astype(int),
    returns=columns['return'],
    successes=columns['success'].astype(bool),
    first=columns['first'],
    placed=columns.get('placed', np.zeros((0, len(kitchen.GOALS)), bool)),
    object_steps=columns.get('object_steps', np.zeros(0)),
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


def compare(infos: dict) -> str:
  """Table of datasets (task to Info) beside the paper's Table 1.

  First is the mean agent step of the first success. Attempts that were dropped
  are known from dataset.json only.
  """
  lines = [
    f'{"":<27}|{" ours ":-^36}|{" paper ":-^16}',
    f'{"task":<14} {"episodes":<12}|{"transitions":>12}{"return":>8}'
    f'{"success":>8}{"first":>8}|{"return":>8}{"success":>8}',
  ]
  for task, info in infos.items():
    paper = PAPER.get(short_task(task), ((), ()))
    kept = f'{len(info.lengths)} of {info.tries}'
    first = info.first[info.successes]
    lines.append(
      f'{task:<14} {kept:<12}|{info.lengths.sum():>12}{_cell(info.returns, 1)}'
      f'{_cell(info.successes, 2)}{_cell(first, 1)}|{_cell(paper[0], 1)}'
      f'{_cell(paper[1], 2)}'
    )
  return '\n'.join(lines)


def compare_kitchen(info: Info) -> str:
  """Table of kitchen data beside the paper's, which does not tell its task."""
  count, all_seven = len(info.lengths), info.object_steps
  rows = [
    ('episodes', count, 0, PAPER_KITCHEN[0]),
    ('transitions', info.lengths.sum(), 0, PAPER_KITCHEN[1]),
    # Of targets: 3.98 objects in 228 steps would bring far more for all.
    ('mean return, targets', np.mean(info.returns), 2, PAPER_KITCHEN[2]),
    ('mean return, all objects', _mean(all_seven), 2, ''),
    ('objects per episode', _mean(info.placed.sum(1)), 2, PAPER_KITCHEN[3]),
    ('share of full successes', np.mean(info.successes), 3, ''),
  ]
  if order := kitchen.parse_order(info.record.get('order', '')):
    index = [list(kitchen.GOALS).index(name) for name in order]
    rows.append(('all of --order', _mean(info.placed[:, index].all(1)), 3, ''))
  for name, column in zip(kitchen.GOALS, info.placed.T):
    rows.append((f'  {name}', _mean(column), 3, ''))
  lines = [f'{info.record.get("task", ""):<26}{"ours":>12}{"paper":>12}']
  for name, value, digits, paper in rows:
    value = '-' if np.isnan(value) else f'{value:.{digits}f}'
    lines.append(f'{name:<26}{value:>12}{paper:>12}')
  return '\n'.join(lines)


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
    raise episodes.EpisodeError(f'{directory}: there are no episodes here.')
  videos, marks = [], []
  for path in paths:
    episode = episodes.load_episode(path)
    found = [k for k, v in sorted(episode.items()) if v.ndim == 4]
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
):
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
  out.parent.mkdir(parents=True, exist_ok=True)
  episodes.write_atomic(out, data)


def _row(episode, task):
  success = episode['success']
  row = {
    'length': len(success) - 1,
    'return': episodes.episode_return(episode),
    'success': bool(success.any()),
    'first': int(success.argmax()) if success.any() else np.nan,
    'keys': tuple(
      (key, value.shape[1:], str(value.dtype))
      for key, value in sorted(episode.items())
    ),
  }
  if task.startswith('kitchen_') and 'qpos' in episode:
    placed = kitchen.in_place(episode['qpos'][1:], tuple(kitchen.GOALS))
    row['placed'] = placed.any(0)
    row['object_steps'] = int(placed.sum())
  return row


def _mean(values):
  return np.mean(values) if len(values) else np.nan


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


def _cell(values, digits):
  """Mean of values in eight columns, a dash without any."""
  return f'{np.mean(values):>8.{digits}f}' if np.size(values) else f'{"-":>8}'


def _spread(values, digits):
  return (
    f'mean {values.mean():.1f}, min {values.min():.{digits}f}, '
    f'max {values.max():.{digits}f}'
  )
