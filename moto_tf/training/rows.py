"""Files of rows: one JSON object per line, each with a gradient_step."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moto_tf.bounded import parse_json
from moto_tf.errors import warn
from moto_tf.files import replacing, writing


def rewind(
  path: Path, resume_step: int | None, count: int | None = None
) -> list[dict]:
  """Makes a file of rows ready to be appended to; the rows that it holds.

  Args:
    path: the file, created if missing.
    resume_step: gradient step of the checkpoint a run continues from; rows
      beyond it are dropped. None is a new run: an older file is moved aside.
    count: rows when that checkpoint was written, which says what is missing;
      None where it is not known.

  Raises:
    FileError: the file cannot be written.
  """
  with writing(path):
    if resume_step is None and path.exists() and path.stat().st_size:
      other = set_aside(path)
      print(
        f'{path} is of an earlier run without checkpoint: now {other.name}.'
      )
    there = path.exists()
    if not there:
      path.touch()
    rows, remarks = read(path)
  if resume_step is None:
    return []
  for remark in remarks:
    warn(f'{remark}; dropped.')
  kept = [row for row in rows if row['gradient_step'] <= resume_step][:count]
  if len(kept) < len(rows):
    dropped = len(rows) - len(kept)
    print(f'{path}: {dropped} rows beyond step {resume_step} dropped.')
  if len(kept) < (count or 0):
    lost = f'{count - len(kept)} of {count} rows up to step {resume_step}'
    warn(f'{path}{"" if there else " is missing"}: {lost} are lost.')
  elif count is None and resume_step and not there:
    warn(f'{path} is missing: its rows up to step {resume_step} are lost.')
  if there:
    with replacing(path) as stream:
      stream.writelines(_line(row) for row in kept)
  return kept


def append(path: Path, row: Mapping) -> None:
  """Appends a row.

  Raises:
    FileError: the file cannot be written.
  """
  with writing(path), path.open('ab') as stream:
    stream.write(_line(row))


def read(path: Path) -> tuple[list[dict], list[str]]:
  """Rows of a file, and a remark on each line that is not a row.

  A row has a gradient_step, a phase that is a text, and for the rest finite
  numbers, None, and lists of these.

  Raises:
    OSError: the file cannot be read.
  """
  rows, remarks = [], []
  lines = path.read_text(errors='replace').splitlines()
  for number, line in enumerate(lines, 1):
    try:
      row = parse_json(line)
    except ValueError:
      half = number == len(lines)
      what = 'the last line is half written' if half else f'line {number}'
      remarks.append(f'{path}: {what}' + ' is not a row' * (not half))
      continue
    if problem := _problem(row):
      remarks.append(f'{path}: line {number} is not a row, {problem}')
    else:
      rows.append(row)
  return rows, remarks


def is_number(value: Any) -> bool:
  """Whether a value of JSON is a finite number of a size that occurs."""
  return isinstance(value, int | float) and abs(value) < 1e300


def _problem(row):
  """What is wrong with a row, '' if nothing is."""
  if not isinstance(row, dict):
    return 'but no object'
  step = row.get('gradient_step')
  if type(step) is not int or step < 0:
    return f'its gradient_step is {str(step)[:50]!r}'
  for key, value in row.items():
    parts = value if isinstance(value, list) else [value]
    good = all(part is None or is_number(part) for part in parts)
    if not (isinstance(value, str) if key == 'phase' else good):
      return f'its {key} is {str(value)[:50]!r}'
  return ''


def set_aside(path: Path) -> Path:
  """Renames a file to <name>-old-<number>, and returns its new path."""
  for number in itertools.count(1):
    other = path.with_name(f'{path.stem}-old-{number}{path.suffix}')
    if not other.exists():
      return path.rename(other)


def _line(row):
  return (json.dumps(row, allow_nan=False) + '\n').encode()
