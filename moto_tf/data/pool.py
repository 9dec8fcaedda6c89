"""Episodes in memory, and windows of records drawn from them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moto_tf.errors import MotoError

OFFLINE = 1  # Tells the draw of offline episodes from others of the seed.


class ReplayError(MotoError, ValueError):
  """The replay cannot do what was asked; the message says what to change."""


class Episode(NamedTuple):
  """Arrays [T + 1, ...] by key; success is 1 for the records to clone."""

  arrays: dict
  achieved: bool  # Whether it is marked successful.

  @property
  def cloned(self) -> bool:
    """Whether some of its records are cloned."""
    return bool(self.arrays['success'].any())

  @property
  def success(self) -> bool:
    """Whether it is an episode to clone, from its start."""
    return bool(self.arrays['success'][0])

  @property
  def records(self) -> int:
    return len(self.arrays['reward'])

  def cut(self, context: int) -> 'Episode':
    """An episode of its records to clone and as many before them.

    In the same memory.
    """
    cloned = np.flatnonzero(self.arrays['success'])
    piece = slice(max(0, cloned[0] - context), cloned[-1] + 1)
    arrays = {key: value[piece] for key, value in self.arrays.items()}
    first = np.arange(len(arrays['reward'])) == 0
    return Episode({**arrays, 'is_first': first}, self.achieved)


class Pool:
  """Episodes to draw from; never changed, so threads can share it."""

  def __init__(self, episodes):
    self.episodes = tuple(episodes)
    self.ends = np.cumsum([e.records for e in self.episodes], dtype=np.int64)
    self.records = int(self.ends[-1]) if self.episodes else 0
    self.transitions = self.records - len(self.episodes)

  def window(
    self, rng: np.random.Generator, length: int
  ) -> Iterator[tuple[Episode, int, int, int]]:
    """Yields (episode, first record, position, size) to fill a window.

    The first record is uniform over all records. After the last record of an
    episode comes the first one of an episode uniform over episodes. Records of
    this renewal chain are uniform at every position of the window: record 0 of
    each episode is entered with probability (episodes / records) / episodes.
    """
    record = int(rng.integers(self.records))
    index = int(np.searchsorted(self.ends, record, 'right'))
    start = record - (int(self.ends[index - 1]) if index else 0)
    position = 0
    while position < length:
      episode = self.episodes[index]
      size = min(episode.records - start, length - position)
      yield episode, start, position, size
      position += size
      if position < length:
        index, start = int(rng.integers(len(self.episodes))), 0


def draw_files(paths: Sequence[Path], count: int, seed: int) -> Sequence[Path]:
  """As many files as are asked for, drawn by the seed, in their order.

  Args:
    paths: of offline episodes, in one directory.
    count: `replay.offline_episodes`; 0: all.

  Raises:
    ReplayError: there are fewer.
  """
  if not count or not paths:
    return paths
  if count > len(paths):
    raise ReplayError(
      f'replay.offline_episodes is {count}, and {paths[0].parent} has '
      f'{len(paths)} episodes. Record more, or set replay.offline_episodes to '
      '0 for all.'
    )
  print(
    f'{count} of {len(paths)} episodes in {paths[0].parent}, drawn by the seed.'
  )
  order = np.random.default_rng([seed, OFFLINE]).permutation(len(paths))
  return [paths[i] for i in sorted(order[:count])]
