"""Episodes of a dataset of LeRobot; see `moto_tf.data.lerobot`."""

from pathlib import Path

import numpy as np

from moto_tf.data import episodes, lerobot
from moto_tf.data.formats import Reader, SourceError, check_array
from moto_tf.data.lerobot import meta, pictures, tables

# Columns of what an action brought.
SIGNALS = ('next.reward', 'next.success', 'next.terminated', 'next.done')


class LeRobotReader(Reader):
  """The episodes of one dataset.

  Observations get the names behind `observation.`, with _ for points. Of the
  cameras, that of `env.camera` is `image`, by default the first; with
  `env.extra_size`, that of `env.extra_camera` is `image_extra`, by default the
  second, or the first where there is no other.
  """

  def __init__(self, path: Path, env):
    """Takes the folder of a dataset, and the `env` part of a Config."""
    self._meta = meta.read(path)
    self._cameras = _choose_cameras(self._meta, env)
    self._vectors = {}
    for name, size in self._meta.vectors().items():
      key = name.removeprefix(lerobot.OBSERVATION).replace('.', '_')
      # What begins with log_ is never learned from.
      taken = key in self._cameras or key in episodes.RESERVED
      if taken or key.startswith('log_'):
        key = f'observed_{key}'
      if key in self._vectors:
        raise SourceError(
          f'{self._meta.root / lerobot.INFO}: {self._vectors[key][0]} and '
          f'{name} would both be {key}; rename one of them.'
        )
      self._vectors[key] = name, size
    kind, shape = self._meta.feature('action')
    if len(shape) != 1:
      raise SourceError(
        f'{self._meta.root / lerobot.INFO}: action has shape {shape} and type '
        f'{kind}, expected a vector.'
      )
    self._size = shape[0]
    self._low, self._high = meta.read_range(self._meta, self._size)
    self._rows, self._last_rows = tables.Rows(), tables.Rows()
    self.names = [f'episode {i}' for i in range(self._count)]

  @property
  def _count(self):
    return len(self._meta.episodes['length'])

  def check(self) -> dict:
    """Facts for dataset.json: what became what."""
    entries = {**self._cameras, **self._vectors}
    sources = {key: name for key, (name, *_) in entries.items()}
    if not sources:
      raise SourceError(
        f'{self._meta.root / lerobot.INFO}: has no observation that could be '
        'read: images with three colours, or vectors.'
      )
    facts = {
      'features': sources,
      'fps': self._meta.fps,
      'instructions': self._meta.instructions,
      'rewards': 'next.reward' in self._meta.features,
      'successes': 'next.success' in self._meta.features,
      'last_observation': 'stored' if self._last_path.is_file() else 'repeated',
    }
    if self._beyond.any():
      facts['action_low'] = self._low.tolist()
      facts['action_high'] = self._high.tolist()
    return facts

  def read(self, index: int) -> dict[str, np.ndarray]:
    """Episode of N actions, arrays [N + 1, ...]; see `Reader.read`.

    Raises:
      SourceError: it cannot be used.
    """
    path, start, count = self._meta.data(index)
    signals = [x for x in SIGNALS if x in self._meta.features]
    vectors = [name for name, _ in self._vectors.values()]
    cameras = [name for name, *_ in self._cameras.values()]
    stored = [x for x in cameras if self._meta.feature(x)[0] == 'image']
    columns = ['episode_index', 'frame_index', 'action', *signals]
    # Each once, though a camera may be both images.
    columns = dict.fromkeys([*columns, *vectors, *stored])
    table = self._rows.read(path, [*columns], start, count)
    label = f'{path}: episode {index}'
    wanted = {'episode_index': np.full(count, index)}
    wanted['frame_index'] = np.arange(count)
    for name, values in wanted.items():
      if not np.array_equal(tables.numbers(table, name, None, label), values):
        raise SourceError(
          f'{label}: {name} is not that of rows {start} to '
          f'{start + count - 1}, where meta/episodes says that it is.'
        )
    last = self._last(index, [*dict.fromkeys([*vectors, *cameras])])
    result = {}
    for key, (name, shape, size) in self._cameras.items():
      frames = self._frames(table, index, name, shape, size, label)
      end = self._last_image(last, name, shape, size, frames)
      result[key] = np.concatenate([frames, end])
    for key, (name, size) in self._vectors.items():
      value = _vector(table, name, size, label)
      end = value[-1:]
      if last is not None:
        end = _vector(last, name, size, str(self._last_path))
      result[key] = np.concatenate([value, end])
    action = self._scale(_vector(table, 'action', self._size, label), label)
    first = np.zeros_like(action[:1])
    result['action'] = np.concatenate([first, action])
    return {**result, **_signals(table, signals, count, label)}

  @property
  def _beyond(self):
    """Which numbers of an action are scaled."""
    return (self._low != -1) | (self._high != 1)

  def _scale(self, action, label):
    """Actions [N, A] within [-1, 1]; those within are as they were."""
    beyond, low, high = self._beyond, self._low, self._high
    # Where all are equal there is nothing to choose: 0.
    width = np.where(high > low, high - low, 1)
    scaled = np.where(high > low, 2 * (action - low) / width - 1, action - low)
    action = np.where(beyond, scaled, action).astype(np.float32)
    if np.abs(action).max() > 1 + meta.TOLERANCE:
      row, place = np.argwhere(np.abs(action) > 1 + meta.TOLERANCE)[0]
      raise SourceError(
        f'{label}: action is beyond min and max of meta/stats.json in frame '
        f'{row}, number {place}.'
      )
    return np.clip(action, -1, 1)

  def _frames(self, table, index, name, shape, size, label):
    """Images uint8 [N, size, size, 3] of a camera."""
    if self._meta.feature(name)[0] == 'image':
      found = tables.files(table, name, label)
      source = f'{label}: {name}'
      return np.stack([pictures.decode(x, shape, size, source) for x in found])
    path, start = self._meta.video(name, index)
    count = len(table)
    return pictures.read_video(path, start, count, self._meta.fps, shape, size)

  def _last_image(self, last, name, shape, size, frames):
    """Image uint8 [1, size, size, 3] after the last action."""
    if last is None:
      return frames[-1:]
    (data,) = tables.files(last, name, str(self._last_path))
    source = f'{self._last_path}: {name}'
    return pictures.decode(data, shape, size, source)[None]

  @property
  def _last_path(self):
    return self._meta.root / lerobot.LAST

  def _last(self, index, observed):
    """Row of what was seen after the last action; None where it is unknown."""
    path = self._last_path
    if not path.is_file():
      return None
    names = ['episode_index', 'length', *observed]
    table = self._last_rows.read(path, names, index, 1)
    length = self._meta.episodes['length'][index]
    for name, value in (('episode_index', index), ('length', length)):
      if tables.numbers(table, name, None, str(path))[0] != value:
        raise SourceError(
          f'{path}: is of other episodes: {name} is not {value} in row '
          f'{index}. Remove the file to repeat last frames instead.'
        )
    return table


def _signals(table, names, count, label):
  """Reward and flags [N + 1] from the columns that there are."""
  found = {x: tables.numbers(table, x, None, label) for x in names}
  for name in ('next.terminated', 'next.done'):
    ends = np.flatnonzero(found.get(name, np.zeros(count))[:-1])
    if len(ends):
      raise SourceError(
        f'{label}: {name} is set in frame {ends[0]} of {count}, expected only '
        'in the last one.'
      )
  zeros = np.zeros(count)
  shifted = lambda name: np.concatenate([[0], found.get(name, zeros)])
  # `next.done` is also set by a time limit, so it ends nothing for good.
  return {
    'reward': shifted('next.reward').astype(np.float32),
    'is_terminal': shifted('next.terminated') > 0,
    'success': np.maximum.accumulate(shifted('next.success') > 0),
  }


def _vector(table, name, size, label):
  """Column as float32 [rows, size]."""
  value = tables.numbers(table, name, size, label)
  return check_array(f'{label}: {name}', value, (None, size))


def _choose_cameras(found, env):
  """Camera, its shape and our size of images, by our key."""
  cameras = found.cameras()
  if not env.image:
    return {}
  if not cameras:
    raise SourceError(
      f'{found.root / lerobot.INFO}: has no camera with three colours; without '
      'images it is imported by --env.image False.'
    )
  names = [*cameras]

  def choose(wanted, otherwise):
    if not wanted:
      return otherwise
    for name in (f'{lerobot.CAMERAS}{wanted}', lerobot.OBSERVATION + wanted):
      if name in cameras:
        return name
    short = ', '.join(x.removeprefix(lerobot.CAMERAS) for x in names)
    raise SourceError(
      f'{found.root / lerobot.INFO}: has no camera {wanted!r}, found {short}.'
    )

  camera = '' if env.camera == 'default' else env.camera
  main = choose(camera, names[0])
  result = {'image': (main, cameras[main], env.image_size)}
  if env.extra_size:
    other = next((x for x in names if x != main), main)
    extra = choose(env.extra_camera, other)
    result['image_extra'] = extra, cameras[extra], env.extra_size
  return result
