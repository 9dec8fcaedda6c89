"""What every environment offers, and the base class that does most of it.

An environment has

  obs_space      dict of gymnasium Boxes, observations only, such as 'image'
                 uint8 [64, 64, 3] and 'state' float32 [39]
  act_space      Box(-1, 1, [A], float32)
  action_repeat  environment steps per agent step
  reset(seed)    first record of an episode; the same seed and actions give
                 the same episode, bit for bit
  step(action)   next record; action is [A], values beyond +-1 are clipped
  close()        frees processes and OpenGL contexts

A record is a dict of the observations and

  reward       float32, received with this observation; 0 at the reset
  is_first     this is the reset
  is_last      the episode ends here
  is_terminal  it ends by the task itself, not by a time limit
  success      the task was achieved so far in this episode

Observations named log_<name> are numbers for the metrics, which get the largest
one of each episode.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from moto_tf.errors import MotoError, warn

FLAGS = ('is_first', 'is_last', 'is_terminal', 'success')


class EnvError(MotoError, ValueError):
  """An environment cannot be made, or was used in a wrong way."""


class SimulationError(EnvError):
  """A simulation broke down in this episode; other episodes may go well."""


@dataclasses.dataclass(frozen=True)
class Demonstrator:
  """Scripted episodes of a task.

  Attributes:
    policy: from the seed of an episode to its policy, which maps the
      observations of each of its records to an action float32 [A], or to None
      where it has nothing more to do, which ends the episode.
    keep: whether a finished episode is a demonstration.
    noise: standard deviation of Gaussian noise on the actions, by default.
  """

  policy: Callable[[int], Callable[[dict], np.ndarray | None]]
  keep: Callable[[dict], bool]
  noise: float = 0.0


class Env:
  """Base of environments: checks actions, counts steps, builds records.

  Suites call `__init__` and implement `_reset`, `_step` and `close`.

  Attributes:
    longest: agent steps after which an episode is cut where neither a time
      limit nor the environment ends it.
  """

  longest = 10_000

  def __init__(
    self,
    obs_space: Mapping[str, Box],
    actions: int,
    action_repeat: int = 1,
    time_limit: int = 0,
  ):
    """Describes the environment.

    Args:
      obs_space: Box by key of the observations.
      actions: size A of an action.
      action_repeat: environment steps per agent step.
      time_limit: agent steps per episode; 0: `_step` alone ends episodes.
    """
    taken = sorted({'action', 'reward', *FLAGS} & set(obs_space))
    if taken:
      raise EnvError(
        f'Observations named {", ".join(taken)} clash with the keys of a '
        'record; rename them with a wrapper.'
      )
    self.obs_space = dict(obs_space)
    self.act_space = Box(-1.0, 1.0, (actions,), np.float32)
    self.action_repeat = action_repeat
    self._time_limit = time_limit
    self._running = False

  def reset(self, seed: int) -> dict:
    """Starts the episode that belongs to a seed, a whole number from 0 on."""
    seed = operator.index(seed)
    if seed < 0:
      raise EnvError(f'The seed of an episode is 0 or more, got {seed}.')
    self._running, self._steps, self._success = False, 0, False
    obs = self._reset(seed)
    self._running = True
    return self._record(obs, 0.0, is_first=True)

  def step(self, action: np.ndarray) -> dict:
    """Applies one action [A], clipped to +-1.

    Raises:
      EnvError: the action has a wrong shape or is not finite, or there is no
        running episode.
      SimulationError: an observation or the reward is not finite.
    """
    if not self._running:
      raise EnvError('There is no running episode; call reset(seed) first.')
    action = check_actions(action, self.act_space.shape)
    obs, reward, terminated, truncated, success = self._step(action)
    self._steps += 1
    self._success = self._success or bool(success)
    last = bool(terminated or truncated or self._steps == self._time_limit)
    if not last and not self._time_limit and self._steps == self.longest:
      warn(
        f'an episode was cut after {self._steps:,} agent steps, since nothing '
        'else ends it; set --env.time_limit.'
      )
      last = True
    self._running = not last
    return self._record(obs, reward, is_last=last, is_terminal=bool(terminated))

  def close(self) -> None:
    """Frees what the environment holds; may be called twice."""

  def _reset(self, seed: int) -> dict:
    """Returns the observations of a fresh episode, as new arrays."""
    raise NotImplementedError

  def _step(self, action: np.ndarray) -> tuple:
    """Returns (observations, reward, terminated, truncated, success)."""
    raise NotImplementedError

  def _record(self, obs, reward, **flags):
    values = {**obs, 'reward': np.float32(reward)}
    for key, value in values.items():
      if value.dtype != np.uint8 and not np.isfinite(value).all():
        raise SimulationError(
          f'The environment gave a value that is not finite in {key!r} at '
          f'agent step {self._steps}; its simulation broke down.'
        )
    flags['success'] = self._success
    return {**values, **{k: np.bool_(flags.get(k, False)) for k in FLAGS}}


def check_simulation(data: Any) -> None:
  """Refuses a MuJoCo simulation that became unstable since its reset.

  MuJoCo then prints a warning, resets it by itself in the middle of the
  episode, and goes on from there.

  Args:
    data: MjData.

  Raises:
    SimulationError: it was reset.
  """
  # Bad positions, velocities and accelerations, of the enum mjtWarning.
  if data.warning.number[4:7].any():
    raise SimulationError(
      'The MuJoCo simulation became unstable (nan, infinite or huge values in '
      'QPOS, QVEL or QACC) and was reset in the middle of the episode.'
    )


def check_actions(actions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns actions as float32 within [-1, 1].

  Raises:
    EnvError: the shape is not `shape`, or a value is not finite.
  """
  actions = np.asarray(actions, np.float32)
  if actions.shape != shape:
    raise EnvError(f'The action has shape {actions.shape}, expected {shape}.')
  if not np.isfinite(actions).all():
    raise EnvError(f'The action is not finite: {actions.tolist()}.')
  return np.clip(actions, -1, 1)
