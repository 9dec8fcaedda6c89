"""One process at a time in a directory, also on a file system of many machines.

The owner holds the lock of the file `.lock`, which the system takes back when a
process dies. Not every shared file system tells other machines of a lock, so
the owner also touches the file now and then: who finds the name of another
machine in it waits for that.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
import weakref
from pathlib import Path

from moto_tf import files
from moto_tf.errors import MotoError

NAME = '.lock'
BEAT = 10.0  # Seconds between touches.
PATIENCE = 45.0  # Seconds without a touch after which an owner is dead.


class OwnedError(MotoError, RuntimeError):
  """A directory belongs to another process; the message names it."""


class Owner:
  """A directory that is this process's own, until `close`.

  A context manager.
  """

  def __init__(self, directory: Path):
    """Takes the directory, which is made if it is missing.

    Raises:
      OwnedError: another process has it.
      FileError: it cannot be written.
    """
    self._path = Path(directory) / NAME
    with files.writing(self._path):
      made = files.missing(self._path.parent)
      self._path.parent.mkdir(parents=True, exist_ok=True)
      try:
        self._handle, self._text = _take(self._path)
      except BaseException:
        files.remove_empty(made)
        raise
    stop = threading.Event()
    self._close = weakref.finalize(
      self, _leave, self._path, self._handle, self._text, stop, made
    )
    # Without a reference to the owner, which may be forgotten without `close`.
    threading.Thread(
      target=_touch, args=(self._handle, stop), daemon=True
    ).start()

  def check(self) -> None:
    """Raises OwnedError if another process has taken the directory since.

    That is where somebody removed the file of the lock, or a file system
    without locks lost sight of this process.
    """
    with contextlib.suppress(FileNotFoundError):
      if not _is_ours(self._path, self._handle, self._text):
        raise _taken(self._path)

  def close(self) -> None:
    """Leaves the directory to others."""
    self._close()

  def __enter__(self) -> 'Owner':
    return self

  def __exit__(self, *error) -> None:
    self.close()


def holder(directory: Path) -> dict | None:
  """Host and number of the process that has a directory, None if none has.

  Only looks: a lock that is tried would be in the way of who wants it.
  """
  path = Path(directory) / NAME
  owner = _read(path)
  if owner is None or not _may_live(owner, False):
    return None
  try:
    fresh = time.time() - path.stat().st_mtime < PATIENCE
  except OSError:
    return None  # It has just left.
  return owner if fresh else None


def _take(path):
  """An open file that is locked and says who we are, and what it says."""
  host, pid = socket.gethostname(), os.getpid()
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  text = json.dumps({'host': host, 'pid': pid, 'since': now})
  while True:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      locked = _lock(handle, path)
      owner = _read(path)
      if owner and _may_live(owner, locked):
        _wait_for_touch(path, owner)
      if _is_ours(path, handle):
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
        os.fsync(handle)
        if not locked:
          # Of several that come here at once, the last one has it.
          time.sleep(1)
          if not _is_ours(path, handle, text):
            raise _taken(path)
        return handle, text
    except FileNotFoundError:
      pass  # Its owner has just left, and removed it.
    except BaseException:
      os.close(handle)
      raise
    os.close(handle)


def _lock(handle, path):
  """Whether the file system could lock the file, which nobody else has."""
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
      raise _taken(path) from None
    return False  # It has no locks.
  return True


def _may_live(owner, locked):
  """Whether an owner on record may live, though we have got the lock."""
  if owner['host'] != socket.gethostname():
    return True
  if locked:
    return False
  try:
    os.kill(owner['pid'], 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return not _is_zombie(owner['pid'])


def _is_zombie(pid):
  """Whether a process is dead and nobody took note, where /proc says so."""
  try:
    stat = Path(f'/proc/{pid}/stat').read_bytes()
  except OSError:
    return False
  return stat.rpartition(b')')[2].split()[:1] == [b'Z']


def _wait_for_touch(path, owner):
  """Raises OwnedError as soon as an owner gives a sign of life."""
  print(
    f'{path.parent} was last used by process {owner["pid"]} on '
    f'{owner["host"]}; waiting {PATIENCE:.0f} s for a sign of life.',
    flush=True,
  )
  before = _time(path)
  end = time.monotonic() + PATIENCE
  while time.monotonic() < end:
    time.sleep(PATIENCE / 45)
    if _time(path) != before:
      raise _taken(path)


def _time(path):
  # Of a file that was opened just now, a file server tells the truth.
  with path.open('rb') as file:
    return os.fstat(file.fileno()).st_mtime_ns


def _read(path):
  """Who a file of a lock names; None if nobody."""
  try:
    owner = json.loads(path.read_text())
    return {'host': str(owner['host']), 'pid': int(owner['pid'])}
  except (LookupError, OSError, TypeError, ValueError, RecursionError):
    return None


def _is_ours(path, handle, text=None):
  """Whether a file is still the one that is open, and says the same."""
  with path.open('rb') as file:
    same = os.path.samestat(os.fstat(file.fileno()), os.fstat(handle))
    return same and text in (None, file.read().decode(errors='replace'))


def _taken(path):
  owner = _read(path)
  who = f'process {owner["pid"]} on {owner["host"]}' if owner else 'a process'
  advice = 'Wait for it or stop it, or choose another directory'
  if owner == {'host': socket.gethostname(), 'pid': os.getpid()}:
    who, advice = 'this process itself', 'Close the run that has it first'
  return OwnedError(
    f'{path.parent} is in use by {who}. {advice}; a process that has died '
    'holds nothing.'
  )


def _touch(handle, stop):
  while not stop.wait(BEAT):
    with contextlib.suppress(OSError):
      os.utime(handle)


def _leave(path, handle, text, stop, made):
  stop.set()
  with contextlib.suppress(OSError):
    if _is_ours(path, handle, text):
      path.unlink()
    files.remove_empty(made)
  os.close(handle)
