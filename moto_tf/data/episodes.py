"""Episodes on disk, one compressed npz file per episode.

An episode is a dict of arrays with the same leading length, the number of
records: one for the reset and one per transition. Record i holds the
observation, the action that led into it (zeros at the reset), the reward
received with it, and the flags is_first, is_last, is_terminal (a true end, not
a time limit) and success (the task was achieved so far in this episode).
Images are uint8, flags bool, everything else float32.
"""

import contextlib
import functools
import io
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from moto_tf import files
from moto_tf.bounded import Npz, open_npz
from moto_tf.errors import MotoError
from moto_tf.rules import cut

FLAGS = ('is_first', 'is_last', 'is_terminal', 'success')
RESERVED = ('action', 'reward', 'discount', *FLAGS)
TRIES = 5

_READ_ERRORS = (
  OSError,
  ValueError,
  EOFError,
  KeyError,
  RuntimeError,
  # Of other things that zipfile and NumPy meet in damaged files.
  AttributeError,
  IndexError,
  OverflowError,
  TypeError,
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
)


class EpisodeError(MotoError, ValueError):
  """An episode or its file is unusable; the message names both."""


def save_episode(
  directory: pathlib.Path, name: str, episode: dict
) -> pathlib.Path:
  """Write an episode to '<directory>/<name>-<transitions>.npz', atomically.

  The file appears whole or not at all. Returns its path. Raises EpisodeError
  for an invalid episode, FileError when the file cannot be written.
  """
  directory = pathlib.Path(directory)
  if not name or name.startswith('.') or pathlib.Path(name).name != name:
    raise EpisodeError(f'{name!r} cannot be the name of an episode file.')
  arrays = check_episode(episode, f'episode {name!r}')
  path = directory / f'{name}-{len(arrays["reward"]) - 1}.npz'
  stream = io.BytesIO()
  np.savez_compressed(stream, **arrays)
  return files.write_atomic(path, stream.getvalue())


def check_episode(episode: dict, source: str) -> dict:
  """The arrays of an episode in the dtypes of its file.

  Args:
    episode: arrays [records, ...] by key.
    source: what it is, for messages.

  Raises:
    EpisodeError: it is none.
  """
  arrays = {key: np.asarray(value) for key, value in episode.items()}
  _require(arrays, ('action', 'reward', *FLAGS), source)
  arrays = _standardise(arrays, source)
  _check_lengths(arrays, source)
  _check_flags(arrays, source)
  return arrays


def load_episode(
  path: pathlib.Path,
  spaces: dict | None = None,
  act_space=None,
  logs: Sequence[str] = (),
) -> dict:
  """Read and check one episode file.

  With spaces (name to Box) the observations must be present with these shapes
  and dtypes, and all other observations are left out; without, all are kept.
  With act_space the actions must fit into it. Of the log_ observations those in
  `logs` are kept, which must be there, one number per record. Missing flags are
  derived: is_terminal from discount == 0, success as never. Raises EpisodeError
  naming the file and the problem.
  """
  path = pathlib.Path(path)
  episode = _standardise(_read_arrays(path, spaces, logs), path)
  records = _check_lengths(episode, path)
  discount = episode.pop('discount', None)
  for key in FLAGS:
    if key not in episode:
      episode[key] = np.zeros(records, bool)
      if key == 'is_terminal' and discount is not None:
        episode[key] = discount == 0
  episode['is_first'][0] = True
  episode['is_last'][-1] = True
  episode['success'] = np.maximum.accumulate(episode['success'])
  _check_flags(episode, path)
  if act_space is not None:
    _check_actions(episode, act_space, path)
  for key in logs:
    if episode[key].ndim != 1:
      raise EpisodeError(
        f'{path}: key {key!r} has shape {episode[key].shape}, expected '
        f'({records},).'
      )
  return episode


def find_episodes(directory: pathlib.Path) -> list[pathlib.Path]:
  """Paths of the episode files directly in a directory, sorted by name.

  Raises EpisodeError when there is no such directory.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise EpisodeError(f'{directory}: there is no such directory.')
  paths = directory.glob('*.npz')
  return sorted(path for path in paths if not path.name.startswith('.'))


def folders_with_episodes(directory: pathlib.Path) -> str:
  """The end of a sentence on a directory without episodes: where some are.

  Looks into its folders and theirs; '' if there are none.
  """
  found = [
    str(folder.relative_to(directory))
    for pattern in ('*', '*/*')
    for folder in sorted(pathlib.Path(directory).glob(pattern))
    if folder.is_dir() and find_episodes(folder)
  ]
  rest = f' and {len(found) - 5} more' if len(found) > 5 else ''
  names = ', '.join(found[:5]) + rest
  return f'; its folders with episodes are {names}, give one' if found else ''


def _again(read):
  """Tries again when the parser of array headers has met another thread.

  In CPython 3.11 threads share its count of recursions, and now and then a
  header ends in a SystemError (gh-106905).
  """

  @functools.wraps(read)
  def attempt(*args):
    for _ in range(TRIES - 1):
      with contextlib.suppress(SystemError):
        return read(*args)
    return read(*args)

  return attempt


@_again
def episode_length(path: pathlib.Path) -> int:
  """Transitions in an episode file, from the header of its rewards.

  Only the header is read; names of other people's files may end in any number.
  Raises EpisodeError when the file is unreadable.
  """
  with opened(path) as file:
    _require(file.names, ('reward',), path)
    (shape, _) = file.header('reward')
    if len(shape) != 1:
      raise EpisodeError(
        f'{path}: reward has shape {shape}, expected one axis.'
      )
    return shape[0] - 1


def attempt(function: Callable) -> Callable:
  """A function of a path that returns an EpisodeError instead of raising it."""

  def call(path):
    try:
      return function(path)
    except EpisodeError as error:
      return error

  return call


def episode_return(episode: dict) -> float:
  """Sum of the rewards."""
  return float(np.sum(episode['reward'], dtype=np.float64))


@_again
def _read_arrays(path, spaces, logs):
  """Arrays of a file: those in use given the spaces, or all but log_*.

  What their headers say is checked before memory is taken for the content.
  """
  with opened(path) as file:
    if not {*FLAGS} <= {*file.names}:
      file.check_names()  # Before they are taken for missing.
    keys = [key for key in file.names if not key.startswith('log_')]
    if spaces is not None:
      keys = [key for key in keys if key in spaces or key in RESERVED]
      _require(file.names, spaces, path)
    _require(file.names, ('action', 'reward'), path)
    for key in logs:
      if key not in file.names:
        raise EpisodeError(
          f'{path}: key {key!r} is missing, which bc_targets asks for; record '
          'or import the episodes for this task, or set other bc_targets.'
        )
    keys += [key for key in file.names if key in logs]
    claims = {key: _claim(file, key, path) for key in dict.fromkeys(keys)}
    _check_lengths(claims, path)
    if spaces is not None:
      _check_observations(claims, spaces, path)
    return {key: file.read(key) for key in claims}


def _claim(file: Npz, key, source):
  """An array without memory of its own that has the shape and type of one."""
  shape, dtype = file.header(key)
  _check_numbers(key, dtype, source)
  kept = dtype == np.uint8 and key not in RESERVED
  return np.broadcast_to(np.zeros((), np.uint8 if kept else np.float32), shape)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Npz]:
  """The arrays of a file, for a `with` block.

  Whatever reading raises in the block becomes an EpisodeError that names the
  file.
  """
  try:
    with open_npz(path) as file:
      yield file
  except EpisodeError:
    raise
  except _READ_ERRORS as error:
    if isinstance(error, FileNotFoundError):
      raise EpisodeError(f'{path}: there is no such file.') from error
    raise EpisodeError(
      f'{path}: unreadable, damaged or cut short: {cut(str(error), 300)}.'
    ) from error


def _require(arrays, keys, source):
  for key in keys:
    if key not in arrays:
      names = ', '.join(sorted(set(arrays))) or 'nothing'
      raise EpisodeError(f'{source}: key {key!r} is missing, found {names}.')


def _standardise(arrays, source):
  """Arrays in the dtypes of an episode, with finite values."""
  result = {}
  for key, value in arrays.items():
    _check_numbers(key, value.dtype, source)
    if value.dtype != np.uint8 or key in RESERVED:
      with np.errstate(over='ignore'):
        value = value.astype(np.float32)
      if not np.isfinite(value).all():
        index = int(np.argwhere(~np.isfinite(value))[0, 0])
        raise EpisodeError(
          f'{source}: key {key!r} is not finite at record {index}.'
        )
    result[key] = value.astype(bool) if key in FLAGS else value
  return result


def _check_numbers(key, dtype, source):
  if dtype.kind not in 'biuf':
    raise EpisodeError(
      f'{source}: key {key!r} has dtype {dtype}, expected numbers.'
    )


def _check_lengths(arrays, source):
  """Return the number of records, the same for all keys, at least two."""
  if arrays['reward'].ndim != 1 or arrays['action'].ndim != 2:
    raise EpisodeError(
      f'{source}: reward has shape {arrays["reward"].shape} and action '
      f'{arrays["action"].shape}, expected (records,) and (records, actions).'
    )
  records = len(arrays['reward'])
  if records < 2:
    raise EpisodeError(
      f'{source}: {records} record(s), expected at least 2: the reset and one '
      'transition.'
    )
  for key, value in arrays.items():
    if value.shape[:1] != (records,):
      raise EpisodeError(
        f'{source}: key {key!r} has shape {value.shape}, expected a leading '
        f'length of {records} as in reward.'
      )
    if key in (*FLAGS, 'discount') and value.ndim != 1:
      raise EpisodeError(
        f'{source}: key {key!r} has shape {value.shape}, expected ({records},).'
      )
  return records


def _check_flags(episode, source):
  """Check that this is one episode whose actions lead into its records."""
  records = len(episode['reward'])
  for key, allowed in (('is_first', 0), ('is_last', -1), ('is_terminal', -1)):
    marked = np.flatnonzero(episode.get(key, ()))
    wrong = [int(i) for i in marked if i != allowed % records]
    if wrong:
      raise EpisodeError(
        f'{source}: {key} is set at record {wrong[0]} of {records}, expected '
        f'only at record {allowed % records}; store one episode per file.'
      )
  if episode['action'][0].any():
    raise EpisodeError(
      f'{source}: action[0] is not zero. action[i] must be the action that led '
      'into record i, zeros at the reset; shift the actions by one record.'
    )


def _check_actions(episode, act_space, source):
  action = episode['action']
  if action.shape[1:] != act_space.shape:
    raise EpisodeError(
      f'{source}: action has shape {action.shape[1:]} per record, expected '
      f'{act_space.shape} of the environment.'
    )
  clipped = np.clip(action, act_space.low, act_space.high)
  if np.abs(clipped - action).max() > 1e-3:
    raise EpisodeError(
      f'{source}: actions span {action.min():.3g} to {action.max():.3g}, '
      f'expected {act_space.low.min():.3g} to {act_space.high.max():.3g}; '
      'rescale them.'
    )
  episode['action'] = clipped.astype(np.float32)


def _check_observations(episode, spaces, source):
  _require(episode, spaces, source)
  for key, space in spaces.items():
    value = episode[key]
    expected = np.dtype(np.uint8 if space.dtype == np.uint8 else np.float32)
    if value.shape[1:] != space.shape or value.dtype != expected:
      raise EpisodeError(
        f'{source}: observation {key!r} has shape {value.shape[1:]} and dtype '
        f'{value.dtype} per record, expected {space.shape} and {expected} of '
        'the environment.'
      )
