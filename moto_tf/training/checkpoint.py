"""Checkpoints: named arrays and counters in one file, written atomically."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moto_tf import files
from moto_tf.bounded import KINDS, open_npz, parse_json
from moto_tf.errors import MotoError, warn
from moto_tf.rules import cut

META = 'meta'
MILESTONE = '-milestone'  # Before .npz.


class CheckpointError(MotoError, ValueError):
  """A checkpoint that cannot be written, found or read."""


class _Damaged(CheckpointError):
  """A file whose content is not what was written."""


class Checkpoints:
  """The checkpoints of one run: `<directory>/ckpt-<step>.npz`.

  Milestones are checkpoints that nothing deletes. Their files end in
  -milestone.npz, so that they stay ones whatever the settings become.
  """

  def __init__(
    self,
    directory: Path,
    keep: int,
    check: Callable[[dict, dict, int], None] | None = None,
  ):
    """Creates nothing on disk.

    Args:
      directory: of the files.
      keep: number of files kept beside milestones, >= 1.
      check: raises ValueError for arrays and meta that cannot be, given the
        gradient step in the name of the file, or -1 where it has another name.
    """
    if keep < 1:
      raise ValueError(
        f'checkpoint_keep is {keep}, expected 1 or more: the newest '
        'checkpoint is always kept.'
      )
    self._directory = Path(directory)
    self._keep = keep
    self._check = check

  def save(
    self,
    step: int,
    arrays: dict[str, np.ndarray],
    meta: dict,
    milestone: bool = False,
  ) -> Path:
    """Writes one checkpoint and deletes the oldest beyond `keep`.

    The file appears complete or not at all, also if the machine stops in the
    middle. Checkpoints of later steps belong to a future that this run has
    left (it was continued from an older one) and move to `superseded/`.

    Args:
      step: gradient step, >= 0; the number in the file name.
      arrays: bool, integer, float or complex arrays of any shape by name.
      meta: what JSON can hold: nested dicts with string keys, lists, numbers,
        strings, None. Tuples come back as lists, numpy scalars as numbers.
      milestone: whether it is never to be deleted. One of this step that is
        there stays one, with the new content.

    Raises:
      ValueError: an array or a meta value that cannot be stored.
      CheckpointError: the disk is full or not writable, or an array is not
        finite.
    """
    if step < 0:
      raise ValueError(f'Checkpoint step is {step}, expected 0 or more.')
    entries = _entries(arrays, meta)
    if broken := _not_finite(entries):
      raise CheckpointError(
        f'At gradient step {step}, not finite: {broken}. No checkpoint of that '
        'is written, and those before are unchanged.'
      )
    path = self._directory / f'ckpt-{step:08d}.npz'
    kept = path.with_stem(path.stem + MILESTONE)
    path = kept if milestone or kept.exists() else path
    # One fixed name, so a killed process leaves at most one stray file.
    partial = self._directory / 'ckpt.npz.tmp'
    # Before the new file appears: a stop in between must not leave a superseded
    # checkpoint as the newest one.
    supersede = lambda: self._supersede(step)
    try:
      with files.replacing(path, partial, supersede) as stream:
        _write(stream, entries)
    except files.FileError as error:
      raise CheckpointError(
        self._write_problem(path, error.__cause__)
      ) from error
    others = [p for p in self.paths() if not is_milestone(p)]
    # With what a milestone of the same step has replaced.
    same = [p for p in others if _step(p) == step and p != path]
    for old in {*others[self._keep :], *same}:
      old.unlink(missing_ok=True)
    return path

  def load(
    self, path: Path | None = None
  ) -> tuple[dict[str, np.ndarray], dict, Path] | None:
    """Reads the checkpoint at `path`, or the newest one that is intact.

    `path` may also be a name in the directory, or the gradient step. A file
    that is damaged, or says what cannot be, is named in a warning and the one
    before it is used.

    Returns:
      Arrays by name, meta and the file they came from; None if `path` is None
      and the directory holds no checkpoint.

    Raises:
      CheckpointError: `path` is missing or damaged, or every file is.
    """
    if path is not None:
      if not Path(path).is_file() and Path(path).name == str(path):
        path = self._find(str(path))
      if not Path(path).is_file():
        found = ', '.join(other.name for other in self.paths()) or 'none'
        raise CheckpointError(
          f'No checkpoint {path}. In {self._directory}: {found}.'
        )
      return (*self._read(Path(path)), Path(path))
    problems, newest = [], None
    for candidate in self.paths():
      newest = newest or candidate
      try:
        arrays, meta = self._read(candidate)
      except _Damaged as error:
        problems.append(str(error))
        continue
      if problems:
        again = _step(newest) - _step(candidate)
        warn(
          ' '.join(problems)
          + f' Using {candidate.name} instead, {again} gradient steps before.'
        )
      return arrays, meta, candidate
    if problems:
      raise CheckpointError(
        f'No intact checkpoint in {self._directory}. '
        + ' '.join(problems)
        + ' Move them away to start again.'
      )
    return None

  def meta(self) -> dict | None:
    """Meta of the newest checkpoint whose meta is intact, None without one.

    Its arrays are not read, so they may be damaged.
    """
    for path in self.paths():
      try:
        with open_npz(path) as file:
          meta = _parse_meta(file.read(META))
        if self._check:
          self._check({}, meta, _step(path))
        return meta
      except Exception:  # As in `_read`; `load` names what is damaged.
        continue
    return None

  def paths(self) -> list[Path]:
    """Checkpoint files, the newest step first."""
    paths = self._directory.glob('ckpt-*.npz')
    # Of two of one step, the milestone was written last.
    order = lambda path: (_step(path), is_milestone(path))
    return sorted((p for p in paths if _step(p) >= 0), key=order, reverse=True)

  def _find(self, name):
    """A file of the directory by its name or gradient step."""
    if re.fullmatch(r'\d+', name):
      found = [path for path in self.paths() if _step(path) == int(name)]
      name = found[0].name if found else f'ckpt-{int(name):08d}.npz'
    return self._directory / name

  def _read(self, path):
    arrays, meta = _read(path)
    try:
      if self._check:
        self._check(arrays, meta, _step(path))
    except ValueError as error:
      raise _Damaged(f'Checkpoint {path} is damaged ({error}).') from error
    return arrays, meta

  def _supersede(self, step):
    for path in self.paths():
      if _step(path) > step:
        target = self._directory / 'superseded'
        if is_milestone(path):
          files.move_into([path], target)
        else:
          target.mkdir(exist_ok=True)
          os.replace(path, target / path.name)
        print(f'Moved {path} to {target}: the run is now at {step}.')

  def _write_problem(self, path, error):
    parts = [f'Cannot write checkpoint {path}: {error.strerror or error}.']
    try:
      free = shutil.disk_usage(self._directory).free
      parts.append(f'{free / 2**20:,.0f} MiB are free there.')
    except OSError:
      parts.append('The directory is not accessible.')
    previous = self.paths()
    if previous:
      parts.append(f'The previous checkpoint {previous[0].name} is unchanged.')
    parts.append('Free some space or fix permissions and continue the run.')
    return ' '.join(parts)


def is_milestone(path: Path) -> bool:
  """Whether a file of a run's checkpoints is one that is never deleted."""
  return path.stem.endswith(MILESTONE)


def _step(path):
  match = re.fullmatch(rf'ckpt-(\d+)({MILESTONE})?\.npz', path.name)
  return int(match.group(1)) if match else -1


def _entries(arrays, meta):
  entries = {}
  for name, value in arrays.items():
    value = np.asarray(value)
    if name == META or not name:
      raise ValueError(
        f'An array cannot be named {name!r} in a checkpoint; rename it.'
      )
    if value.dtype.kind not in KINDS:  # bfloat16 would become V2.
      raise ValueError(
        f'Array {name!r} has dtype {value.dtype}, which npz files cannot '
        'hold; cast it first (bfloat16 to float32 is exact).'
      )
    entries[name] = value
  text = json.dumps(_plain(meta, META))
  entries[META] = np.frombuffer(text.encode(), np.uint8)
  return entries


def _plain(value, where):
  """The value as JSON types; names the place that has none."""
  if isinstance(value, dict):
    for key in value:
      if not isinstance(key, str):
        raise ValueError(f'{where} has the key {key!r}, expected a string.')
    return {k: _plain(v, f'{where}.{k}') for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
  if isinstance(value, np.generic):
    value = value.item()
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ValueError(
    f'{where} is a {type(value).__name__}, expected numbers, strings, lists '
    'or dicts; arrays belong in `arrays`.'
  )


def _write(stream, entries):
  with zipfile.ZipFile(stream, 'w', zipfile.ZIP_STORED) as archive:
    for name, value in entries.items():
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
        np.lib.format.write_array(entry, value, allow_pickle=False)


def _read(path):
  try:
    with open_npz(path) as file:
      # Of all headers, so that what claims too much is not read by halves.
      for name in file.names:
        file.header(name)
      entries = {name: file.read(name) for name in file.names}
    meta = _parse_meta(entries.pop(META))
    if broken := _not_finite(entries):
      raise ValueError(f'not finite: {broken}')
  except PermissionError as error:
    # Not damaged: going back to an older one would lose work.
    raise CheckpointError(f'Cannot read checkpoint {path}: {error}.') from error
  except MemoryError:
    raise
  except Exception as error:  # A damaged file can fail anywhere in a parser.
    raise _Damaged(
      f'Checkpoint {path} is damaged ({cut(str(error), 300)}).'
    ) from error
  return entries, meta


def _parse_meta(array):
  return parse_json(array.tobytes().decode(), constants=True)


def _not_finite(arrays):
  """Names of arrays with nan or infinity, '' if there are none."""
  names = [k for k, v in arrays.items() if not np.isfinite(v).all()]
  rest = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return ', '.join(names[:3]) + rest
