"""Writing files: whole or not at all, and with advice where it fails."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from moto_tf.errors import MotoError

# What hidden files of unfinished content begin with, and those of checkpoints.
PARTIAL = ('.', 'ckpt.npz.')
STALE = 3600.0  # Seconds after which nobody goes on with such a file.
PROBE = bytes(2**16)


class FileError(MotoError):
  """A file or directory cannot be written; the message names it and why."""


def write_atomic(path: Path | str, data: bytes) -> Path:
  """Writes a file that appears whole or not at all, even on a power failure.

  Missing directories are created.

  Raises:
    FileError: it cannot be written; a file that was there is unchanged.
  """
  with replacing(path) as stream:
    stream.write(data)
  return Path(path)


def write_json(path: Path | str, values: Any) -> Path:
  """Writes JSON like `write_atomic`, indented, without nan or infinity."""
  text = json.dumps(values, indent=2, allow_nan=False) + '\n'
  return write_atomic(path, text.encode())


@contextlib.contextmanager
def replacing(
  path: Path | str,
  partial: Path | None = None,
  before: Callable[[], None] | None = None,
) -> Iterator[BinaryIO]:
  """A stream whose content replaces a file at the end of the `with` block.

  Args:
    path: the file.
    partial: where the content lies until then, by default a hidden file of
      this process beside it.
    before: called when the content is safe on disk, and before it appears.

  Raises:
    FileError: it cannot be written; a file that was there is unchanged.
  """
  path = Path(path)
  partial = partial or path.with_name(f'.{path.name}-{os.getpid()}.tmp')
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with partial.open('wb') as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
      if before:
        before()
      os.replace(partial, path)
    finally:
      partial.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
  """An empty folder that becomes `path` at the end of the `with` block.

  It appears whole or not at all, and takes the place of an empty one. If the
  block moves it elsewhere, that is where it stays.

  Raises:
    FileError: it cannot be written.
  """
  partial = path.with_name(f'.{path.name}-{os.getpid()}.tmp')
  made = missing(path.parent)
  try:
    with writing(path):
      partial.mkdir(parents=True)
      yield partial
      for file in partial.rglob('*'):
        if file.is_file():
          with file.open('rb') as stream:
            os.fsync(stream.fileno())
      if partial.exists():
        os.replace(partial, path)
      sync(path.parent)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    remove_empty(made)
    raise


def sweep(directories: Iterable[Path], seconds: float = 0.0) -> None:
  """Removes what killed processes have left half written in directories.

  Args:
    directories: by their owner (see moto_tf/ownership.py), or with `seconds`.
    seconds: age of what is removed, so that it is not what another process is
      writing.
  """
  latest = time.time() - seconds
  for directory in directories:
    left = [p for p in directory.glob('*.tmp') if p.name.startswith(PARTIAL)]
    count = 0
    with writing(directory):
      for path in left:
        with contextlib.suppress(FileNotFoundError):  # It was finished.
          if not seconds or _newest(path) < latest:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            count += 1
    if count:
      print(f'{directory}: removed {count} half-written files.')


def _newest(path):
  """When a file, or anything in a folder, was last written."""
  return max(x.stat().st_mtime for x in (path, *path.rglob('*')))


def reserve(path: Path, replace: bool = False) -> None:
  """Checks that a file can be written, before its content takes minutes.

  Args:
    path: of the file; its directory is swept if it is there.
    replace: whether one that is there may be replaced.

  Raises:
    FileError: it may not, or it cannot be written.
  """
  path = path.absolute()  # '.' has no name of its own.
  if path.is_dir():
    raise FileError(f'{path} is a directory; give the name of a file.')
  if path.exists() and not replace:
    raise FileError(
      f'{path} is there already. --force replaces it, and another --outdir '
      'keeps both.'
    )
  made = missing(path.parent)
  sweep([path.parent], STALE)
  probe = path.with_name(f'.{path.name}-{os.getpid()}.tmp')
  write_atomic(probe, PROBE).unlink()
  remove_empty(made)


def missing(directory: Path) -> list[Path]:
  """A directory and its parents, as far as they are not there."""
  return [x for x in (directory, *directory.parents) if not x.exists()]


def remove_empty(directories: Iterable[Path]) -> None:
  """Removes directories in their order, as far as nothing is inside."""
  with contextlib.suppress(OSError):
    for directory in directories:
      directory.rmdir()


def sync(directory: Path) -> None:
  """Makes renames in a directory durable."""
  handle = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def move_into(paths: Iterable[Path], directory: Path) -> None:
  """Moves files without replacing any that are there."""
  directory.mkdir(exist_ok=True)
  for path in paths:
    target, count = directory / path.name, 1
    while target.exists():
      count += 1
      target = directory / f'{path.stem}.{count}{path.suffix}'
    os.replace(path, target)


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
  """Context that turns an OSError into a FileError with advice."""
  try:
    yield
  except OSError as error:
    raise FileError(_advice(Path(path), error)) from error


def _advice(path, error):
  reason = error.strerror or error
  places = (path, *path.absolute().parents)
  free = shutil.disk_usage(next(p for p in places if p.is_dir())).free / 2**30
  return (
    f'Cannot write {path}: {reason} ({free:.1f} GiB free). Make room or make '
    'the directory writable, then start the same command again; nothing that '
    'was there is lost.'
  )
