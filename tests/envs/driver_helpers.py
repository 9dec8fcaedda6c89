"""An environment that counts, and what the tests of drivers do in it."""

import os
import signal
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box

from moto_tf.envs import Env


class Count(Env):
  """Counts its steps; observes (seed, steps, sum of actions).

  The episode of seed s has 3 + s % 4 steps. The file `trouble` says what goes
  wrong in the second step of which seed, and how often.
  """

  def __init__(self, trouble=None):
    super().__init__(
      {
        'state': Box(-np.inf, np.inf, (3,), np.float32),
        'image': Box(0, 255, (4, 4, 3), np.uint8),
      },
      actions=2,
      action_repeat=2,
    )
    self._trouble = trouble and Path(trouble)

  def _reset(self, seed):
    self._seed, self._count, self._sum = seed, 0, 0.0
    return self._observe()

  def _step(self, action):
    self._count += 1
    self._sum += float(action.sum())
    if self._count == 2:
      self._fail()
    done = self._count == 3 + self._seed % 4
    return self._observe(), self._count, done, False, self._count == 3

  def _observe(self):
    return {
      'state': np.float32([self._seed, self._count, self._sum]),
      'image': np.full((4, 4, 3), self._count, np.uint8),
    }

  def _fail(self):
    if not (self._trouble and self._trouble.exists()):
      return
    seed, left, how = self._trouble.read_text().split()
    if int(seed) != self._seed or int(left) == 0:
      return
    self._trouble.write_text(f'{seed} {int(left) - 1} {how}')
    if how == 'raise':
      raise ArithmeticError('the simulation exploded')
    if how == 'exit':
      os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def open_loop(obs, state, lanes):
  """Actions that depend on seed and step alone."""
  values = [
    np.random.default_rng([s, t]).uniform(-1, 1, 2) for s, t in zip(*lanes)
  ]
  return np.array(values), state


def equal(a, b):
  return len(a) == len(b) and all(
    x.keys() == y.keys()
    and all(x[k].dtype == y[k].dtype and np.array_equal(x[k], y[k]) for k in x)
    for x, y in zip(a, b, strict=True)
  )
