"""Parquet files of others, read after a look at what they claim to hold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
from pyarrow import parquet

from moto_tf.bounded import check_growth
from moto_tf.data.formats import SourceError, check_array, reading

# How files are opened: with limits on texts in bytes and on lists in items of
# their heads; sums are compared where a file has them.
OPENING = {
  'thrift_string_size_limit': 2**25,
  'thrift_container_size_limit': 2**20,
  'page_checksum_verification': True,
}
NUMBER = 8  # Bytes of one, at most.


class Rows:
  """Rows of parquet files; the ones read last are kept.

  A file holds many episodes, in parts as large as its author liked. So the next
  episode is often in the part that was read for the one before.
  """

  def __init__(self):
    self._part, self._table = None, None

  def read(
    self,
    path: Path,
    columns: Sequence[str],
    start: int = 0,
    count: int | None = None,
  ) -> pyarrow.Table:
    """Some rows of a file, or all from `start` on.

    Raises:
      SourceError: the file is missing, damaged, lacks a column or a row, or
        claims more than its bytes can hold.
    """
    if not path.is_file():
      raise SourceError(f'{path}: there is no such file.')
    with reading(path), parquet.ParquetFile(path, **OPENING) as file:
      total = file.metadata.num_rows
      stop = total if count is None else start + count
      if not 0 <= start <= stop <= total:
        raise SourceError(
          f'{path}: has {total} rows, expected rows {start} to {stop - 1}, '
          'which meta/episodes says are here.'
        )
      missing = [x for x in columns if x not in file.schema_arrow.names]
      if missing:
        found = ', '.join(file.schema_arrow.names[:20]) or 'nothing'
        raise SourceError(
          f'{path}: has no column {missing[0]!r}, found {found}.'
        )
      groups, before = _groups(file.metadata, start, stop)
      part = path, tuple(columns), tuple(groups)
      if part != self._part:
        self._part = self._table = None  # Memory for one part is enough.
        _check_size(file.metadata, groups, columns, path.stat().st_size)
        self._table = file.read_row_groups(groups, columns=[*columns])
        self._part = part
      table = self._table.slice(start - before, stop - start)
      if len(table) != stop - start:
        raise SourceError(f'{path}: has fewer rows than its head says.')
      return table


def column_names(path: Path) -> list[str]:
  """Names of the columns of a file.

  Raises:
    SourceError: it is damaged.
  """
  with reading(path), parquet.ParquetFile(path, **OPENING) as file:
    return file.schema_arrow.names


def numbers(
  table: pyarrow.Table, name: str, size: int | None, source: str
) -> np.ndarray:
  """A column as an array [rows] of int64, bool or float, or [rows, size].

  Args:
    table: rows.
    name: of the column.
    size: numbers in each row; None: one, without an axis of its own.
    source: file, for messages.

  Raises:
    SourceError: it is none, has gaps, or is not finite.
  """
  column = table.column(name).combine_chunks()
  wanted = f'{size} numbers' if size else 'a number'
  kind, label = column.type, f'{source}: {name}'
  if column.null_count:
    raise SourceError(f'{label} is empty in a row, expected {wanted}.')
  if pyarrow.types.is_list(kind) or pyarrow.types.is_fixed_size_list(kind):
    lengths = pyarrow.compute.list_value_length(column).to_numpy(False)
    if (lengths != (size or 1)).any():
      raise SourceError(
        f'{label} has {sorted({*lengths.tolist()})[:5]} numbers in its rows, '
        f'expected {size or 1}, as features in meta/info.json says.'
      )
    column = column.flatten()
  elif size not in (None, 1):
    raise SourceError(f'{label} has type {kind}, expected {wanted} in a row.')
  if column.null_count or not (
    pyarrow.types.is_integer(column.type)
    or pyarrow.types.is_floating(column.type)
    or pyarrow.types.is_boolean(column.type)
  ):
    raise SourceError(f'{label} has type {kind}, expected {wanted} in a row.')
  array = column.to_numpy(zero_copy_only=False)
  array = array.reshape(len(table), *([size] if size else []))
  if array.dtype.kind == 'f':
    check_array(label, array, array.shape)
  return array


def files(table: pyarrow.Table, name: str, source: str) -> list[bytes]:
  """A column of encoded images, one in each row.

  Raises:
    SourceError: it holds something else.
  """
  column = table.column(name).combine_chunks()
  kind = column.type
  names = [x.name for x in kind] if pyarrow.types.is_struct(kind) else []
  if 'bytes' not in names:
    raise SourceError(
      f'{source}: {name} has type {kind}, expected images with bytes and path.'
    )
  found = column.field('bytes').to_pylist()
  if not all(isinstance(x, bytes) for x in found):
    raise SourceError(
      f'{source}: {name} holds no image in a row; images that lie in files of '
      'their own are not read.'
    )
  return found


def _groups(metadata, start, stop):
  """Parts of a file that rows lie in, and the number of rows before them."""
  groups, before, end = [], 0, 0
  for index in range(metadata.num_row_groups):
    begin, end = end, end + metadata.row_group(index).num_rows
    if begin < stop and end > start:
      before = before if groups else begin
      groups.append(index)
  return groups, before


def _check_size(metadata, groups, columns, present):
  """Refuses parts that would need much more memory than the file has bytes."""
  claimed = 0
  for group in groups:
    row_group = metadata.row_group(group)
    for index in range(row_group.num_columns):
      chunk = row_group.column(index)
      # Equal values are stored once, so a few bytes may stand for any number.
      size = max(chunk.total_uncompressed_size, NUMBER * chunk.num_values)
      if any(f'{chunk.path_in_schema}.'.startswith(f'{x}.') for x in columns):
        claimed += size
  check_growth(claimed, present)
