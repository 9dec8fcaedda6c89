"""Errors that the user can mend, and how commands end on them."""

import contextlib
import sys
from collections.abc import Iterator


class MotoError(Exception):
  """Base of errors that the user can mend; the message says how.

  Every other exception is a defect of the program and keeps its traceback.
  """


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
  """Ends the program with the message of a MotoError and exit status 1."""
  try:
    yield
  except MotoError as error:
    sys.exit(f'Error: {error}')


def warn(text: str) -> None:
  """Says on stderr what was left out."""
  print(f'Warning: {text}', file=sys.stderr, flush=True)
