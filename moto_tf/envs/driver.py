"""Rolls a policy out in environments."""

import collections
import functools
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from moto_tf.envs.base import FLAGS, EnvError, SimulationError, check_actions
from moto_tf.envs.worker import EnvWorker, WorkerError
from moto_tf.errors import MotoError

# How often a seed is tried when its worker process fails.
TRIES = 3
# Episodes lost one after the other that are no accident.
LOST = 5
# Seconds that an environment may take for a step or a reset.
TIMEOUT = 120.0


class Driver:
  """Environments stepped in parallel by one batched policy.

  Attributes:
    obs_space, act_space, action_repeat: those of the environment.
    seconds: time that the last `run` waited for environments ('env') and for
      the policy ('policy').
  """

  def __init__(
    self,
    make_env: Callable,
    count: int = 1,
    workers: str = 'process',
    timeout: float = TIMEOUT,
    check: Callable[[], None] | None = None,
  ):
    """Makes the environments.

    Args:
      make_env: makes one environment, see moto_tf.envs.
      count: number of environments, the batch size of the policy.
      workers: 'process': one worker process per environment; 'none': all in
        this process.
      timeout: seconds that a step or a reset may take in a worker process,
        which is then replaced; 0: any time.
      check: called at every step and while worker processes are waited for;
        what it raises ends the run.

    Raises:
      EnvError, or what `make_env` raises: there is no such environment.
    """
    if count < 1:
      raise EnvError(f'A driver needs 1 or more environments, got {count}.')
    if workers not in ('process', 'none'):
      raise EnvError(f"workers is 'process' or 'none', got {workers!r}.")
    self._check, self._envs = check or (lambda: None), []
    self.seconds = {'env': 0.0, 'policy': 0.0}
    try:
      for _ in range(count):
        if workers == 'process':
          self._envs.append(EnvWorker(make_env, timeout, check))
        else:
          self._envs.append(_Inline(make_env))
      self.obs_space = self._envs[0].obs_space
      self.act_space = self._envs[0].act_space
      self.action_repeat = self._envs[0].action_repeat
    except WorkerError as failure:
      self.close()
      if failure.error:
        # A wrong setting reads the same as without worker processes.
        raise failure.error from failure
      raise
    except BaseException:
      self.close()
      raise

  def run(
    self,
    policy: Callable[[dict, Any, tuple], tuple[np.ndarray, Any]],
    seeds: Iterable[int],
    on_episode: Callable[[dict], None] | None = None,
    over: Callable[[], np.ndarray] | None = None,
    on_lost: Callable[[int, str], None] | None = None,
  ) -> list[dict | None]:
    """Runs one episode per seed and returns them in the order of the seeds.

    Which environment runs a seed, and when, does not change its episode as
    long as each row of the policy depends on that row alone.

    Args:
      policy: from observations, state and lanes to actions and next state.
        Observations are arrays [N, ...] with N = `count` always, and is_first
        [N]; rows without a running episode repeat their last observation.
        The state is None at first, afterwards what the policy returned; rows
        start anew where is_first. Lanes are (seeds [N], steps [N]), the steps
        counted from 0 in each episode. Actions are [N, A].
      seeds: seeds of the episodes.
      on_episode: called with each episode when it is finished.
      over: asked after each call of the policy which rows' episodes end here,
        bool [N], without the action; the end is a cut, not a terminal state.
      on_lost: called with the seed of an episode that the environment cannot
        finish, and why; it is left out then. A run of them is raised in any
        case.

    Returns:
      Episodes: dicts of arrays [T + 1, ...]: the observations, action (which
      led into the record, 0 at first), reward and the flags. None for those
      that were lost.

    Raises:
      EnvError: the actions have a wrong shape or are not finite, or the
        environment breaks its contract.
      WorkerError: a seed failed three times in its worker process, or several
        were lost one after the other.
      Exception: what the environment raises in this process, without
        `on_lost`.
    """
    seeds = [int(s) for s in seeds]
    waiting = collections.deque(enumerate(seeds))
    episodes = [None] * len(seeds)
    self.seconds = {'env': 0.0, 'policy': 0.0}
    lanes = [_Lane(env, self.act_space.shape) for env in self._envs]
    obs = {
      k: np.zeros((len(lanes), *v.shape), v.dtype)
      for k, v in self.obs_space.items()
    }
    obs['is_first'] = np.ones(len(lanes), bool)
    actions, state, lost = None, None, 0

    def finish(lane):
      nonlocal lost
      lost = 0
      episodes[lane.index] = lane.finish(self.obs_space)
      if on_episode:
        on_episode(episodes[lane.index])

    while True:
      self._check()
      begin = time.perf_counter()
      for i, lane in enumerate(lanes):
        if lane.running:
          lane.step(actions[i])
        elif waiting:
          lane.start(*waiting.popleft())
      for i, lane in enumerate(lanes):
        if lane.running:
          try:
            record = lane.result()
          except Exception as error:
            lost += 1
            if not on_lost or _is_permanent(error):
              raise
            lane.abandon()
            problem = _describe(error)
            if lost == LOST:
              raise WorkerError(
                f'{LOST} episodes in a row were lost. The last one, of seed '
                f'{lane.seed}: {problem}',
                error,
              ) from error
            on_lost(lane.seed, problem)
            continue
          for key in obs:
            obs[key][i] = record[key]
      self.seconds['env'] += time.perf_counter() - begin
      for lane in lanes:
        if lane.running and lane.records[-1]['is_last']:
          finish(lane)
      if any(lane.running for lane in lanes):
        begin = time.perf_counter()
        places = (
          np.array([lane.seed for lane in lanes]),
          np.array([lane.steps for lane in lanes]),
        )
        copy = {k: v.copy() for k, v in obs.items()}
        actions, state = policy(copy, state, places)
        actions = self._check_actions(actions, lanes)
        self.seconds['policy'] += time.perf_counter() - begin
        for i in np.flatnonzero(over()) if over else ():
          if lanes[i].running:
            lanes[i].cut()
            finish(lanes[i])
      elif not waiting:
        return episodes

  def close(self) -> None:
    """Closes the environments and ends their processes."""
    for env in self._envs:
      env.leave()
    for env in self._envs:
      env.close()

  def _check_actions(self, actions, lanes):
    actions = np.array(actions, np.float32)
    if actions.ndim == 2 and len(actions) == len(lanes):
      # What the policy makes of a row without an episode does not matter.
      actions[[not lane.running for lane in lanes]] = 0
    return check_actions(actions, (len(lanes), *self.act_space.shape))


class _Lane:
  """An environment and the episode that it runs, if any."""

  def __init__(self, env, action_shape):
    self._env = env
    self._shape = action_shape
    self.running = False
    self.seed = self.steps = 0
    if env.busy:
      # The run before was interrupted and its record never came.
      env.restart()

  def start(self, index, seed):
    self.index, self.seed = index, seed
    self.running, self._tries = True, 0
    self._reset()

  def step(self, action):
    self._action = action
    self._env.step_async(action)

  def result(self):
    """The next record; after a failure the first one of a new try."""
    while True:
      try:
        record = self._env.result()
        break
      except WorkerError as error:
        if isinstance(error.error, MotoError):
          # It would come again, and reads the same as without processes.
          raise error.error from error
        self._tries += 1
        if self._tries == TRIES:
          raise WorkerError(
            f'Seed {self.seed} failed {TRIES} times. {error}', error.error
          ) from error
        print(
          f'{error}\nStarting the worker and the episode of seed {self.seed} '
          'again.',
          file=sys.stderr,
          flush=True,
        )
        self._env.restart()
        self._reset()
    self.steps = len(self.records)
    self.records.append({**record, 'action': self._action})
    return record

  def abandon(self):
    """Gives the episode up."""
    self.running = False
    if self._env.busy:
      self._env.restart()

  def cut(self):
    """Makes the last record so far the last one of the episode."""
    self.records[-1]['is_last'] = np.bool_(True)

  def finish(self, obs_space):
    """Ends the episode and returns it as arrays."""
    self.running = False
    return {
      k: np.stack([r[k] for r in self.records])
      for k in (*obs_space, 'action', 'reward', *FLAGS)
    }

  def _reset(self):
    self.records, self._action = [], np.zeros(self._shape, np.float32)
    self._env.reset_async(self.seed)


class _Inline:
  """An environment of this process with the calls of EnvWorker."""

  busy = False

  def __init__(self, make_env):
    self._env = make_env()
    self.obs_space = self._env.obs_space
    self.act_space = self._env.act_space
    self.action_repeat = self._env.action_repeat

  def reset_async(self, seed):
    self._call = functools.partial(self._env.reset, seed)

  def step_async(self, action):
    self._call = functools.partial(self._env.step, action)

  def result(self):
    return self._call()

  def leave(self):
    """Nobody has to be told."""

  def close(self):
    self._env.close()


def _describe(error):
  """Its message; a defect of an environment keeps its traceback."""
  if isinstance(error, MotoError):
    return str(error)
  return ''.join(traceback.format_exception(error)).rstrip()


def _is_permanent(error):
  """Whether other seeds would fail the same way."""
  own = isinstance(error, MotoError)
  return own and not isinstance(error, SimulationError | WorkerError)


def random_policy(act_space) -> Callable[[dict, Any, tuple], tuple]:
  """A policy for `Driver.run` of uniform actions, by seed and step alone."""

  def policy(obs, state, lanes):
    actions = [
      np.random.default_rng([int(s), int(t)]).uniform(-1, 1, act_space.shape)
      for s, t in zip(*lanes, strict=True)
    ]
    return np.array(actions, np.float32), state

  return policy
