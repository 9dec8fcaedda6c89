"""Loading libraries that print notices, without the notices.

TensorFlow writes several of them before it reads its own log level, about the
instructions of the CPU and a GPU that is not there.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator

SETTINGS = {
  # Fatal errors alone: all others come as exceptions, too.
  'TF_CPP_MIN_LOG_LEVEL': '3',
  # By default only where there is AVX512; convolutions gain without it, too.
  'TF_ENABLE_ONEDNN_OPTS': '1',
}


class _Stderr:
  """The file behind stderr, held back while anybody wants it."""

  def __init__(self):
    self._lock = threading.Lock()
    self._users = 0

  def hold(self) -> None:
    """Lets what is written go to a file, until as many calls of `release`."""
    with self._lock:
      if not self._users:
        # The file itself and not sys.stderr, which C++ does not know.
        self._stderr, self._held = os.dup(2), tempfile.TemporaryFile()
        os.dup2(self._held.fileno(), 2)
      self._users += 1

  def release(self, show: bool) -> None:
    """Ends one `hold`; `show` gives out what was held back."""
    with self._lock:
      if show:
        self._held.seek(0)
        os.write(self._stderr, self._held.read())
      self._users -= 1
      if not self._users:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._held.close()


_STDERR = _Stderr()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Context to import libraries in: what they write to stderr is held back.

  It is shown if an exception leaves the block, and always in a process that
  was started with TF_CPP_MIN_LOG_LEVEL=0.
  """
  for key, value in SETTINGS.items():
    os.environ.setdefault(key, value)
  loud = os.environ['TF_CPP_MIN_LOG_LEVEL'] == '0'
  try:
    os.fstat(2)
  except OSError:
    loud = True  # Nothing to hold back: stderr is closed.
  if loud:
    yield
    return
  _STDERR.hold()
  failed = True
  try:
    yield
    failed = False
  finally:
    _STDERR.release(failed)
