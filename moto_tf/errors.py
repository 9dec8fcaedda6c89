"""How scripts end on an error that the user can mend."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
  """Ends the script with the message of an error that the user can mend.

  That is an error class of this package, whose message explains what to do,
  or one of the file system. Others are defects and keep their traceback.
  """
  try:
    yield
  except Exception as error:
    ours = type(error).__module__.startswith('moto_tf')
    if not ours and not isinstance(error, OSError):
      raise
    sys.exit(f'Error: {error}')
