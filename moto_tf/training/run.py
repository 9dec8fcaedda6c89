"""The verbs of Algorithm 1, which is in moto_tf/training/algorithm.py."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moto_tf.config import Config
from moto_tf.data.replay import Replay
from moto_tf.envs.base import EnvError
from moto_tf.envs.driver import LOST, random_policy
from moto_tf.envs.worker import WorkerError
from moto_tf.errors import MotoError, warn
from moto_tf.signals import StopAsked
from moto_tf.training.checkpoint import CheckpointError
from moto_tf.training.collectors import episode_seed
from moto_tf.training.evaluation import episode_metrics
from moto_tf.training.logger import Logger
from moto_tf.training.monitor import Monitor
from moto_tf.training.session import Session


class TrainingError(MotoError, RuntimeError):
  """Training cannot go on; the message says why and what was saved."""


class Run:
  """One training run in `config.logdir`, a context manager.

  Example:
    with Run(config) as run:
      for _ in run.offline_steps():
        run.update(run.sample())

  Attributes:
    session: what the run holds open, saves and continues.
    monitor: its evaluations, reports and logs.
  """

  def __init__(self, config: Config, make_env: Callable | None = None):
    """Opens the run, continuing what `config.logdir` holds.

    Args:
      config: the configuration.
      make_env: makes one environment (see moto_tf.envs); by default that of
        `config.task`. Worker processes get it by cloudpickle.
    """
    self.session = Session(config, make_env)
    self.monitor = Monitor(self.session)
    self.config, self.total = self.session.config, self.session.total

  def prefill(self) -> None:
    """Collects random episodes if there are no demonstrations to start on.

    What is there before the first gradient step sets the units of vectors.
    """
    while self.episode < self.session.prefill:
      self._collect(random_policy(self.session.driver.act_space))
    if not self.gradient_step:
      self.agent.fit(self.replay.records)

  def offline_steps(self) -> Iterator[int]:
    """The gradient steps of pre-training that are still to do."""
    while self.gradient_step < self.config.offline_steps:
      yield self.gradient_step

  def online_episodes(self) -> Iterator[int]:
    """The online episodes that are not finished, by number from 0."""
    while self.gradient_step < self.total:
      done = self.gradient_step - self.config.offline_steps
      yield done // self.config.updates_per_episode

  def collect_episode(self, number: int) -> None:
    """Rolls the policy out for online episode `number`; D = D + tau.

    Does nothing if a run that was stopped between its updates has it already.
    With `collect` async it was rolled out beside the updates before.
    """
    if self.episode > self.session.prefill + number:
      return
    if self.config.collect == 'async':
      self._receive()
    else:
      self._collect(self.agent.policy)

  def updates(self, number: int) -> Iterator[int]:
    """The gradient steps that follow online episode `number`."""
    end = (number + 1) * self.config.updates_per_episode
    end = min(self.total, self.config.offline_steps + end)
    while self.gradient_step < end:
      yield self.gradient_step

  def sample(self) -> dict[str, np.ndarray]:
    """B ~ D, the batch of this gradient step."""
    return self.session.batches.get(self.gradient_step)

  def update(self, batch: dict[str, np.ndarray]) -> None:
    """One gradient step on all that learns, then what is due.

    That is evaluation, report, log and checkpoint.

    Raises:
      Stopped: a signal asked for it; everything is saved.
      TrainingError: a loss is not finite.
      WorkerError: an evaluation failed again and again; everything is saved.
    """
    metrics = self.agent.train(batch, self.gradient_step)
    self.logger.add(metrics, 'train')
    broken = [
      k for k, v in metrics.items() if 'loss' in k and not math.isfinite(v)
    ]
    if broken:
      self._give_up(broken, metrics)
    self.session.counters.gradient_step += 1
    self._after_step(batch)

  def save(self) -> Path:
    """Writes a checkpoint of everything that continues the run."""
    return self.session.save()

  def close(self, error: BaseException | None = None) -> None:
    """Ends worker processes and threads and closes the logs; see Session."""
    self.session.close(error)

  def __enter__(self) -> 'Run':
    self.session.stop.listen()
    try:
      if self.session.unfinished:
        self._after_step(self.session.batches.get(self.gradient_step - 1))
        # From here on, nothing comes again.
        self.save()
    except BaseException as error:
      self.close(error)
      raise
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.close(error)

  @property
  def logdir(self) -> Path:
    return self.session.logdir

  @property
  def agent(self) -> Any:
    return self.session.agent

  @property
  def replay(self) -> Replay:
    return self.session.replay

  @property
  def logger(self) -> Logger:
    return self.session.logger

  @property
  def phase(self) -> str:
    return self.session.phase

  @property
  def gradient_step(self) -> int:
    return self.session.counters.gradient_step

  @property
  def agent_step(self) -> int:
    return self.session.counters.agent_step

  @property
  def env_step(self) -> int:
    return self.session.counters.env_step

  @property
  def episode(self) -> int:
    return self.session.counters.episode

  def _after_step(self, batch):
    """What is due after a gradient step on a batch, unless asked to stop."""
    with self._stoppable():
      # A report belongs to the phase of its step.
      phase = self.session.phase_at(self.gradient_step - 1)
      self.monitor.after_step(batch, phase)
    self.session.leave_if_asked(self.monitor.log)

  def _collect(self, policy):
    """Adds an episode to the replay, counters and metrics."""
    session, counters = self.session, self.session.counters
    session.leave_if_asked(self.monitor.log)
    episode, lost = None, []

    def lose(seed, problem):
      lost.append((seed, problem))
      self._lose(lost)

    with self._stoppable():
      while episode is None:
        seed = episode_seed(self.config.seed, counters.episode, len(lost))
        (episode,) = session.driver.run(policy, [seed], on_lost=lose)
    self._add(episode, len(lost), session.driver.seconds)

  def _receive(self):
    """The same for an episode of the collectors."""
    session, counters = self.session, self.session.counters
    session.leave_if_asked(self.monitor.log)
    last = (self.total - 1 - self.config.offline_steps) // (
      self.config.updates_per_episode
    )
    with self._stoppable():
      played = session.collectors().next(
        counters.episode,
        session.prefill + last + 1,
        self.agent.save_policy,
        counters.gradient_step,
      )
    for count in range(len(played.lost)):
      self._lose(played.lost[: count + 1])
    age = counters.gradient_step - played.step
    self.logger.add({'policy_age': age}, 'episode')
    self._add(played.episode, len(played.lost), played.seconds)

  def _lose(self, lost):
    """Says that an episode was lost, the last of several by seed and reason."""
    # First of all, since the next one may be lost, too.
    self.session.save_if_new()
    seed, problem = lost[-1]
    if len(lost) == LOST:
      raise TrainingError(
        f'{LOST} episodes in a row were lost, of the seeds '
        f'{", ".join(str(seed) for seed, _ in lost)}. Everything before them '
        f'is saved in {self.logdir / "checkpoints"}. The last one: {problem}'
      )
    warn(
      f'the episode of seed {seed} is lost, another seed takes its place. '
      f'{problem}'
    )

  def _add(self, episode, lost, seconds):
    """D = D + tau, after so many that were lost."""
    counters = self.session.counters
    metrics = episode_metrics(episode)
    self.replay.add(episode, f'{counters.episode:06d}')
    counters.episode += 1
    # Not before: a run that is continued in between loses them again.
    counters.lost_episodes += lost
    counters.agent_step += metrics['length']
    counters.env_step += metrics['length'] * self.session.driver.action_repeat
    self.monitor.after_episode(metrics, seconds)

  @contextlib.contextmanager
  def _stoppable(self):
    """Leaves the block when a signal comes; saves when environments fail."""
    try:
      yield
    except StopAsked:
      self.session.leave_if_asked(self.monitor.log)
    except (EnvError, WorkerError):
      self.session.save_if_new()
      raise

  def _give_up(self, broken, metrics):
    """Stops on a non-finite loss, which its own optimizer has not applied.

    Those before it in the step have applied theirs: all weights are finite.
    """
    self.monitor.log(self.phase)
    step = self.gradient_step
    saved = (
      f'The last good step is {step}; its checkpoint, with finite weights, is '
      f'in {self.logdir / "checkpoints"}.'
    )
    try:
      self.session.save_if_new_step()
    except CheckpointError as error:
      saved = str(error)
    values = ', '.join(f'{k} = {metrics[k]}' for k in broken)
    raise TrainingError(
      f'Not finite at gradient step {step + 1}: {values}. {saved} Try a '
      'lower learning rate, or --precision float32.'
    )
