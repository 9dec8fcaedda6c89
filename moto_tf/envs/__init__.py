"""Environments: the registry of suites, and how their tasks are made.

A task is '<suite>_<name>', such as metaworld_drawer-open. What an environment
offers is in `moto_tf.envs.base`. A suite is one file with a function
`make(name, config)`, best of a class that derives from `Env`, and one call of
`register_suite`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from moto_tf.envs.base import (
  FLAGS,
  Demonstrator,
  Env,
  EnvError,
  SimulationError,
  check_actions,
)
from moto_tf.registry import Registry, RegistryError, resolve

__all__ = [
  'FLAGS',
  'SUITES',
  'Demonstrator',
  'Env',
  'EnvError',
  'SimulationError',
  'Suite',
  'check_actions',
  'env_maker',
  'find_suite',
  'full_task',
  'make_demonstrator',
  'make_env',
  'register_suite',
  'rewards_are_successes',
  'suite_of',
]


@dataclasses.dataclass(frozen=True)
class Suite:
  """A suite of tasks. Functions may be given as 'module:attribute'.

  Attributes:
    make: from the name of a task, without its suite, and the `env` part of a
      Config to an Env.
    demonstrator: from the name of a task and an order of its parts, '' for
      none, to a Demonstrator. None: there are no scripted experts.
    binary_reward: a reward above 0.5 means success.
    all_tasks: names, without the suite, that `collect --task all` records; a
      tuple.
    measure: from an episode to more numbers or arrays of it, by name, which
      `dataset info` collects; {} where it lacks what is measured.
    compare: from {task: data.inspect.Info} to a text that shows the numbers of
      datasets, beside those of a paper for example.
    preset: settings of the preset of the suite's name, by dotted key; with
      `task`. Suites of configs.yaml have theirs there.
    action: what an action means, in units, for the card of an exported policy.
    step_seconds: time between two environment steps, for datasets of others;
      0: unknown.
    formats: a dict of the Formats of public data that come with the suite,
      see `moto_tf.data.importers`.
  """

  make: str | Callable
  demonstrator: str | Callable | None = None
  binary_reward: bool = False
  all_tasks: str | tuple[str, ...] = ()
  measure: str | Callable | None = None
  compare: str | Callable | None = None
  preset: Mapping[str, Any] | None = None
  action: str = ''
  step_seconds: float = 0.0
  formats: str | None = None


SUITES = Registry(
  'suite',
  {
    'metaworld': Suite(
      make='moto_tf.envs.metaworld:make',
      demonstrator='moto_tf.envs.metaworld:demonstrator',
      binary_reward=True,
      all_tasks='moto_tf.envs.metaworld:TASKS',
      compare='moto_tf.envs.metaworld:compare',
      action='displacement of the gripper along x, y and z, 1 being 1 cm in '
      'each environment step of 12.5 ms, and the effort that closes it '
      '(negative: opens)',
      step_seconds=0.0125,
    ),
    'kitchen': Suite(
      make='moto_tf.envs.kitchen.env:make',
      demonstrator='moto_tf.envs.kitchen.demonstrations:demonstrator',
      measure='moto_tf.envs.kitchen.tasks:measure',
      compare='moto_tf.envs.kitchen.table:compare',
      action='velocities of the seven joints of the arm and of both fingers, '
      '1 being 2 rad/s (fingers: 2 m/s, within their limits), in environment '
      'steps of 80 ms',
      step_seconds=0.08,
      formats='moto_tf.envs.kitchen.formats:FORMATS',
    ),
    'gym': Suite(make='moto_tf.envs.gym:make'),
  },
)

# The suite of tasks that are named without one on a command line.
DEFAULT = 'metaworld'


def register_suite(
  name: str,
  make: str | Callable,
  *,
  demonstrator: str | Callable | None = None,
  binary_reward: bool = False,
  all_tasks: tuple[str, ...] = (),
  measure: str | Callable | None = None,
  compare: str | Callable | None = None,
  preset: Mapping[str, Any] | None = None,
  action: str = '',
  step_seconds: float = 0.0,
) -> Suite:
  """Adds a suite of one's own; its tasks are then '<name>_<task>'.

  Args:
    name: lower-case letters and digits.
    make, demonstrator, binary_reward, all_tasks, measure, compare, preset,
      action, step_seconds: see `Suite`.

  Raises:
    RegistryError: the name is taken, or is none.
  """
  if not re.fullmatch('[a-z][a-z0-9]*', name):
    raise RegistryError(
      f'{name!r} cannot name a suite; use lower-case letters and digits, '
      'since a task is <suite>_<name>.'
    )
  suite = Suite(
    make,
    demonstrator,
    binary_reward,
    tuple(all_tasks),
    measure,
    compare,
    preset,
    action,
    step_seconds,
  )
  return SUITES.register(name, suite)


def make_env(task: str, config: Any) -> Env:
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
  return env_maker(task, config)()


def env_maker(task: str, config: Any) -> Callable[[], Env]:
  """A function without arguments that makes the environment of a task.

  It holds the entry of the suite. So a worker process, which gets it by
  cloudpickle, makes environments of suites that only this process knows.

  Raises:
    EnvError: there is no such suite. What `make_env` raises else, the
      function does.
  """
  suite, name = find_suite(task)
  return functools.partial(_make, suite, name, config)


def _make(suite, name, config):
  return resolve(suite.make)(name, config)


def make_demonstrator(task: str, order: str = '') -> Demonstrator:
  """Makes the scripted expert of a task.

  Args:
    task: as for `make_env`.
    order: parts of the task in this order, such as 'kettle,microwave', for
      suites whose experts do several things; '' leaves it to them.

  Raises:
    EnvError: there is no such task or part, or nobody wrote an expert for it.
  """
  suite, name = find_suite(task)
  if suite.demonstrator is None:
    raise EnvError(f'There is no scripted expert for {task}.')
  return resolve(suite.demonstrator)(name, order)


def find_suite(task: str) -> tuple[Suite, str]:
  """Entry of the suite of a task, and the name of the task within it.

  Raises:
    EnvError: the task is not '<suite>_<name>' with a registered suite.
  """
  suite, _, name = task.partition('_')
  if suite not in SUITES or not name:
    raise EnvError(
      f'Task {task!r} is not <suite>_<name> with one of the suites '
      f'{", ".join(SUITES)}. Example: metaworld_drawer-open. Suites of your '
      'own code are registered by --plugins FILE.'
    )
  return SUITES[suite], name


def suite_of(task: str) -> Suite | None:
  """Entry of the suite of a task, None if no such suite is registered."""
  suite = task.partition('_')[0]
  return SUITES[suite] if suite in SUITES else None


def rewards_are_successes(task: str) -> bool:
  """Whether a reward above 0.5 means success in a task's suite."""
  suite = suite_of(task)
  return bool(suite and suite.binary_reward)


def full_task(task: str) -> str:
  """Name of a task with its suite: Meta-World's, without version, if none."""
  if '_' in task:
    return task
  return f'{DEFAULT}_{re.sub("-v[23]$", "", task)}'
