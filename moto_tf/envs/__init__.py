"""Environments: the protocol they follow and the registry of suites.

Every environment offers

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

A suite is one module with `make(name, config)` and one line in `SUITES`. It
best derives from `Env`, which does all but the simulation. One with scripted
experts also has `demonstrator(name, order)`.
"""

import dataclasses
import difflib
import importlib
import operator
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from gymnasium.spaces import Box

from moto_tf.errors import MotoError

SUITES = {
  'metaworld': 'moto_tf.envs.metaworld',
  'kitchen': 'moto_tf.envs.kitchen.env',
  'gym': 'moto_tf.envs.gym',
}

FLAGS = ('is_first', 'is_last', 'is_terminal', 'success')


class EnvError(MotoError, ValueError):
  """An environment cannot be made, or was used in a wrong way."""


@dataclasses.dataclass(frozen=True)
class Demonstrator:
  """Scripted episodes of a task.

  Attributes:
    policy: from the seed of an episode to its policy, which maps the
      observations of each of its records to an action float32 [A].
    keep: whether a finished episode is a demonstration.
    noise: standard deviation of Gaussian noise on the actions, by default.
  """

  policy: Callable[[int], Callable[[dict], np.ndarray]]
  keep: Callable[[dict], bool]
  noise: float = 0.0


class Env:
  """Base of environments: checks actions, counts steps, builds records.

  Suites call `__init__` and implement `_reset`, `_step` and `close`.
  """

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
    """
    if not self._running:
      raise EnvError('There is no running episode; call reset(seed) first.')
    action = check_actions(action, self.act_space.shape)
    obs, reward, terminated, truncated, success = self._step(action)
    self._steps += 1
    self._success = self._success or bool(success)
    limit = self._steps == self._time_limit
    last = bool(terminated or truncated or limit)
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
        raise EnvError(
          f'The environment gave a value that is not finite in {key!r} at '
          f'agent step {self._steps}; its simulation broke down.'
        )
    flags['success'] = self._success
    return {**values, **{k: np.bool_(flags.get(k, False)) for k in FLAGS}}


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


def make_env(task: str, config) -> Env:
  """Makes the environment of a task.

  Args:
    task: '<suite>_<name>', such as metaworld_drawer-open or gym_Pendulum-v1.
    config: the `env` part of the configuration: image_size, action_repeat,
      time_limit, image, camera, extra_size, extra_camera, fast_render and
      hide_goal as attributes.

  Raises:
    EnvError: the suite, the task or the camera does not exist, or something
      that it needs is not installed.
  """
  module, name = _suite(task)
  return module.make(name, config)


def make_demonstrator(task: str, order: str = '') -> Demonstrator:
  """Makes the scripted expert of a task.

  Args:
    task: as for `make_env`.
    order: parts of the task in this order, such as 'kettle,microwave', for
      suites whose experts do several things; '' leaves it to them.

  Raises:
    EnvError: there is no such task or part, or nobody wrote an expert for it.
  """
  module, name = _suite(task)
  if not hasattr(module, 'demonstrator'):
    raise EnvError(f'There is no scripted expert for {task}.')
  return module.demonstrator(name, order)


def _suite(task):
  """Module and name of a task."""
  suite, _, name = task.partition('_')
  if suite not in SUITES or not name:
    raise EnvError(
      f'Task {task!r} is not <suite>_<name> with one of the suites '
      f'{", ".join(SUITES)}. Example: metaworld_drawer-open.'
    )
  return importlib.import_module(SUITES[suite]), name


def choices(name: str, names: Iterable[str]) -> str:
  """Advice for a name that is none of `names`: the nearest, and all."""
  names = sorted(names)
  near = difflib.get_close_matches(name, names, 1, 0.5)
  advice = f'Did you mean {near[0]}? ' if near else ''
  return f'{advice}There are: {", ".join(names)}.'


def rewards_are_successes(task: str) -> bool:
  """Whether a reward above 0.5 means success in a task's suite."""
  return task.partition('_')[0] == 'metaworld'


def env_maker(task: str, config):
  import functools

  return functools.partial(make_env, task, config)
