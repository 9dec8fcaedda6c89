"""Scripted experts of Franka Kitchen.

An expert follows a plan, a list of poses of the hand per object, and the arm
moves its joints towards the next one.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from moto_tf.envs.base import EnvError
from moto_tf.envs.kitchen.arm import CLOSED, OPEN, REST_JOINTS, Arm, Pose
from moto_tf.envs.kitchen.tasks import in_place
from moto_tf.registry import choices

TRIES = 2  # Per object.
FAR = 2.0  # From rest, of any joint, in rad.

# What differs between episodes. The arm is slower or faster by a factor between
# two; approaches start from places with this standard deviation, in m; and
# in so many episodes the hand misses one of these places by so much at first.
PACE, ROAM = (0.82, 1.1), 0.02
MISSES, MISS = 0.25, 0.05


class Expert:
  """Solves targets in an order, for one episode; one call per step.

  Attributes:
    done: the plan is finished.
    free: the hand is on its way and touches nothing.
  """

  def __init__(self, model, order: tuple[str, ...], seed: int = 0, jitter=0.0):
    """Prepares an episode.

    Args:
      model: MjModel of the kitchen.
      order: targets, keys of PLANS.
      seed: of all that differs between episodes.
      jitter: standard deviation of the places to touch, in m.

    Raises:
      EnvError: there is no plan for a target.
    """
    for name in order:
      if name not in PLANS:
        raise EnvError(
          f'No expert solves {name!r}. {choices(name, sorted(PLANS))}'
        )
    self._arm = Arm(model)
    # Apart from what else is drawn from this seed, such as the order.
    sequence = np.random.SeedSequence(seed, spawn_key=(1,))
    self._rng = np.random.default_rng(sequence)
    self._jitter = jitter
    self._poses = self._plan(order)
    self._pose = None
    self._pace = self._rng.uniform(*PACE)
    missed = self._rng.integers(len(order)) if order else 0
    self._missed = missed if self._rng.random() < MISSES else None
    self._misses = False
    self.done = self.free = False

  def __call__(self, qpos: np.ndarray) -> np.ndarray:
    """Action [9], float32 within [-1, 1], at positions [30]."""
    self._qpos = qpos
    self._sites, torques = self._arm.see(qpos)
    joints = qpos[:7]
    if self._pose is None or not self.done and self._is_over():
      self._next()
    pose = self._pose
    there = self._arm.move(joints, self._place(), pose, self._pace)
    self._count += 1
    return self._arm.action(there, joints, torques, pose.grip)

  def _place(self):
    place = self._pose.place
    return place() if callable(place) else place

  def _is_over(self):
    pose = self._pose
    if self._count * self._pace >= pose.steps:
      return True
    if pose.until and pose.until():
      return True
    if self._count < pose.wait:
      return False
    if pose.place is None:
      return np.abs(REST_JOINTS - self._qpos[:7]).max() < pose.near
    distance, angle = self._arm.left(self._qpos[:7], self._place(), pose)
    return distance < pose.near and angle < pose.turned

  def _plan(self, order) -> Iterator[Pose]:
    for index, name in enumerate(order):
      yield from self.untangle()
      for _ in range(TRIES):
        self._misses = index == self._missed
        yield from PLANS[name](self)
        if in_place(self._qpos, (name,))[0]:
          break

  def _next(self):
    pose, self._count = next(self._poses, None), 0
    if pose is None:
      self.done = True
      pose = dataclasses.replace(self._pose, place=self.site('end_effector'))
    self._pose, self.free = pose, pose.free

  def site(self, name: str) -> np.ndarray:
    """Where a site of the model is now [3]."""
    return self._sites[name].copy()

  def at(self, *offset: float) -> np.ndarray:
    """An offset with jitter."""
    return np.array(offset) + self._jitter * self._rng.normal(size=3)

  def along(self, length: float) -> np.ndarray:
    """An offset along a vertical bar, up to so far from its middle."""
    return np.array([0, 0, self._rng.uniform(-length, length)])

  def through(self, place: np.ndarray, near=0.05, **pose) -> Iterator[Pose]:
    """About a place in free space, and once in a while beside it at first."""
    place = place + np.clip(ROAM * self._rng.normal(size=3), -MISS, MISS)
    pose = Pose(place, near=near, free=True, **pose)
    if self._misses:
      self._misses = False
      side = self._rng.choice([-MISS, MISS], 3) * [1, 0, 1] + [0, MISS, 0]
      yield dataclasses.replace(pose, place=place + side, near=near / 2)
    yield pose

  def rest(self, grip: float = CLOSED) -> Pose:
    """The joints at rest, about."""
    return Pose(None, grip, near=0.4, steps=25, free=True)

  def untangle(self) -> Iterator[Pose]:
    """Back to rest if the arm is far from it, where it might get stuck."""
    if np.abs(REST_JOINTS - self._qpos[:7]).max() > FAR:
      yield self.rest()

  def joint(self, index: int) -> float:
    """Position of a joint now."""
    return self._qpos[index]


def microwave(go: Expert) -> Iterator[Pose]:
  """Pulls the door by its bar."""
  if go.site('end_effector')[1] > 0.25:
    # The straight way hits the corner of the door or winds up the wrist.
    yield go.rest(OPEN)
  yield from _pull(
    go, 'microhandle_site', (-1.128, 0.455), -0.2, lambda: go.joint(22) < -0.66
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(0.04, -0.12, 0.0), OPEN, yaw=None, near=0.05, steps=8)


def hinge_cabinet(go: Expert) -> Iterator[Pose]:
  """Pulls the right door by its bar, then pushes it open from inside.

  Pulling ends in front of the goal, and letting go takes some of it back.
  """
  if go.site('end_effector')[2] < 2:
    # The straight way from the kettle is not free.
    yield from go.through(np.array([-0.45, 0.2, 2.3]), near=0.12, turned=2.0)
  yield from _pull(
    go, 'hinge_site2', (-0.224, 0.71), 0.3, lambda: go.joint(21) > 0.8
  )
  bar = go.site('hinge_site2')
  roughly = {'near': 0.05, 'steps': 10, 'turned': 1.0}
  yield Pose(bar + go.at(-0.14, -0.12, 0.0), **roughly)
  yield Pose(bar + go.at(-0.14, 0.0, 0.0), **roughly)
  # No further, since the bar would stand in the way to the other door's.
  yield Pose(
    bar + go.at(0.3, -0.02, 0.0),
    steps=25,
    step=0.04,
    until=lambda: go.joint(21) > 1.19,
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(-0.1, -0.15, 0.0), **roughly)


def _pull(go, site, hinge, turn, until):
  """Holds a bar and pulls it along its circle around a hinge."""
  bar = go.site(site)
  hold = bar + go.along(0.03)
  yield from go.through(hold + go.at(0, -0.15, 0), grip=OPEN)
  there = hold + go.at(0, 0.02, 0)
  yield Pose(there, OPEN, near=0.025, steps=15, step=0.05)
  yield Pose(there, CLOSED, wait=4, steps=4, near=1)

  def ahead():
    x, y, z = go.site(site) - [*hinge, 0]
    c, s = np.cos(turn), np.sin(turn)
    return np.array([*hinge, hold[2]]) + [c * x - s * y, s * x + c * y, 0]

  yield Pose(ahead, yaw=None, near=0, steps=40, until=until)
  here = go.site('end_effector')
  yield Pose(here, OPEN, yaw=None, wait=3, steps=3, near=1)


def kettle(go: Expert) -> Iterator[Pose]:
  """Pushes its body with open fingers.

  Inside the handle the hand would get wedged, and take the kettle back along.
  """
  pose = {'pitch': 0.6, 'grip': OPEN}
  body = go.site('kettle_site') - [0, 0, 0.2]
  yield from go.through(body + go.at(0, -0.2, 0.02), near=0.04, **pose)
  yield Pose(
    body + go.at(0, 0.5, 0),
    steps=40,
    step=0.035,
    until=lambda: go.joint(24) > 0.62,
    **pose,
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(0, -0.14, 0), near=0.05, steps=10, turned=2.0, **pose)


def light_switch(go: Expert) -> Iterator[Pose]:
  """Sweeps the lever to the left with the hand on edge.

  On edge and reaching past the lever, the hand meets it too high or too low,
  too; flat it would pass by at 3 cm. It enters between lever and knobs.
  """
  lever, edge = go.site('light_site'), {'roll': 1.5}
  yield from go.through(lever + go.at(0.1, -0.15, 0.035), **edge)
  yield Pose(lever + go.at(0.09, 0.03, 0.035), near=0.03, steps=15, **edge)
  yield Pose(
    lever + go.at(-0.18, 0.08, 0.035),
    steps=25,
    until=lambda: go.joint(17) < -0.6 and go.joint(18) < -0.04,
    **edge,
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(0.03, -0.2, 0), near=0.05, steps=8, turned=2.0)


def slide_cabinet(go: Expert) -> Iterator[Pose]:
  """Pushes the bar of the door to the right."""
  bar = go.site('slide_site')
  left, pose = -0.12, {}
  if go.joint(21) > 0.5:
    # The other door may stand open beside the bar: from the right, edge on.
    left, pose = -0.06, {'roll': 1.5, 'yaw': 0.2}
    yield Pose(bar + go.at(0.05, -0.42, 0), near=0.1, turned=0.8, **pose)
    yield Pose(bar + go.at(left, -0.15, 0), near=0.05, **pose)
  else:
    bar += go.along(0.04)
    yield from go.through(bar + go.at(left, -0.15, 0))
  yield Pose(bar + go.at(left, 0.01, 0), near=0.03, steps=15, **pose)
  # Pushing turns the hand back.
  yield Pose(
    bar + go.at(0.45, 0.01, 0), steps=40, until=lambda: go.joint(19) > 0.3
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(-0.04, -0.15, 0), near=0.05, steps=8, turned=1.0)


def bottom_burner(go: Expert) -> Iterator[Pose]:
  return _twist(go, 'knob2_site', lambda: go.joint(11) < -0.7)


def top_burner(go: Expert) -> Iterator[Pose]:
  return _twist(go, 'knob4_site', lambda: go.joint(15) < -0.7)


def _twist(go, site, until):
  """Holds a knob and turns it."""
  knob = go.site(site)
  there = knob + go.at(0, -0.03, 0)
  yield from go.through(knob + go.at(0, -0.15, 0), grip=OPEN, turned=0.25)
  yield Pose(there, OPEN, near=0.03, steps=12, step=0.04)
  yield Pose(there, CLOSED, wait=4, steps=4, near=1)
  yield Pose(there, roll=1.3, near=0, steps=25, until=until)
  # Not further, while the fingers still hold it.
  yield Pose(there, OPEN, roll=0.9, wait=3, steps=3, near=1)
  yield Pose(knob + go.at(0, -0.15, 0), OPEN, near=0.05, steps=10, turned=2.0)


PLANS = {
  'microwave': microwave,
  'kettle': kettle,
  'light switch': light_switch,
  'slide cabinet': slide_cabinet,
  'bottom burner': bottom_burner,
  'top burner': top_burner,
  'hinge cabinet': hinge_cabinet,
}
