"""Which records are cloned: those of successes, and ways between targets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moto_tf.data.pool import Pool


class Cloning(NamedTuple):
  """What is cloned of an episode, by the settings bc_*.

  Attributes:
    threshold, targets, whole: as in `records_to_clone`.
    onward: key of a log_ observation; of episodes of which nothing is cloned by
      these, the records from the last of the targets to this one are, as in
      `stretch_to_clone`. '': none are.
  """

  threshold: float = 0.0
  targets: tuple[str, ...] = ()
  whole: bool = True
  onward: str = ''

  @property
  def logs(self) -> tuple[str, ...]:
    """The keys of log_ observations that are needed."""
    return (*self.targets, *([self.onward] if self.onward else []))

  def of(self, episode: dict) -> range:
    """The records of an episode to clone."""
    count = records_to_clone(episode, self.threshold, self.targets, self.whole)
    if count or not self.onward:
      return range(count)
    return stretch_to_clone(episode, self.targets[-1], self.onward)


def records_to_clone(
  episode: dict,
  threshold: float = 0.0,
  targets: Sequence[str] = (),
  whole: bool = True,
) -> int:
  """How many records of an episode are cloned, from its first on; 0: none.

  An episode is cloned if it succeeded. With targets, keys of log_ observations:
  all of them were above 0.5 after one and the same action. Else, threshold 0:
  it is marked successful; above 0: its largest reward reaches the threshold.

  Args:
    whole: to the end; otherwise up to the record at which that is so for the
      first time, or, with targets, at which it is marked successful, too.
  """
  marked = np.asarray(episode['success'], bool)
  if targets:
    reached = np.all([episode[key] > 0.5 for key in targets], 0)
    reached[0] = False  # In place before any action.
  elif threshold > 0:
    reached = episode['reward'] >= threshold
  else:
    reached = marked
  if not reached.any():
    return 0
  if whole:
    return len(reached)
  ends = (reached, marked) if targets else (reached,)
  return 1 + max(int(found.argmax()) for found in ends)


def stretch_to_clone(episode: dict, last: str, onward: str) -> range:
  """The records of an episode that lead from one target to another.

      last      0  0  1  1  1  1
      onward    0  0  0  0  1  1
      cloned             x  x

  Empty if `onward` is in place first, or if one of them never is.

  Args:
    last, onward: keys of log_ observations, in place where above 0.5.
  """
  places = [
    np.flatnonzero(episode[key][1:] > 0.5) + 1 for key in (last, onward)
  ]
  if not all(map(len, places)):
    return range(0)
  return range(int(places[0][0]) + 1, int(places[1][0]) + 1)


def why_uncloned(pool: Pool, cloning: Cloning) -> str:
  """Why none of the demonstrations is one to clone, and what to set.

  Args:
    pool: the demonstrations.
    cloning: what is cloned of them.

  Returns:
    '' if there are none, or some are.
  """
  if not pool.episodes or any(e.cloned for e in pool.episodes):
    return ''
  largest = max(float(e.arrays['reward'].max()) for e in pool.episodes)
  text = f'none of {len(pool.episodes)} demonstrations counts as a success, '
  text += 'so none is cloned or drawn first. '
  if cloning.targets:
    names = ', '.join(cloning.targets)
    return f'{text}No step has {names} in place; see bc_targets.'
  if cloning.threshold > 0:
    return (
      f'{text}The largest reward is {largest:g}, below bc_threshold '
      f'{cloning.threshold:g}; lower it.'
    )
  text += (
    'Their flags `success` are missing, as in files of DreamerV2, or off. '
  )
  if largest > 0:
    return (
      f'{text}Set --bc_threshold to the reward of a success; the largest is '
      f'{largest:g}.'
    )
  return f'{text}No reward is above 0, so store the flags with the episodes.'
