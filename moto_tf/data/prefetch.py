"""Batches prepared ahead, so that the gradient step need not wait."""

import threading
import time

import numpy as np

from moto_tf.data.replay import Replay, ReplayError


class Prefetcher:
  """Prepares the batches of the next steps in a background thread."""

  def __init__(self, replay: Replay, depth: int):
    """Keeps up to `depth` batches ready; 0 samples when asked, no thread.

    Attributes:
      wait: seconds spent in `get` so far.
    """
    if depth < 0:
      raise ReplayError(f'replay.prefetch is {depth}, expected 0 or more.')
    self.wait = 0.0
    self._replay = replay
    self._depth = depth
    self._first = None  # The next step expected; unknown before the first.
    self._ready = {}  # Step to (version, batch or exception).
    self._closed = False
    self._change = threading.Condition()
    self._thread = None
    if depth:
      self._thread = threading.Thread(target=self._work, daemon=True)
      self._thread.start()

  def get(self, step: int) -> dict[str, np.ndarray]:
    """Returns exactly `replay.sample(step)`; raises what that raises."""
    begin = time.perf_counter()
    try:
      return self._get(step) if self._depth else self._replay.sample(step)
    finally:
      self.wait += time.perf_counter() - begin

  def close(self) -> None:
    """Stops the thread; `get` cannot be called any more."""
    with self._change:
      self._closed = True
      self._ready.clear()
      self._change.notify_all()
    if self._thread:
      self._thread.join()

  def _get(self, step):
    with self._change:
      self._first = step
      self._change.notify_all()
      self._change.wait_for(lambda: self._closed or self._has(step))
      if self._closed:
        raise ReplayError('The prefetcher is closed.')
      _, result = self._ready.pop(step)
      self._first = step + 1
      self._change.notify_all()
    if isinstance(result, Exception):
      raise result
    return result

  def _has(self, step):
    entry = self._ready.get(step)
    return entry is not None and entry[0] == self._replay.version

  def _due(self):
    """The first step to prepare, None if all are ready or none is known."""
    if self._first is None:
      return None
    ahead = range(self._first, self._first + self._depth)
    self._ready = {s: v for s, v in self._ready.items() if s in ahead}
    return next((step for step in ahead if not self._has(step)), None)

  def _work(self):
    while True:
      with self._change:
        self._change.wait_for(lambda: self._closed or self._due() is not None)
        if self._closed:
          return
        step = self._due()
      version = self._replay.version
      try:
        result = self._replay.sample(step)
      except Exception as error:
        result = error
      with self._change:
        # A version between the two could have made the batch.
        if version == self._replay.version:
          self._ready[step] = version, result
        self._change.notify_all()
