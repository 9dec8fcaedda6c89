"""One process at a time in a directory; the dead hold nothing."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from moto_tf import ownership
from moto_tf.files import FileError
from moto_tf.ownership import OwnedError, Owner

ROOT = Path(__file__).parents[1]
SCRIPT = """
import os, sys, time
from pathlib import Path
from moto_tf.errors import explain_errors
from moto_tf.ownership import Owner
with explain_errors():
  owner = Owner(Path(sys.argv[1]))
print('taken', flush=True)
if len(sys.argv) > 2:
  os.kill(os.getpid(), 9)
sys.stdin.read()
"""


def start(directory, *args):
  return subprocess.Popen(
    [sys.executable, '-c', SCRIPT, str(directory), *args],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def record(directory, **values):
  """What an owner on this machine, with changes, has left on record."""
  owner = {'host': ownership.socket.gethostname(), 'pid': os.getpid()}
  (directory / '.lock').write_text(json.dumps({**owner, **values}))


@contextlib.contextmanager
def touched(path):
  """Touches a file all the time, as its owner would."""
  stop = threading.Event()

  def touch():
    while not stop.wait(0.01):
      os.utime(path)

  thread = threading.Thread(target=touch)
  thread.start()
  yield
  stop.set()
  thread.join()


def test_another_process_refuses_and_names_the_owner(tmp_path):
  first = start(tmp_path)
  assert first.stdout.readline() == 'taken\n'
  second = start(tmp_path)
  _, error = second.communicate(timeout=60)
  host = re.escape(ownership.socket.gethostname())
  assert second.returncode == 1 and error.count('\n') == 1
  assert re.match(
    f'Error: {tmp_path} is in use by process {first.pid} on {host}', error
  )
  # Whether it ends in order or not, the next one comes in at once.
  first.kill()
  first.communicate()
  assert (tmp_path / '.lock').exists()
  with Owner(tmp_path):
    assert json.loads((tmp_path / '.lock').read_text())['pid'] == os.getpid()
  assert not list(tmp_path.iterdir())


def test_not_twice_in_one_process(tmp_path):
  owner = Owner(tmp_path / 'a' / 'b')
  with pytest.raises(OwnedError, match='by this process itself'):
    Owner(tmp_path / 'a' / 'b')
  owner.check()
  owner.close()
  # Nothing stays where nothing was made.
  assert not list(tmp_path.iterdir())
  forgotten = Owner(tmp_path)
  del forgotten
  Owner(tmp_path).close()


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(FileError, match='Cannot write .*file/x'):
    Owner(tmp_path / 'file' / 'x')


@pytest.mark.parametrize('locks', [True, False])
def test_owners_on_other_machines(tmp_path, monkeypatch, locks):
  """Theirs as long as they touch it, also where nobody sees their lock."""
  if not locks:
    without_locks(monkeypatch)
  monkeypatch.setattr(ownership, 'PATIENCE', 0.5)
  record(tmp_path, host='elsewhere', pid=7)
  with touched(tmp_path / '.lock'):
    with pytest.raises(OwnedError, match='process 7 on elsewhere'):
      Owner(tmp_path)
  Owner(tmp_path).close()
  assert not (tmp_path / '.lock').exists()


def without_locks(monkeypatch):
  def refuse(*args):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  monkeypatch.setattr(time, 'sleep', lambda seconds: None)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
  without_locks(monkeypatch)
  monkeypatch.setattr(ownership, 'BEAT', 0.01)
  monkeypatch.setattr(ownership, 'PATIENCE', 60)
  with Owner(tmp_path):
    with pytest.raises(OwnedError, match='in use by this process itself'):
      Owner(tmp_path)
  # A process that is not there any more is not waited for.
  gone = start(tmp_path / 'other', 'die')
  gone.communicate()
  record(tmp_path, pid=gone.pid)
  Owner(tmp_path).close()


@pytest.mark.parametrize('text', ['', '{"host": 3', '[]', '[' * 10000])
def test_a_lock_that_says_nothing(tmp_path, text):
  (tmp_path / '.lock').write_text(text)
  with Owner(tmp_path):
    assert json.loads((tmp_path / '.lock').read_text())['pid'] == os.getpid()
  assert not (tmp_path / '.lock').exists()


def test_an_owner_that_was_robbed_says_so(tmp_path):
  owner = Owner(tmp_path)
  (tmp_path / '.lock').unlink()
  owner.check()  # Nobody else has it.
  other = start(tmp_path)
  assert other.stdout.readline() == 'taken\n'
  with pytest.raises(OwnedError, match=f'in use by process {other.pid}'):
    owner.check()
  owner.close()
  assert (tmp_path / '.lock').exists()
  other.communicate('')
  assert not (tmp_path / '.lock').exists()


def test_holder(tmp_path):
  assert ownership.holder(tmp_path) is None
  with ownership.Owner(tmp_path):
    me = {'host': socket.gethostname(), 'pid': os.getpid()}
    assert ownership.holder(tmp_path) == me
  assert ownership.holder(tmp_path) is None
  child = subprocess.Popen(['sleep', '60'])
  lock = tmp_path / ownership.NAME
  lock.write_text(json.dumps({**me, 'pid': child.pid}))
  assert ownership.holder(tmp_path) == {**me, 'pid': child.pid}
  child.kill()
  # Dead, but not yet forgotten, and then forgotten.
  os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
  assert ownership.holder(tmp_path) is None
  child.wait()
  assert ownership.holder(tmp_path) is None
  # On another machine: alive as long as it gives signs.
  lock.write_text(json.dumps({'host': 'another', 'pid': 1}))
  assert ownership.holder(tmp_path) == {'host': 'another', 'pid': 1}
  os.utime(lock, (0, 0))
  assert ownership.holder(tmp_path) is None
