"""Scripted experts of Franka Kitchen: waypoints of the hand, joints by IK.

An expert follows a plan, a list of poses of the hand per object. Inverse
kinematics moves an internal joint reference towards the next pose, and the
action is the one whose control signal is that reference:

  control = q + 0.16 a  =  q_ref + qfrc_bias / kp

The last term holds the arm against gravity. A reference of its own is needed:
steps from the measured position, which lags behind, reach only part of the way.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from moto_tf.envs import EnvError, choices, render
from moto_tf.envs.kitchen.env import in_place

SCALE = 0.16  # Radians of control per unit of action.
STEP = 0.05  # Largest move of the hand per step, in m.
TURN = 0.2  # Largest turn of the hand per step, in rad.
TRIES = 2  # Per object.
FAR = 2.0  # From rest, of any joint, in rad.
LEAD = 0.45  # The reference waits where the arm lags more, in rad.
DAMPING = 1e-3
REST = 0.05  # Pull towards the joints at rest per step, in rad.
OPEN, CLOSED = 1.0, -1.0
# Of the reset.
REST_JOINTS = np.array([0.15, -1.76, 1.84, -2.48, 0.26, 0.71, 1.6])


@dataclasses.dataclass
class Pose:
  """A pose of the hand to reach, or to stay in.

  Attributes:
    place: m, [3], or a function that returns it at every step; None: the
      joints at rest.
    grip: OPEN or CLOSED.
    roll: about the axis the hand points along, in rad, from fingers that open
      horizontally.
    pitch: of that axis below the horizontal, in rad.
    yaw: None leaves the rotation about the vertical free.
    near: distance at which it is reached, in m.
    steps: at most, after which the plan goes on anyway.
    wait: at least, for fingers to close.
    step: of the hand per step, in m.
    until: ends it early.
  """

  place: np.ndarray | Callable[[], np.ndarray] | None
  grip: float = CLOSED
  roll: float = 0.0
  pitch: float = 0.0
  yaw: float | None = 0.0
  near: float = 0.02
  steps: int = 30
  wait: int = 0
  step: float = STEP
  until: Callable[[], bool] | None = None


class Arm:
  """Inverse kinematics of the hand, in simulation data of its own."""

  def __init__(self, model):
    self._mujoco = render.load_mujoco()
    self._model, self._data = model, self._mujoco.MjData(model)
    self._site = model.site('end_effector').id
    self._range = model.jnt_range[:7].copy()
    # Limits of the environment's controller.
    self._range[3, 1] = min(self._range[3, 1], 0.0)
    self._range[5, 0] = max(self._range[5, 0], 0.0)
    self._gain = model.actuator_gainprm[:7, 0].copy()
    self._names = [model.site(i).name for i in range(model.nsite)]

  def see(self, qpos: np.ndarray) -> tuple[dict, np.ndarray]:
    """Places of all sites by name, and torques of gravity on the arm [7]."""
    model, data, mujoco = self._model, self._data, self._mujoco
    data.qpos[:] = qpos
    for update in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_comVel):
      update(model, data)
    torques = np.zeros(model.nv)
    mujoco.mj_rne(model, data, 0, torques)
    return dict(zip(self._names, data.site_xpos.copy(), strict=True)), torques[
      :7
    ]

  def hand(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place [3] and orientation [3, 3] of the hand."""
    self._data.qpos[:7] = joints
    self._mujoco.mj_kinematics(self._model, self._data)
    self._mujoco.mj_comPos(self._model, self._data)
    place = self._data.site_xpos[self._site].copy()
    return place, self._data.site_xmat[self._site].reshape(3, 3).copy()

  def move(
    self, joints: np.ndarray, place: np.ndarray | None, pose: Pose
  ) -> np.ndarray:
    """Joints after one step of damped least squares towards a pose.

    Joints at a limit are frozen and the rest is solved again.
    """
    if place is None:
      return joints + np.clip(REST_JOINTS - joints, -TURN, TURN)
    here, facing = self.hand(joints)
    shift = _shorten(place - here, pose.step)
    turn = _facing(pose.roll, pose.pitch, pose.yaw or 0.0)
    rotation = _shorten(_rotation_vector(turn @ facing.T), TURN)
    jac = np.zeros((6, self._model.nv))
    self._mujoco.mj_jacSite(
      self._model, self._data, jac[:3], jac[3:], self._site
    )
    jac, error = jac[:, :7], np.concatenate([shift, rotation])
    if pose.yaw is None:
      jac, error = jac[:5], error[:5]
    free = np.ones(7, bool)
    for _ in range(4):
      part = jac[:, free]
      square = part @ part.T + DAMPING * np.eye(len(error))
      change = np.zeros(7)
      pull = REST_JOINTS[free] - joints[free]
      pull *= REST / max(1.0, np.abs(pull).max())
      change[free] = pull + part.T @ np.linalg.solve(
        square, error - part @ pull
      )
      new = joints + change
      out = free & ((new < self._range[:, 0]) | (new > self._range[:, 1]))
      if not out.any():
        break
      free &= ~out
    return np.clip(joints + change, *self._range.T)

  def action(self, reference, joints, torques, grip) -> np.ndarray:
    """Action [9] whose control signal is the reference."""
    action = np.full(9, grip)
    action[:7] = (reference + torques / self._gain - joints) / SCALE
    return np.clip(action, -1, 1).astype(np.float32)


class Expert:
  """Solves targets in an order, for one episode; one call per step.

  Attributes:
    done: the plan is finished.
  """

  def __init__(self, model, order: tuple[str, ...], seed: int = 0, jitter=0.0):
    """Prepares an episode.

    Args:
      model: MjModel of the kitchen.
      order: targets, keys of PLANS.
      seed: of the jitter.
      jitter: standard deviation of the waypoints in m.

    Raises:
      EnvError: there is no plan for a target.
    """
    for name in order:
      if name not in PLANS:
        raise EnvError(f'No expert solves {name!r}. {choices(name, PLANS)}')
    self._arm = Arm(model)
    self._rng = np.random.default_rng(seed)
    self._jitter = jitter
    self._poses = self._plan(order)
    self._pose = self._reference = None
    self.done = False

  def __call__(self, qpos: np.ndarray) -> np.ndarray:
    """Action [9], float32 within [-1, 1], at positions [30]."""
    self._qpos = qpos
    self._sites, torques = self._arm.see(qpos)
    joints = qpos[:7]
    if self._pose is None:
      self._reference = joints.copy()
      self._next()
    elif not self.done and self._is_over():
      self._next()
    pose = self._pose
    if np.abs(self._reference - joints).max() < LEAD:
      self._reference = self._arm.move(self._reference, self._place(), pose)
    self._count += 1
    return self._arm.action(self._reference, joints, torques, pose.grip)

  def _place(self):
    place = self._pose.place
    return place() if callable(place) else place

  def _is_over(self):
    pose = self._pose
    if pose.place is None:
      distance = np.abs(REST_JOINTS - self._qpos[:7]).max()
    else:
      distance = np.linalg.norm(self.site('end_effector') - self._place())
    reached = distance < pose.near and self._count >= pose.wait
    return (
      reached or self._count >= pose.steps or bool(pose.until and pose.until())
    )

  def _plan(self, order) -> Iterator[Pose]:
    for name in order:
      yield from self.untangle()
      for _ in range(TRIES):
        yield from PLANS[name](self)
        if in_place(self._qpos, (name,))[0]:
          break

  def _next(self):
    pose, self._count = next(self._poses, None), 0
    if pose is None:
      self.done = True
      pose = dataclasses.replace(self._pose, place=self.site('end_effector'))
    self._pose = pose

  def site(self, name: str) -> np.ndarray:
    """Where a site of the model is now [3]."""
    return self._sites[name].copy()

  def at(self, *offset: float) -> np.ndarray:
    """An offset with jitter."""
    return np.array(offset) + self._jitter * self._rng.normal(size=3)

  def rest(self, grip: float = CLOSED) -> Pose:
    """The joints at rest, about."""
    return Pose(None, grip, near=0.4, steps=25)

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
    go, 'microhandle_site', (-1.128, 0.455), -0.13, lambda: go.joint(22) < -0.7
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(0.04, -0.1, 0.0), OPEN, yaw=None, near=0.04, steps=8)


def hinge_cabinet(go: Expert) -> Iterator[Pose]:
  """Pulls the right door by its bar, then pushes it open from inside.

  Pulling ends in front of the goal, and letting go takes some of it back.
  """
  yield from _pull(
    go, 'hinge_site2', (-0.224, 0.71), 0.2, lambda: go.joint(21) > 1.05
  )
  bar = go.site('hinge_site2')
  roughly = {'near': 0.05, 'steps': 10}
  yield Pose(bar + go.at(-0.16, -0.15, 0.0), **roughly)
  yield Pose(bar + go.at(-0.16, 0.0, 0.0), **roughly)
  yield Pose(
    bar + go.at(0.15, 0.0, 0.0),
    steps=20,
    step=0.02,
    until=lambda: go.joint(21) > 1.2,
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(-0.2, -0.1, 0.0), **roughly)


def _pull(go, site, hinge, turn, until):
  """Holds a bar and pulls it along its circle around a hinge."""
  bar = go.site(site)
  yield Pose(bar + go.at(0, -0.17, 0), OPEN, steps=30)
  yield Pose(bar + go.at(0, 0.01, 0), OPEN, steps=15, step=0.03)
  yield Pose(bar + go.at(0, 0.01, 0), CLOSED, wait=5, steps=5, near=1)

  def ahead():
    x, y, z = go.site(site) - [*hinge, 0]
    c, s = np.cos(turn), np.sin(turn)
    return np.array([*hinge, bar[2]]) + [c * x - s * y, s * x + c * y, 0]

  yield Pose(ahead, yaw=None, near=0, steps=40, until=until)
  here = go.site('end_effector')
  yield Pose(here, OPEN, yaw=None, wait=4, steps=4, near=1)


def kettle(go: Expert) -> Iterator[Pose]:
  """Reaches through the handle and pushes its two bars with the palm."""
  tilt = {'pitch': 0.35}
  handle = go.site('kettle_site') - [0, 0, 0.09]
  yield Pose(handle + go.at(0, -0.16, 0.05), **tilt)
  yield Pose(handle + go.at(0, 0, 0), steps=15, step=0.03, **tilt)
  yield Pose(
    handle + go.at(0.03, 0.5, 0),
    steps=35,
    step=0.02,
    until=lambda: go.joint(24) > 0.68,
    **tilt,
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(0, -0.2, 0), near=0.04, steps=10, **tilt)


def light_switch(go: Expert) -> Iterator[Pose]:
  """Pushes the lever to the left."""
  lever = go.site('light_site')
  yield Pose(lever + go.at(0.09, -0.15, 0))
  yield Pose(lever + go.at(0.09, 0, 0), steps=15, step=0.03)
  yield Pose(
    lever + go.at(-0.12, 0, 0),
    steps=25,
    until=lambda: go.joint(17) < -0.6 and go.joint(18) < -0.04,
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(0.03, -0.15, 0), near=0.05, steps=8)


def slide_cabinet(go: Expert) -> Iterator[Pose]:
  """Pushes the bar of the door to the right."""
  bar = go.site('slide_site')
  left, roll = -0.12, {}
  if go.joint(21) > 0.5:
    # The other door may stand open beside the bar: from the right, edge on.
    left, roll = -0.06, {'roll': 1.5}
    yield Pose(bar + go.at(-0.2, -0.5, 0), near=0.1)
    yield Pose(bar + go.at(0.1, -0.4, 0), near=0.05, **roll)
  yield Pose(bar + go.at(left, -0.15, 0), **roll)
  yield Pose(bar + go.at(left, -0.02, 0), steps=15, **roll)
  # Pushing turns the hand back.
  yield Pose(
    bar + go.at(0.4, -0.02, 0), steps=40, until=lambda: go.joint(19) > 0.35
  )
  here = go.site('end_effector')
  yield Pose(here + go.at(-0.04, -0.15, 0), near=0.05, steps=8)


def bottom_burner(go: Expert) -> Iterator[Pose]:
  return _twist(go, 'knob2_site', lambda: go.joint(11) < -0.85)


def top_burner(go: Expert) -> Iterator[Pose]:
  return _twist(go, 'knob4_site', lambda: go.joint(15) < -0.85)


def _twist(go, site, until):
  """Holds a knob and turns it."""
  knob = go.site(site)
  there = knob + go.at(0, -0.03, 0)
  yield Pose(knob + go.at(0, -0.15, 0), OPEN)
  yield Pose(there, OPEN, near=0.015, steps=20, step=0.02)
  yield Pose(there, CLOSED, wait=5, steps=5, near=1)
  yield Pose(there, roll=1.2, near=0, steps=25, until=until)
  yield Pose(there, OPEN, roll=1.2, wait=4, steps=4, near=1)
  yield Pose(knob + go.at(0, -0.15, 0), OPEN, near=0.05, steps=10)


PLANS = {
  'microwave': microwave,
  'kettle': kettle,
  'light switch': light_switch,
  'slide cabinet': slide_cabinet,
  'bottom burner': bottom_burner,
  'top burner': top_burner,
  'hinge cabinet': hinge_cabinet,
}


def _facing(roll, pitch, yaw):
  """Orientation [3, 3] of a hand that points along y at yaw and roll 0.

  Columns: its x up, its y (along which the fingers open) to the right, its z
  away from the robot.
  """
  home = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
  c, s = np.cos(roll), np.sin(roll)
  about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
  c, s = np.cos(yaw), np.sin(yaw)
  about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
  c, s = np.cos(pitch), np.sin(pitch)
  about_x = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
  return about_z @ about_x @ about_y @ home


def _rotation_vector(matrix):
  """Axis times angle of a rotation matrix, below half a turn."""
  axis = np.array(
    [
      matrix[2, 1] - matrix[1, 2],
      matrix[0, 2] - matrix[2, 0],
      matrix[1, 0] - matrix[0, 1],
    ]
  )
  sine, cosine = np.linalg.norm(axis) / 2, (np.trace(matrix) - 1) / 2
  if sine < 1e-9:
    return np.zeros(3)
  return axis / (2 * sine) * np.arctan2(sine, cosine)


def _shorten(vector, length):
  """The vector, at most so long."""
  size = np.linalg.norm(vector)
  return vector if size <= length else vector * (length / size)
