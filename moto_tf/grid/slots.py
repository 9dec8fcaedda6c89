"""Which cores each of several processes runs on."""

import os
from collections.abc import Sequence

# What the libraries of a run ask for how many threads to start.
THREADS = (
  'OMP_NUM_THREADS',
  'TF_NUM_INTRAOP_THREADS',
  'TF_NUM_INTEROP_THREADS',
)


def divide(
  count: int, size: int, cores: Sequence[int]
) -> list[tuple[int, ...]]:
  """Cores of `count` processes of `size` cores each.

  Where there are too few cores, several processes get the same.
  """
  return [
    tuple(sorted({cores[(i * size + k) % len(cores)] for k in range(size)}))
    for i in range(count)
  ]


def threads(count: int) -> dict[str, str]:
  """Environment variables for a process on so many cores."""
  return dict.fromkeys(THREADS, str(count))


def pin(pid: int, cores: Sequence[int]) -> None:
  """Holds a process and what it starts later to cores, where that is known."""
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(pid, cores)


def cores_of(pid: int) -> set[int]:
  """Cores that a process may use; none if it is gone."""
  try:
    return set(os.sched_getaffinity(pid))
  except (AttributeError, OSError):
    return set()
