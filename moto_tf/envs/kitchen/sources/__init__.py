"""Public data of the kitchen: how the files of others are read.

A format is one module with

  WHERE          where a user gets the files
  Source(path)   opens a file or folder; has `names` of its trajectories, and
                 `read(index)` returns a Trajectory

and one line in FORMATS. Reading needs h5py and numpy only, and no pickle.
"""

import contextlib
import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from moto_tf.errors import MotoError

FORMATS = {
  'minari': 'moto_tf.envs.kitchen.sources.minari',
  'd4rl': 'moto_tf.envs.kitchen.sources.d4rl',
  'rpl': 'moto_tf.envs.kitchen.sources.rpl',
  'd5rl': 'moto_tf.envs.kitchen.sources.d5rl',
}
ACTIONS, QPOS, QVEL = 9, 30, 29


class SourceError(MotoError, ValueError):
  """Files cannot be read; the message names them and what was expected."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """T transitions, as stored. What a format does not hold is None.

  Attributes:
    action: float32 [T, 9], between the records.
    qpos: positions of robot and objects, float32 [T + 1, 30].
    state: float32 [T + 1, 59], see moto_tf.envs.kitchen.Kitchen.
    image: from a size to the stored images uint8 [T + 1, size, size, 3];
      raises SourceError where there are none of this size.
    reward: float32 [T + 1], received with each record; nan where unknown.
    rewards: float32 [T + 1] by object, whether it is in place.
  """

  action: np.ndarray
  qpos: np.ndarray | None = None
  state: np.ndarray | None = None
  image: Callable[[int], np.ndarray] | None = None
  reward: np.ndarray | None = None
  rewards: dict | None = None


def open_source(kind: str, path: pathlib.Path):
  """Source of a format.

  Raises:
    SourceError: there is nothing at the path, or not of this format.
  """
  module = importlib.import_module(FORMATS[kind])
  path = pathlib.Path(path).expanduser()
  if not path.exists():
    raise SourceError(f'{path}: there is no such file. {module.WHERE}')
  return module.Source(path)


def find_files(path: pathlib.Path, pattern: str, where: str) -> list:
  """A file, or all files of a folder whose names match, sorted.

  Raises:
    SourceError: there are none.
  """
  if path.is_file():
    return [path]
  found = sorted(x for x in path.rglob(pattern) if x.is_file())
  if not found:
    raise SourceError(f'{path}: there is no file {pattern} here. {where}')
  return found


def short_names(path: pathlib.Path, found: list) -> list[str]:
  """Names of files that were found at a path, as seen from there."""
  root = path if path.is_dir() else path.parent
  return [str(x.relative_to(root)) for x in found]


def find_file(path: pathlib.Path, pattern: str, where: str) -> pathlib.Path:
  """The only such file of a folder.

  Raises:
    SourceError: there is none, or there are several.
  """
  found = find_files(path, pattern, where)
  if len(found) > 1:
    names = ', '.join(short_names(path, found[:10]))
    raise SourceError(f'{path}: holds several files, give one of: {names}.')
  return found[0]


@contextlib.contextmanager
def reading(path: pathlib.Path, where: str) -> Iterator[None]:
  """Explains what reading raises as a SourceError that names the file."""
  try:
    yield
  except SourceError:
    raise
  except KeyError as error:
    raise SourceError(
      f'{path}: {error.args[0] if error.args else error}. It is not of this '
      f'format. {where}'
    ) from error
  except Exception as error:
    # h5py and zipfile raise half a dozen types for damaged files.
    raise SourceError(
      f'{path}: unreadable, damaged or cut short ({error}). {where}'
    ) from error


def check(name: str, array: np.ndarray, shape: tuple) -> np.ndarray:
  """A stored array as float32, after a look at its shape and values.

  Args:
    name: file and key, for the message.
    array: numbers.
    shape: what it must be, None for any length.

  Raises:
    SourceError: it is something else, or not finite.
  """
  array = np.asarray(array)
  fits = len(array.shape) == len(shape) and all(
    b is None or a == b for a, b in zip(array.shape, shape)
  )
  if not fits or array.dtype.kind not in 'biuf':
    wanted = ', '.join('any' if x is None else str(x) for x in shape)
    raise SourceError(
      f'{name} has shape {array.shape} and type {array.dtype}, expected '
      f'numbers of shape ({wanted}{"," * (len(shape) == 1)}).'
    )
  array = array.astype(np.float32)
  if not np.isfinite(array).all():
    index = int(np.argwhere(~np.isfinite(array))[0, 0])
    raise SourceError(f'{name} is not finite at {index}.')
  return array


def check_actions(name: str, action: np.ndarray) -> np.ndarray:
  """Actions within [-1, 1], after a look whether they were scaled so.

  Raises:
    SourceError: they were not.
  """
  largest = np.abs(action).max(initial=0)
  if largest > 1 + 1e-3:
    raise SourceError(
      f'{name} reaches {largest:.3g}, expected joint velocities within -1 to 1.'
    )
  return np.clip(action, -1, 1)
