"""One display of progress, on a terminal and in a log file."""

import shutil
import sys
import time
from typing import TextIO

# Seconds between two states of a line that is rewritten.
BLINK = 0.1


class Progress:
  """Shows how much of something is done, how fast, and what is left.

  On a terminal that is one line, which is rewritten; elsewhere a line every few
  seconds and at the end. A context manager; leaving it closes it.

  Example:
    with Progress('drawer-open', 10) as progress:
      for i in range(10):
        ...
        progress.show(i + 1, f'{dropped} dropped')

    drawer-open    7/10 episodes, 2 dropped, 21.3/min, 8 s left
  """

  def __init__(
    self,
    label: str,
    total: int,
    done: int = 0,
    unit: str = 'episodes',
    every: float = 10.0,
    delay: float = 0.0,
    stream: TextIO | None = None,
  ):
    """Starts the clock; nothing is shown yet.

    Args:
      label: what is under way.
      total: amount at the end.
      done: amount that was there before, which does not count for the speed.
      unit: what is counted.
      every: seconds between lines where the output is no terminal.
      delay: nothing is shown of what takes less than so many seconds.
      stream: by default stdout.
    """
    self._label, self._total, self._start, self._unit = label, total, done, unit
    self._stream = stream or sys.stdout
    self._terminal = self._stream.isatty()
    self._wait = BLINK if self._terminal else every
    self._delay = delay
    self._began = time.monotonic()
    self._shown = self._began - (BLINK if self._terminal else 0)
    self._state = None  # Not shown yet.
    self._width = 0  # Of the line on the terminal.

  def show(self, done: int, text: str = '') -> None:
    """Sets the amount done, and says more in a few words."""
    now = time.monotonic()
    self._state = done, text, now
    late = now - self._began >= self._delay
    if late and (done >= self._total or now - self._shown >= self._wait):
      self._print()

  def close(self) -> None:
    """Shows the last state, and ends the line of a terminal."""
    if self._state and self._state[2] - self._began >= self._delay:
      self._print()
    if self._width:
      print(file=self._stream, flush=True)
    self._width = 0

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *error) -> None:
    self.close()

  def _print(self):
    line = self._describe(*self._state)
    self._shown, self._state = self._state[2], None
    if self._terminal:
      columns = shutil.get_terminal_size().columns - 1
      line = line[:columns]
      # Spaces cover what is left of the line before.
      end, padded = '', f'\r{line:<{min(self._width, columns)}}'
      self._width = len(line)
    else:
      end, padded = '\n', line
    print(padded, end=end, file=self._stream, flush=True)

  def _describe(self, done, text, now):
    seconds, fresh = now - self._began, done - self._start
    parts = [f'{self._label:<14} {done:,}/{self._total:,} {self._unit}', text]
    if fresh > 0:
      rate = fresh / max(seconds, 1e-6)
      parts.append(f'{rate:.1f}/s' if rate >= 1 else f'{60 * rate:.1f}/min')
      left = (self._total - done) / rate
    if done >= self._total:
      parts.append(f'took {duration(seconds)}')
    else:
      parts.append(f'{duration(left)} left' if fresh > 0 else '? left')
    return ', '.join(filter(None, parts))


def duration(seconds: float) -> str:
  """Time in the unit that fits it, such as '40 s', '5 min' or '2.5 h'."""
  if seconds < 100:
    return f'{seconds:.0f} s'
  if seconds < 6000:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'
