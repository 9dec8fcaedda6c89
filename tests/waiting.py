"""Waiting for what other processes do, with an end and without spinning."""

import time


def until(condition, seconds=120):
  """Waits until a function returns something true, and returns that."""
  end = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < end, f'It has not come about in {seconds} s.'
    time.sleep(0.02)
  return found
