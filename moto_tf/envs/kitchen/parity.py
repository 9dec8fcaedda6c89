"""Compares our kitchen with the one of the original d4rl package.

  .venv-d4rl/bin/python -m moto_tf.envs.kitchen.parity --out parity.png

It runs from a checkout in an environment of its own, see requirements-d4rl.txt,
so both sides have its MuJoCo. Both start in the same state, get the same
actions, and have the noise of their sensors switched off, which differs (D4RL's
is ten times as large) and reaches the controller. Reported are

  targets   of the tasks, whose names differ
  states    after one step from the same state, and of two simulations that run
            on by themselves; also without the pedestal of the robot, which
            collides with the arm in FrankaKitchen-v1 only
  rewards   of the same states, and of each side's own
  images    of the same state, ours fast and with shadows
"""

import argparse
import collections.abc
import contextlib
import os
import pathlib
import sys
import types
import warnings
from collections.abc import Callable

import numpy as np

from moto_tf import files, images
from moto_tf.envs import render
from moto_tf.envs.kitchen import demonstrations, env, tasks
from moto_tf.envs.kitchen.expert import Expert
from moto_tf.errors import explain_errors

# Ours and theirs; the paper's names are D4RL's the other way round.
NAMES = {
  'kitchen_mixed': 'kitchen-partial-v0',
  'kitchen_partial': 'kitchen-mixed-v0',
  'kitchen_complete': 'kitchen-complete-v0',
}
ORDERS = (
  ('microwave', 'kettle', 'light switch', 'slide cabinet'),
  ('microwave', 'kettle', 'bottom burner', 'light switch'),
)
HORIZONS = (10, 50, 100, 250)
# Radius and half of the height of the cylinder that the robot stands on, in m.
PEDESTAL = (0.12, 0.9, 0.0)


class Ours:
  """FrankaKitchen-v1 as in moto_tf.envs.kitchen.env, without noise."""

  def __init__(self, targets: tuple[str, ...], pedestal: bool = True):
    self._targets = targets
    self._env = env.make_simulation(targets)
    self.model, self.data = self._env.model, self._env.data
    if not pedestal:
      found = (self.model.geom_size == PEDESTAL).all(-1)
      assert found.sum() == 1
      self.model.geom_contype[found] = self.model.geom_conaffinity[found] = 0
    self._env.robot_env.robot_noise_ratio = 0.0
    self._env.object_noise_ratio = 0.0
    self._env.reset(seed=0)

  def set(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
    robot = self._env.robot_env
    robot.set_state(qpos, qvel)
    # The controller starts from the last observation.
    robot._get_obs()

  def step(self, action: np.ndarray) -> None:
    self._env.step(action)

  @property
  def qpos(self) -> np.ndarray:
    return self.data.qpos.copy()

  @property
  def reward(self) -> int:
    return int(tasks.in_place(self.data.qpos, self._targets).sum())


class Theirs:
  """An environment of d4rl with the reward of its datasets, without noise."""

  def __init__(self, name: str):
    import gym

    with contextlib.redirect_stdout(sys.stderr):
      self._env = gym.make(name).unwrapped
    self._env.REMOVE_TASKS_WHEN_COMPLETE = False
    self._env.TERMINATE_ON_TASK_COMPLETE = False
    self._env.robot_noise_ratio = 0.0
    self._env.reset()
    self.targets = tuple(self._env.TASK_ELEMENTS)
    self.data, self.reward = self._env.sim.data, 0

  def set(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
    self.data.qpos[:], self.data.qvel[:] = qpos, qvel
    self._env.sim.forward()
    self._env._get_obs()

  def step(self, action: np.ndarray) -> None:
    _, reward, _, _ = self._env.step(action)
    self.reward = int(reward)

  @property
  def qpos(self) -> np.ndarray:
    return self.data.qpos.copy()

  @property
  def qvel(self) -> np.ndarray:
    return self.data.qvel.copy()

  def render(self, size: int) -> np.ndarray:
    """Image as the public code that renders D4RL's states makes it."""
    from dm_control.mujoco import engine

    view = env.VIEWS['default']
    camera = engine.MovableCamera(self._env.sim, size, size)
    camera.set_pose(view.lookat, view.distance, view.azimuth, view.elevation)
    return camera.render()


def load_d4rl() -> None:
  """Imports d4rl, which registers its environments.

  Raises:
    SystemExit: it is not installed.
  """
  # Of the parts that need other simulators.
  os.environ['D4RL_SUPPRESS_IMPORT_ERROR'] = '1'
  warnings.simplefilter('ignore')
  # It predates Python 3.10.
  collections.Mapping = collections.abc.Mapping
  try:
    import d4rl  # noqa: F401
  except ImportError as error:
    sys.exit(
      f'Error: d4rl cannot be imported ({error}). Make the environment that '
      'requirements-d4rl.txt describes, and run this with its Python.'
    )


def expert(ours: Ours, order: tuple[str, ...], seed: int) -> Callable:
  """Policy of the scripted expert for our simulation."""
  policy = Expert(ours.model, order, seed, demonstrations.JITTER)
  rng = np.random.default_rng(seed)
  return lambda: np.clip(
    policy(ours.data.qpos) + demonstrations.NOISE * rng.standard_normal(9),
    -1,
    1,
  )


def random(seed: int) -> Callable:
  """Policy of uniform actions."""
  rng = np.random.default_rng(seed)
  return lambda: rng.uniform(-1, 1, 9)


def run(ours: Ours, theirs: Theirs, policy: Callable) -> types.SimpleNamespace:
  """Both run on by themselves with the actions of a policy of ours."""
  start = theirs.qpos, theirs.qvel
  ours.set(*start)
  found = types.SimpleNamespace(a=[], b=[], rewards=[], states=[start])
  for _ in range(max(HORIZONS)):
    action = policy()
    ours.step(action)
    theirs.step(action)
    found.a.append(ours.qpos)
    found.b.append(theirs.qpos)
    found.rewards.append((ours.reward, theirs.reward))
    found.states.append((theirs.qpos, theirs.qvel, action))
  return found


def single_steps(ours: Ours, theirs: Theirs, states: list) -> np.ndarray:
  """Differences [N, 30] after one step from the states of a run of theirs."""
  found = []
  for (qpos, qvel, *_), (*_, action) in zip(states, states[1:]):
    for side in (ours, theirs):
      side.set(qpos, qvel)
      side.step(action)
    found.append(ours.qpos - theirs.qpos)
  return np.array(found)


def describe(name: str, difference: np.ndarray) -> str:
  """Largest difference of robot, objects and kettle."""
  parts = (slice(0, 9), slice(9, 23), slice(23, 30))
  largest = [np.abs(difference[..., x]).max() for x in parts]
  text = ''.join(f'{x:>12.2g}' for x in largest)
  return f'{name:<38}{text}'


def compare_images(theirs: Theirs, states: list, size: int) -> list:
  """Rows of images of the same states: theirs, ours fast, ours with shadows."""
  rows = [[], [], []]
  for qpos, qvel, *_ in states:
    theirs.set(qpos, qvel)
    rows[0].append(theirs.render(size))
  for row, fast in ((rows[1], True), (rows[2], False)):
    model = env.make_simulation(ORDERS[0]).model
    painter = env.Painter(model, size, 'default', fast)
    row += [painter(qpos) for qpos, *_ in states]
    painter.close()
  return [np.stack(row) for row in rows]


def report_targets(sides: dict) -> None:
  """Prints whether the tasks of ours and theirs have the same targets."""
  print('Targets')
  for name, theirs in sides.items():
    same = set(theirs.targets) == set(tasks.find_targets(name))
    equal = 'the same' if same else f'DIFFERENT: {theirs.targets}'
    print(f'  {name:<18}{NAMES[name]:<22}{equal}')


def report_run(name: str, order: tuple[str, ...], kind: str) -> tuple:
  """Prints differences of states and returns for one way to act.

  Returns:
    Whether theirs rewards equal ours of the same states, bool [N]; the states.
  """
  targets = tasks.find_targets(name)
  ours = Ours(targets, 'no pedestal' not in kind)
  theirs = Theirs(NAMES[name])
  policy = expert(ours, order, 0) if kind == 'expert' else random(0)
  found = run(ours, theirs, policy)
  print(f'  {name}, actions: {kind}')
  steps = single_steps(ours, theirs, found.states)
  print(f'    {describe("one step", steps)}')
  gap = np.array(found.a) - np.array(found.b)
  for horizon in HORIZONS:
    label = f'own simulations, {horizon} steps'
    print(f'    {describe(label, gap[:horizon])}')
  rewards = np.array(found.rewards)
  print(
    f'    returns, ours {rewards[:, 0].sum()} and theirs '
    f'{rewards[:, 1].sum()}; at the end {rewards[-1, 0]} and '
    f'{rewards[-1, 1]} targets in place'
  )
  again = tasks.in_place(np.array(found.b), targets).sum(-1)
  return again == rewards[:, 1], found.states


def report_images(theirs: Theirs, states: list, size: int) -> list:
  """Prints differences of images of the same states; returns their rows."""
  rows = compare_images(theirs, states, size)
  print(f'\nImages of {len(states)} states, mean absolute difference of 255')
  for label, row in zip(('fast', 'with shadows'), rows[1:]):
    gap = np.abs(row.astype(int) - rows[0]).mean((1, 2, 3))
    print(
      f'  ours {label:<14}{gap.mean():.2f}, at most {gap.max():.2f} in one '
      'image'
    )
  return rows


def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--out', type=pathlib.Path, help='PNG of the images side by side')
  add('--size', type=int, default=64, help='of the images in pixels (64)')
  args = parser.parse_args(argv)
  render.use_headless()
  load_d4rl()
  sides = {name: Theirs(other) for name, other in NAMES.items()}
  report_targets(sides)
  head = ''.join(f'{x:>12}' for x in ('robot', 'objects', 'kettle'))
  print(f'\nLargest difference of positions, rad and m\n{"":<40}{head}')
  start = Ours(ORDERS[0]).qpos - sides['kitchen_mixed'].qpos
  print(f'  {describe("at the reset", start)}')
  equal, states = [], []
  for name, order in zip(('kitchen_mixed', 'kitchen_partial'), ORDERS):
    for kind in ('random', 'random, no pedestal', 'expert'):
      same, found = report_run(name, order, kind)
      equal.extend(same)
      if kind == 'expert':
        states += found[1::25]
  print(f'\nRewards of the same states: {sum(equal)} of {len(equal)} equal')
  rows = report_images(sides['kitchen_mixed'], states, args.size)
  if args.out:
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    files.write_atomic(args.out, images.encode_png(images.upscale(sheet, 2)))
    print(f'Wrote {args.out}: theirs, ours fast, ours with shadows.')


if __name__ == '__main__':
  with explain_errors():
    main()
