"""The arm of the kitchen's robot: poses of the hand, and joints by IK.

Inverse kinematics says how far the joints should move in a step, from where
they are measured, and the action is the one that moves them so far. The servos
are so damped that within a step they cover a fixed share of the way to their
control signal, and come to rest at its end:

  control = q + 0.16 a  =  q + change / share + qfrc_bias / kp

The last term holds the arm against gravity. Nothing is remembered from one step
to the next, so that what the arm does can be told from what is observed.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from moto_tf.envs import render

SCALE = 0.16  # Radians of control per unit of action.
INTERVAL = 0.08  # Seconds per step.
GAIN = 0.6  # Share of the way to a pose that a step aims for.
STEP, SLOW = 0.07, 0.03  # Largest and, on the way, least move per step, in m.
TURN = 0.2  # Largest turn of the hand per step, in rad.
FULL = 0.95  # Largest part of an action that moves the arm.
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
    turned: angle at which it is reached, in rad.
    steps: at most, after which the plan goes on anyway.
    wait: at least, for fingers to close.
    step: of the hand per step, in m.
    free: nothing is touched on the way.
    until: ends it early.
  """

  place: np.ndarray | Callable[[], np.ndarray] | None
  grip: float = CLOSED
  roll: float = 0.0
  pitch: float = 0.0
  yaw: float | None = 0.0
  near: float = 0.02
  turned: float = 0.4
  steps: int = 30
  wait: int = 0
  step: float = STEP
  free: bool = False
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
    rate = self._gain / model.dof_damping[:7]
    # Radians that one unit of action moves each joint in a step.
    self._speed = SCALE * (1 - np.exp(-rate * INTERVAL))
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
    self,
    joints: np.ndarray,
    place: np.ndarray | None,
    pose: Pose,
    pace: float = 1.0,
  ) -> np.ndarray:
    """Joints after one step of damped least squares towards a pose.

    Joints at a limit are frozen and the rest is solved again. The pace scales
    the largest step.
    """
    turn = TURN * pace
    if place is None:
      return joints + np.clip(GAIN * (REST_JOINTS - joints), -turn, turn)
    here, facing = self.hand(joints)
    shift, rotation = _difference(here, facing, place, pose)
    size = np.linalg.norm(shift)
    # Slower next to the place, but not so that the hand lingers there.
    size = min(max(GAIN * size, SLOW), size, pose.step)
    shift = _shorten(shift, size * pace)
    rotation = _shorten(GAIN * rotation, turn)
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

  def left(
    self, joints: np.ndarray, place: np.ndarray, pose: Pose
  ) -> tuple[float, float]:
    """How far a pose is from the hand's, in m and rad."""
    shift, rotation = _difference(*self.hand(joints), place, pose)
    if pose.yaw is None:
      rotation[2] = 0.0
    return float(np.linalg.norm(shift)), float(np.linalg.norm(rotation))

  def action(self, reference, joints, torques, grip) -> np.ndarray:
    """Action [9] that moves the joints to the reference, or towards it."""
    action = np.full(9, grip)
    part = (reference - joints) / self._speed
    # The hand keeps its direction where the way is too far.
    part *= FULL / max(FULL, np.abs(part).max())
    action[:7] = part + torques / (self._gain * SCALE)
    return np.clip(action, -1, 1).astype(np.float32)


def _difference(here, facing, place, pose):
  """Shift [3] and rotation vector [3] from the hand's pose to another."""
  goal = _facing(pose.roll, pose.pitch, pose.yaw or 0.0)
  return place - here, _rotation_vector(goal @ facing.T)


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
