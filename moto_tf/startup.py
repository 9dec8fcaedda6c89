"""Loading libraries that print notices, without the notices.

TensorFlow writes several of them before it reads its own log level, about the
instructions of the CPU and a GPU that is not there.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

SETTINGS = {
  # Fatal errors alone: all others come as exceptions, too.
  'TF_CPP_MIN_LOG_LEVEL': '3',
  # By default only where there is AVX512; convolutions gain without it, too.
  'TF_ENABLE_ONEDNN_OPTS': '1',
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Context to import libraries in: what they write to stderr is held back.

  It is shown if an exception leaves the block, and always in a process that
  was started with TF_CPP_MIN_LOG_LEVEL=0.
  """
  for key, value in SETTINGS.items():
    os.environ.setdefault(key, value)
  if os.environ['TF_CPP_MIN_LOG_LEVEL'] == '0':
    yield
    return
  # The file itself and not sys.stderr, which libraries in C++ do not know.
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as held:
    os.dup2(held.fileno(), 2)
    try:
      yield
    except BaseException:
      held.seek(0)
      os.write(stderr, held.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
