"""Files of others, read only after a look at what they claim to hold.

A header may claim any size, and a small file may unfold to a large one. So
sizes are compared with the bytes that are there before memory is taken for
them, and what is nested is followed to a depth. All functions raise ValueError
(or OSError) for what they refuse, and the caller names the file.
"""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moto_tf.rules import cut

# Bytes that may come of fewer, and beyond them how many of each one. Images
# shrink by 2 to 20, black ones by 1,000, but they are not this large.
LARGE, RATIO = 2**28, 200
# Of the text before an array, as in NumPy.
HEADER = 10_000
# Types of arrays that are no pickles.
KINDS = 'biufc'
CHUNK = 2**18
# Of the end of a zip file and the comment in it; what it says of too many
# entries for its two bytes.
END, COMMENT, ANY = 22, 2**16, 2**16 - 1
# Of JSON and YAML.
DEPTH, TEXT = 40, 2**26


def check_growth(claimed: int, present: int) -> None:
  """Refuses content that is too large for the bytes that hold it."""
  if claimed > LARGE and claimed > RATIO * present:
    raise ValueError(
      f'its {present:,} bytes would unfold to {claimed:,}, more than '
      f'{RATIO} times as many'
    )


class Npz:
  """The arrays of an npz file. Made by `open_npz`.

  Attributes:
    names: of the arrays, without .npy.
  """

  def __init__(self, archive: zipfile.ZipFile, size: int):
    self._archive, self._size = archive, size
    self._open = {}
    self.names = [x.removesuffix('.npy') for x in archive.namelist()]

  def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which fit the bytes that are there.

    Raises:
      KeyError: there is no such array.
      ValueError: they do not fit, or it is no array of numbers.
    """
    if name not in self._open:
      self._open[name] = self._start(name)
    _, shape, dtype, _ = self._open[name]
    return shape, dtype

  def check_names(self) -> None:
    """Refuses a directory of the archive that calls an array otherwise.

    An array that is not asked for could be missed without a word.
    """
    for info in self._archive.infolist():
      self._archive.open(info).close()

  def read(self, name: str) -> np.ndarray:
    """The array. Each can be read once."""
    self.header(name)
    stream, shape, dtype, fortran = self._open.pop(name)
    with stream:
      count = int(np.prod(shape, dtype=object))
      try:
        array = np.empty(count, dtype)
      except MemoryError:  # A file with a hole may claim anything.
        raise ValueError(
          f'{name!r} with {count:,} numbers does not fit into memory'
        ) from None
      target, position = memoryview(array.view(np.uint8)), 0
      while position < len(target):
        data = stream.read(min(CHUNK, len(target) - position))
        if not data:
          raise ValueError(f'{name!r} ends after {position} bytes')
        target[position : position + len(data)] = data
        position += len(data)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)

  def _start(self, name):
    """Stream behind the header of an array, and what the header says."""
    names = self._archive.NameToInfo
    info = names.get(f'{name}.npy') or names.get(name)
    if info is None:
      raise KeyError(f'there is no array {name!r}')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(f'{name!r} is compressed by an unknown method')
    if info.compress_size > self._size:
      raise ValueError(
        f'{name!r} claims {info.compress_size:,} bytes of {self._size:,}'
      )
    check_growth(info.file_size, info.compress_size)
    stream = self._archive.open(info)
    shape, fortran, dtype, start = _read_header(stream, name)
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != info.file_size - start:
      raise ValueError(
        f'{name!r} claims the shape {cut(str(shape))} of {dtype}, not the '
        f'{info.file_size - start:,} bytes behind its header'
      )
    return stream, shape, dtype, fortran


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
  """The arrays of an npz file; pickled ones are refused.

  Raises:
    OSError: the file cannot be read.
    ValueError, zipfile.BadZipFile and others of zipfile: it is damaged.
  """
  path = Path(path)
  if path.exists() and not path.is_file():
    raise ValueError('it is no file')  # To open a pipe would wait for ever.
  with zipfile.ZipFile(path) as archive:
    claimed, found = _count(path), len(archive.infolist())
    if claimed not in (found, ANY):
      raise ValueError(f'its directory has {found} of {claimed} entries')
    yield Npz(archive, path.stat().st_size)


def _count(path):
  """How many entries the end of a zip file says there are.

  The directory is read without it: an entry whose length is wrong hides those
  behind it.
  """
  with path.open('rb') as stream:
    stream.seek(max(0, path.stat().st_size - END - COMMENT))
    data = stream.read()
  start = data.rfind(b'PK\5\6') + 10
  return int.from_bytes(data[start : start + 2], 'little')


def _read_header(stream, name):
  """Shape, order, type and length of the header of an array."""
  version = np.lib.format.read_magic(stream)
  width = 2 if version == (1, 0) else 4
  size = stream.read(width)
  length = int.from_bytes(size, 'little')
  if length > HEADER:
    raise ValueError(f'{name!r} has a header of {length:,} bytes')
  first = version == (1, 0)
  parse = (
    np.lib.format.read_array_header_1_0
    if first
    else np.lib.format.read_array_header_2_0
  )
  try:
    found = parse(io.BytesIO(size + stream.read(length)))
  except SystemError:
    raise  # Another thread was in the parser; see moto_tf.data.episodes.
  except Exception as error:
    # Python's own parser reads it, and may fail in any way.
    raise ValueError(
      f'{name!r} has an unreadable header: {cut(str(error))}'
    ) from None
  if found[2].kind not in KINDS:
    raise ValueError(
      f'{name!r} has dtype {found[2]}, expected numbers; pickles are not loaded'
    )
  return *found, len(np.lib.format.magic(*version)) + width + length


def read_json(path: Path, constants: bool = False) -> Any:
  """Content of a JSON file that nobody may have made to do harm.

  Args:
    path: of the file.
    constants: see `parse_json`.
  """
  with Path(path).open('rb') as stream:
    data = stream.read(TEXT + 1)
  if len(data) > TEXT:
    raise ValueError(f'it has more than {TEXT:,} bytes')
  return parse_json(data.decode(), constants)


def parse_json(text: str, constants: bool = False) -> Any:
  """What a JSON text holds, unless it is nested too deeply.

  Args:
    constants: whether NaN and infinity, which JSON does not have, may be in it.
  """
  try:
    value = json.loads(text, parse_constant=None if constants else _no_number)
  except RecursionError:
    raise ValueError(f'it is nested deeper than {DEPTH} levels') from None
  if text.count('[') + text.count('{') > DEPTH:
    check_nesting(value)
  if '\\ud' in text.lower():
    # Half of a pair of surrogates cannot be printed.
    json.dumps(value, ensure_ascii=False).encode()
  return value


def _no_number(name):
  raise ValueError(f'{name} is no number')


def check_brackets(text: str) -> None:
  """Refuses a text with more open brackets at a time than make sense."""
  depth = 0
  for found in re.finditer(r'[\[{\]}]', text):
    depth = max(0, depth + (1 if found[0] in '[{' else -1))
    if depth > DEPTH:
      raise ValueError(f'it is nested deeper than {DEPTH} levels')


def check_nesting(value: Any, items: int | None = None) -> None:
  """Refuses lists and maps that are nested too deeply or hold themselves.

  Args:
    value: what a parser made.
    items: how many may be in it, where one that is referred to several times
      counts as often.
  """
  found, inside = {}, set()

  def measure(value, depth):
    """Values in a value, and levels of nesting."""
    if not isinstance(value, list | dict):
      return 1, 0
    if id(value) not in found:
      if depth > DEPTH or id(value) in inside:
        raise ValueError(f'it is nested deeper than {DEPTH} levels')
      inside.add(id(value))
      values = value.values() if isinstance(value, dict) else value
      parts = [measure(x, depth + 1) for x in values]
      inside.discard(id(value))
      counts, levels = zip(*parts) if parts else ((), (0,))
      found[id(value)] = 1 + sum(counts), 1 + max(levels)
    if depth + found[id(value)][1] > DEPTH + 1:
      raise ValueError(f'it is nested deeper than {DEPTH} levels')
    return found[id(value)]

  total, _ = measure(value, 0)
  if items is not None and total > items:
    raise ValueError(
      f'its aliases stand for {total:,} values, more than {items:,}'
    )
