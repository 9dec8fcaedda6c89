"""How scripts end on an error that the user can mend."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def errors() -> Iterator[None]:
  """Ends the script with the message of an error that this package raised.

  Its own error classes explain what to do, so a traceback would only hide
  it. Anything else is a defect and keeps its traceback.
  """
  try:
    yield
  except Exception as error:
    if not type(error).__module__.startswith('moto_tf'):
      raise
    print(f'Error: {error}', file=sys.stderr)
    sys.exit(1)
