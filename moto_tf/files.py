"""Writing files: whole or not at all, and with advice where it fails."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from moto_tf.errors import MotoError


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
