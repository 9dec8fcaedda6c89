"""When to do something: schedules over steps, speed and time left."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator


class Every:
  """True whenever a counter reaches or passes a multiple of a period.

  A run resumed at a step fires next at the same step as a run that was never
  stopped, because only the position between two multiples matters.
  """

  def __init__(self, period: int, step: int = 0):
    """Start to count.

    Args:
      period: Steps between firings; 0 never fires.
      step: Counter now, already handled: the resumed step or 0.
    """
    if period < 0:
      raise ValueError(f'A period is 0 (never) or more steps, got {period}.')
    self._period = period
    self._last = step

  def __call__(self, step: int) -> bool:
    """Tell whether a multiple lies in (last step, step]."""
    if not self._period:
      return False
    due = step // self._period > self._last // self._period
    self._last = step
    return due


class Rate:
  """Steps per second over the last few updates, pauses left out."""

  def __init__(
    self, window: int = 10, clock: Callable[[], float] = time.monotonic
  ):
    """Start to measure.

    Args:
      window: Number of intervals between updates to average over.
      clock: Function that returns seconds.
    """
    self._clock = clock
    self._paused = 0.0
    self._marks = collections.deque(maxlen=window + 1)

  def update(self, step: int) -> None:
    """Note that `step` is reached; a repeated step changes nothing."""
    if not self._marks or step != self._marks[-1][0]:
      self._marks.append((step, self._clock() - self._paused))

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leave the time inside the `with` block out of the rate."""
    start = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - start

  def per_second(self) -> float | None:
    """Steps per second, or None before the second update."""
    if len(self._marks) < 2:
      return None
    (first, start), (last, end) = self._marks[0], self._marks[-1]
    return (last - first) / max(end - start, 1e-9)

  def left(self, total: int) -> float | None:
    """Seconds until `total` steps at this rate, or None if unknown."""
    speed = self.per_second()
    if not speed or not total:
      return None
    return max(0, total - self._marks[-1][0]) / speed
