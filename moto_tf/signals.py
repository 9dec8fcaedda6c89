"""SIGTERM and Ctrl-C: noted for loops that ask, or ending a command."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


class StopAsked(KeyboardInterrupt):
  """Raised by a loop that found that it was asked to stop.

  Attributes:
    number: of the signal.
  """

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.number = number


class StopRequest:
  """Notes a first SIGTERM or Ctrl-C; the second one interrupts at once.

  Every loop that lasts calls `check`, between steps and while it waits.

  Attributes:
    number: of the signal that came, None so far.
  """

  def __init__(self):
    """Nothing is heard before `listen`."""
    self.number = None
    self._handlers = {}

  def listen(self) -> None:
    """Takes over both signals.

    Python allows this in the main thread only; elsewhere nothing is changed.
    """
    if threading.current_thread() is threading.main_thread():
      self._handlers = {
        number: signal.signal(number, self._note)
        for number in (signal.SIGTERM, signal.SIGINT)
      }

  def close(self) -> None:
    """Gives the signals back."""
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self._handlers = {}

  def ask(self) -> None:
    """Asks to stop as SIGTERM does."""
    if self.number is None:
      self.number = signal.SIGTERM

  def check(self) -> None:
    """Raises StopAsked if a signal came."""
    if self.number is not None:
      raise StopAsked(self.number)

  def _note(self, number, frame):
    del frame
    if self.number is not None:
      raise KeyboardInterrupt
    self.number = number
    name = signal.Signals(number).name
    # Not print, which may be interrupted in the middle of a print.
    text = f'{name}: stopping after this step; once more to stop at once.\n'
    os.write(2, text.encode())


@contextlib.contextmanager
def interruptible(advice: str = '') -> Iterator[None]:
  """Ends a command that has nothing to save at SIGTERM or Ctrl-C.

  Worker processes end and unfinished files are removed, without a traceback;
  the exit status is 128 plus the number of the signal.

  Args:
    advice: what to do next.
  """
  number = signal.SIGINT

  def interrupt(which, frame):
    nonlocal number
    del frame
    number = which
    raise KeyboardInterrupt

  main = threading.current_thread() is threading.main_thread()
  before = signal.signal(signal.SIGTERM, interrupt) if main else None
  try:
    yield
  except KeyboardInterrupt:
    print(f'\nStopped. {advice}'.rstrip(), file=sys.stderr, flush=True)
    sys.exit(128 + number)
  finally:
    if main:
      signal.signal(signal.SIGTERM, before)
