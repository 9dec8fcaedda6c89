"""What a person says of an episode, in its file.

A label replaces the array `success`, and the rewards if that is asked for. What
was recorded stays in the file under the names in KEPT, which also tell that the
episode has a label. They begin with log_, so that nothing takes them for
observations. All other arrays are copied as bytes.
"""

import dataclasses
import io
import os
import zipfile
from pathlib import Path

import numpy as np

from moto_tf import files
from moto_tf.bounded import check_growth
from moto_tf.data import episodes
from moto_tf.errors import MotoError

KEPT = {'success': 'log_success_recorded', 'reward': 'log_reward_recorded'}


class LabelError(MotoError, ValueError):
  """A label cannot be given; the message says why."""


@dataclasses.dataclass(frozen=True)
class EpisodeState:
  """What a file holds, and what is said of it.

  Attributes:
    records: one for the reset and one per transition.
    keys: of its arrays, without log_*.
    images: shape [H, W, C] of each observation that is an image.
    labelled: whether a person has said what `start` says.
    rewarded: whether rewards follow that label.
    start: first record of success, None without one.
    recorded: what start was before the first label.
  """

  records: int
  keys: tuple[str, ...]
  images: dict[str, tuple[int, ...]]
  labelled: bool
  rewarded: bool
  start: int | None
  recorded: int | None


def look(path: Path) -> EpisodeState:
  """Reads what is said of an episode, and of its images the shapes alone.

  Raises:
    EpisodeError: the file is no episode.
  """
  images, kept = {}, KEPT['success']
  with episodes.opened(path) as file:
    labelled = kept in file.names
    rewarded = KEPT['reward'] in file.names
    keys = [x for x in sorted({*file.names}) if not x.startswith('log_')]
    for key in keys:
      shape, dtype = file.header(key)
      if len(shape) == 4 and dtype == np.uint8:
        images[key] = shape[1:]
  logs = [kept] if labelled else []
  episode = episodes.load_episode(path, {}, logs=logs)
  start = _first(episode['success'])
  recorded = _first(episode[kept]) if labelled else start
  count = len(episode['success'])
  said = labelled, rewarded, start, recorded
  return EpisodeState(count, tuple(keys), images, *said)


def check_start(start: int | None, records: int) -> None:
  """Raises LabelError for a success that begins where none can."""
  if start is not None and not 1 <= start < records:
    raise LabelError(
      f'A success cannot begin at record {start}: give 1 to {records - 1}. '
      'Record 0 is the reset, before any action.'
    )


def set_label(path: Path, start: int | None, reward: bool = False) -> None:
  """Writes a label into an episode; one that it had is replaced.

  Args:
    path: of the episode.
    start: first record of success, 1 or more; None: a failure.
    reward: whether rewards become 1 from there on and 0 before. If not, they
      are those that were recorded.

  Raises:
    EpisodeError: the file is no episode.
    LabelError: there is no such record.
    FileError: it cannot be written. The file is unchanged after any of these.
  """
  records = look(path).records
  check_start(start, records)
  members = _as_recorded(_read(path))
  success = np.arange(records) >= (records if start is None else start)
  fresh = {'success': success}
  if reward:
    fresh['reward'] = success.astype(np.float32)
  for key, array in fresh.items():
    name = _name(members, key)
    # Without the array nothing was a success, as in load_episode.
    before = members.get(name) or _encode(np.zeros(records, bool))
    members[_name(members, KEPT[key])] = before
    members[name] = _encode(array)
  _write(path, members)


def clear_label(path: Path) -> None:
  """Makes an episode what was recorded.

  Raises:
    EpisodeError: the file is no episode.
    FileError: it cannot be written; the file is unchanged.
  """
  _write(path, _as_recorded(_read(path)))


def _first(flags):
  return int(np.argmax(flags > 0)) if np.any(flags > 0) else None


def _read(path):
  """Content of an npz file by the names of its members."""
  with episodes.opened(path), zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      check_growth(info.file_size, info.compress_size)
    return {name: archive.read(name) for name in archive.namelist()}


def _as_recorded(members):
  for key, kept in KEPT.items():
    if (name := _name(members, kept)) in members:
      members[_name(members, key)] = members.pop(name)
  return members


def _name(members, key):
  """The member that holds an array, or is to hold it."""
  return key if key in members and f'{key}.npy' not in members else f'{key}.npy'


def _encode(array):
  stream = io.BytesIO()
  np.lib.format.write_array(stream, array, allow_pickle=False)
  return stream.getvalue()


def _write(path, members):
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as archive:
    for name, data in members.items():
      # With the date that NumPy gives them, so that equal labels are equal.
      archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
  mode = path.stat().st_mode
  partial = path.with_name(f'.{path.name}-{os.getpid()}.tmp')
  # Who may read it stays as it was.
  keep = lambda: partial.chmod(mode)
  with files.replacing(path, partial, keep) as stream:
    stream.write(content.getvalue())
