"""Episodes collected beside learning, by processes of their own.

With one collector and G gradient steps per episode:

  collector   | episode n + 1      | episode n + 2      | ...
  weights of  | step n G           | step (n + 1) G     |
  learner     | updates n          | updates n + 1      | ...

Episode n + 1 is acted with the weights that were the newest when episode n
came, and comes when the updates of episode n are done: G gradient steps later
than in Algorithm 1, K G with K collectors. Neither side gets further ahead, so
that the gradient steps per episode stay what they are.
"""

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable

import numpy as np

from moto_tf import registry
from moto_tf.agents import make_agent
from moto_tf.config import Config
from moto_tf.envs.driver import LOST, TRIES, Driver
from moto_tf.envs.worker import Worker, WorkerError
from moto_tf.errors import MotoError


@dataclasses.dataclass(frozen=True)
class Played:
  """An episode, and how it came about.

  Attributes:
    episode: arrays [T + 1, ...]; None if episodes of LOST seeds were lost.
    lost: seed and reason of each that was lost before it.
    seconds: waited for the environment and the policy, by name.
    step: gradient step of the weights that acted.
  """

  episode: dict[str, np.ndarray] | None
  lost: tuple[tuple[int, str], ...]
  seconds: dict[str, float]
  step: int


class Player:
  """Acts in an environment, in a process of its own."""

  def __init__(self, config: Config, make_env: Callable, parent: int):
    """Makes environment and agent, whose weights come with each episode.

    Args:
      config: settings of the run.
      make_env: makes one environment, see moto_tf.envs.
      parent: process that has no use for episodes any more when it is gone.
    """
    registry.load_plugins(config.plugins)
    self._parent = parent
    self._driver = Driver(
      make_env,
      1,
      config.env_workers,
      config.env_timeout,
      self._check,
    )
    try:
      spaces = self._driver.obs_space, self._driver.act_space
      # Acting is too little for a GPU, which the learner has for itself.
      os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
      config = config.replace({'precision': 'float32', 'jit': False})
      self._agent = make_agent(config, *spaces)
    except BaseException:
      self._driver.close()
      raise

  def play(self, order: tuple) -> Played:
    """One episode.

    Args:
      order: weights of the policy, their gradient step, and a seed for each
        time that the episode is lost.
    """
    weights, step, seeds = order
    self._agent.load(weights, policy_only=True)
    lost = []
    for seed in seeds:
      (episode,) = self._driver.run(
        self._agent.policy,
        [seed],
        on_lost=lambda *what: lost.append(what),
      )
      if episode is not None:
        break
    return Played(episode, tuple(lost), self._driver.seconds, step)

  def close(self) -> None:
    self._driver.close()

  def _check(self):
    """The pipe is only looked at between episodes."""
    if os.getppid() != self._parent:
      raise SystemExit


class Collectors:
  """Processes that play episodes, which come in the order of their numbers.

  Attributes:
    wait: seconds that `next` waited for episodes so far.
  """

  def __init__(
    self,
    config: Config,
    make_env: Callable,
    check: Callable[[], None],
  ):
    """Starts the processes without waiting for them.

    Args:
      config: settings of the run; `collectors` is their number.
      make_env: makes one environment, see moto_tf.envs.
      check: called while an episode is waited for; what it raises ends that.
    """
    make = functools.partial(Player, config, make_env, os.getpid())
    # The environment has its own limit for a step; an episode may take long.
    self._workers = [
      Worker(make, 'collector', timeout=0, check=check)
      for _ in range(config.collectors)
    ]
    self._seed = config.seed
    self._sent = None
    self.wait = 0.0

  def next(
    self, number: int, end: int, weights: Callable[[], dict], step: int
  ) -> Played:
    """The episode of a number; begins those that follow.

    Args:
      number: of the episode, one more than the time before.
      end: number after the last episode.
      weights: of the policy, as they are now, by name.
      step: their gradient step.

    Raises:
      WorkerError: a process failed again and again.
    """
    begin = time.perf_counter()
    order = functools.cache(lambda: (weights(), step))
    if self._sent is None:
      self._sent = number
    count = len(self._workers)
    # The first time, all of them begin.
    self._send(min(number + count, end), order)
    worker = self._workers[number % count]
    for tries in range(1, TRIES + 1):
      try:
        played = worker.result()
        break
      except WorkerError as error:
        if isinstance(error.error, MotoError):
          # It reads the same as without processes.
          raise error.error from error
        if tries == TRIES:
          raise
        print(
          f'{error}\nStarting the collector and episode {number} again.',
          file=sys.stderr,
          flush=True,
        )
        worker.restart()
        self._order(number, order)
    self._send(min(number + count + 1, end), order)
    self.wait += time.perf_counter() - begin
    return played

  def close(self) -> None:
    """Ends the processes and what they play."""
    for worker in self._workers:
      worker.leave()
    for worker in self._workers:
      worker.close()

  def _send(self, end, order):
    for number in range(self._sent, end):
      self._order(number, order)
    self._sent = max(self._sent, end)

  def _order(self, number, order):
    seeds = [episode_seed(self._seed, number, lost) for lost in range(LOST)]
    worker = self._workers[number % len(self._workers)]
    if worker.ready():  # Weights are more than a pipe holds.
      worker.send('play', (*order(), seeds))


def episode_seed(seed: int, episode: int, lost: int) -> int:
  """Seed of a collected episode, 2,000,000 to 2^31, apart from evaluation.

  Another one for each that was lost in its place; 0 adds nothing.
  """
  state = np.random.SeedSequence([seed, episode, lost]).generate_state(1)
  return 2_000_000 + int(state[0]) % (2**31 - 2_000_000)
