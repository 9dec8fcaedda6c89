"""How scripts end on an error that the user can mend."""

import argparse
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


def positive(text: str) -> int:
  """Type of a command-line option that is 1 or more."""
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
  return value
