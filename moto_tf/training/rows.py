"""Files of rows: one JSON object per line, each with a gradient_step."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

from moto_tf.bounded import parse_json
from moto_tf.errors import warn
from moto_tf.files import replacing, writing


def rewind(path: Path, resume_step: int | None) -> list[dict]:
  """Makes a file of rows ready to be appended to; the rows that it holds.

  Args:
    path: the file, created if missing.
    resume_step: gradient step of the checkpoint a run continues from; rows
      beyond it are dropped. None is a new run: an older file is moved aside.

  Raises:
    FileError: the file cannot be written.
  """
  with writing(path):
    if resume_step is None and path.exists() and path.stat().st_size:
      other = set_aside(path)
      print(
        f'{path} is of an earlier run without checkpoint: now {other.name}.'
      )
    if not path.exists():
      path.touch()
      return []
    rows, remarks = read(path)
  for remark in remarks:
    warn(f'{remark}; dropped.')
  if resume_step is None:
    return []
  kept = [row for row in rows if row['gradient_step'] <= resume_step]
  if len(kept) < len(rows):
    count = len(rows) - len(kept)
    print(f'{path}: {count} rows beyond step {resume_step} dropped.')
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

  Raises:
    OSError: the file cannot be read.
  """
  rows, remarks = [], []
  lines = path.read_text(errors='replace').splitlines()
  for number, line in enumerate(lines, 1):
    try:
      row = parse_json(line)
    except ValueError:
      row = None
    if isinstance(row, dict) and isinstance(row.get('gradient_step'), int):
      rows.append(row)
    elif number == len(lines):
      remarks.append(f'{path}: the last line is half written')
    else:
      remarks.append(f'{path}: line {number} is not a row')
  return rows, remarks


def set_aside(path: Path) -> Path:
  """Renames a file to <name>-old-<number>, and returns its new path."""
  for number in itertools.count(1):
    other = path.with_name(f'{path.stem}-old-{number}{path.suffix}')
    if not other.exists():
      return path.rename(other)


def _line(row):
  return (json.dumps(row, allow_nan=False) + '\n').encode()
