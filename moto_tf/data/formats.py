"""What a format of other people's data is, and how its files are read.

A format gives a Reader, which turns each of its trajectories into an episode in
our layout (see `moto_tf.data.episodes`). `moto_tf.data.importers` has the
registry of formats and does the rest.
"""

import collections
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from moto_tf.errors import MotoError
from moto_tf.rules import cut


class SourceError(MotoError, ValueError):
  """Files cannot be read; the message names them and what was expected."""


@dataclasses.dataclass(frozen=True)
class Format:
  """A format of files.

  Attributes:
    open: 'module:attribute' of, or itself, a function from (path, task, env,
      relabel) to a Reader: an existing path, the full name of the task, the
      `env` part of a Config, and whether stored rewards may be of another task.
      It runs in several processes and must not render.
    where: where a user gets such files, for messages.
    suite: the only suite that the data is of, whose tasks may then go without
      its name; '': any.
    relabels: whether stored rewards can be replaced by those of the task.
    report: from the data.inspect.Info of the imported episodes to a text for
      the user, such as what a comparison of rewards gave.
  """

  open: str | Callable
  where: str = ''
  suite: str = ''
  report: str | Callable | None = None
  relabels: bool = True


class Reader:
  """Trajectories in the files of others; formats derive from it.

  Attributes:
    names: of its trajectories. Trajectory i becomes episode i.
    files: the file of each trajectory, if each has its own. Identical copies
      are then left out.
  """

  names: Sequence[str] = ()
  files: Sequence[Path] = ()

  def check(self) -> dict:
    """Looks at all of it once, before an episode is written.

    Returns:
      Facts to record in dataset.json, plain values.

    Raises:
      MotoError: the data is not what was asked for. A trajectory that cannot
        be used is no reason, as long as there are others.
    """
    return {}

  def read(self, index: int) -> dict[str, np.ndarray]:
    """Episode of a trajectory, arrays [T + 1, ...].

    Raises:
      SourceError: it cannot be used; the import names it and goes on.


    It has the observations, action, reward and success. is_first and is_last
    may be left out, and so may is_terminal where no episode ends by its task.
    Called in worker processes, which may render.
    """
    raise NotImplementedError

  def close(self) -> None:
    """Frees what reading has opened."""


def find_files(path: Path, pattern: str, where: str = '') -> list[Path]:
  """A file, or all files of a folder whose names match, sorted.

  What a file manager leaves behind is no data: names that begin with a dot,
  and __MACOSX.

  Raises:
    SourceError: there are none.
  """
  if path.is_file():
    return [path]
  found = sorted(
    x
    for x in path.rglob(pattern)
    if x.is_file() and not any(map(_hidden, x.relative_to(path).parts))
  )
  if not found:
    raise SourceError(f'{path}: there is no file {pattern} here. {where}')
  return found


def find_file(path: Path, pattern: str, where: str = '') -> Path:
  """The only such file of a folder.

  Raises:
    SourceError: there is none, or there are several.
  """
  found = find_files(path, pattern, where)
  if len(found) > 1:
    names = ', '.join(short_names(path, found[:10]))
    raise SourceError(f'{path}: holds several files, give one of: {names}.')
  return found[0]


def short_names(path: Path, found: list[Path]) -> list[str]:
  """Names of files that were found at a path, as seen from there."""
  root = path if path.is_dir() else path.parent
  return [str(x.relative_to(root)) for x in found]


def _hidden(name):
  return name.startswith('.') or name == '__MACOSX'


def find_copies(paths: Sequence[Path]) -> dict[int, Path]:
  """Index of each file with the content of another one, which is its value.

  Of several, that with the shortest name counts as the first.
  """
  first, copies = {}, {}
  sizes = [x.stat().st_size for x in paths]
  shared = {k for k, v in collections.Counter(sizes).items() if v > 1}
  for i in sorted(range(len(paths)), key=lambda i: (len(paths[i].name), i)):
    if sizes[i] in shared:
      try:
        with paths[i].open('rb') as stream:
          content = hashlib.file_digest(stream, 'sha256').digest()
      except OSError:
        continue  # Reading it will say why.
      if content in first:
        copies[i] = first[content]
      first.setdefault(content, paths[i])
  return copies


@contextlib.contextmanager
def reading(path: Path, where: str = '') -> Iterator[None]:
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
      f'{path}: unreadable, damaged or cut short ({cut(str(error))}). {where}'
    ) from error


def check_array(
  name: str, array: np.ndarray, shape: tuple, finite: bool = True
) -> np.ndarray:
  """A stored array as float32, after a look at its shape and values.

  Args:
    name: file and key, for the message.
    array: numbers.
    shape: what it must be, None for any length.
    finite: whether all of them must be numbers.

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
  with np.errstate(over='ignore'):
    array = array.astype(np.float32)
  if finite and not np.isfinite(array).all():
    index = int(np.argwhere(~np.isfinite(array))[0, 0])
    raise SourceError(f'{name} is not finite at {index}.')
  return array
