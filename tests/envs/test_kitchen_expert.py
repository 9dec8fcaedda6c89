"""Scripted experts of Franka Kitchen: kinematics, objects, sequences."""

import numpy as np
import pytest
from env_helpers import settings

from moto_tf.envs import EnvError
from moto_tf.envs.kitchen import env as kitchen
from moto_tf.envs.kitchen.arm import Arm, Pose, _rotation_vector
from moto_tf.envs.kitchen.expert import PLANS, Expert
from moto_tf.envs.kitchen.tasks import in_place

SEQUENCES = {
  'mixed': ('microwave', 'kettle', 'light switch', 'slide cabinet'),
  'partial': ('light switch', 'bottom burner', 'microwave', 'kettle'),
}


@pytest.fixture(scope='module')
def env():
  made = kitchen.make('mixed', settings(action_repeat=1, time_limit=280))
  yield made
  made.close()


def solve(env, order, seed, noise=0.1):
  """Which targets were ever in place, and the actions before their noise."""
  expert = Expert(env.model, order, seed, jitter=0.005)
  rng = np.random.default_rng(seed)
  record, actions = env.reset(seed), []
  ever = np.zeros(len(order), bool)
  while not (record['is_last'] or expert.done):
    actions.append(expert(record['qpos']))
    record = env.step(actions[-1] + noise * rng.normal(size=9))
    ever |= in_place(record['qpos'], order)
  return ever, np.array(actions)


def test_kinematics_reach_a_pose(env):
  arm = Arm(env.model)
  joints = env.reset(0)['qpos'][:7]
  place = np.array([-0.3, 0.4, 2.1])
  pose = Pose(place, roll=0.6, pitch=0.3, yaw=-0.4)
  for _ in range(60):
    joints = arm.move(joints, place, pose)
  here, facing = arm.hand(joints)
  np.testing.assert_allclose(here, place, atol=2e-3)
  # Along its z the hand points to y, then down by the pitch, then by the yaw
  # about the vertical.
  c, s = np.cos(-0.4), np.sin(-0.4)
  ahead = [-s * np.cos(0.3), c * np.cos(0.3), -np.sin(0.3)]
  np.testing.assert_allclose(facing[:, 2], ahead, atol=2e-2)
  np.testing.assert_allclose(np.linalg.det(facing), 1, atol=1e-6)
  low, high = env.model.jnt_range[:7].T
  assert (joints >= low).all() and (joints <= high).all()


def test_rotation_vectors():
  rng = np.random.default_rng(0)
  for _ in range(20):
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = rng.uniform(0, 3)
    cross = np.cross(np.eye(3), axis)
    # Rodrigues' formula.
    matrix = (
      np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    )
    found = _rotation_vector(matrix)
    np.testing.assert_allclose(found, angle * axis, atol=1e-6)


@pytest.mark.parametrize('target', PLANS)
def test_every_object(env, target):
  ever, actions = solve(env, (target,), 0)
  assert ever.all()
  assert actions.dtype == np.float32 and np.abs(actions).max() <= 1


@pytest.mark.parametrize('name', SEQUENCES)
def test_all_four(env, name):
  ever, _ = solve(env, SEQUENCES[name], 1)
  assert ever.all()


@pytest.mark.parametrize(
  'order',
  [
    ('hinge cabinet', 'slide cabinet'),
    ('hinge cabinet', 'top burner'),
    ('kettle', 'microwave'),
  ],
)
def test_objects_in_the_way_of_the_next(env, order):
  ever, actions = solve(env, order, 2)
  # Two tries at both would take longer.
  assert ever.all() and len(actions) < 200


def test_an_episode_depends_on_its_seed_alone(env):
  _, first = solve(env, ('light switch',), 3)
  solve(env, ('light switch',), 4)
  _, again = solve(env, ('light switch',), 3)
  np.testing.assert_array_equal(first, again)


def test_unknown_target(env):
  with pytest.raises(EnvError, match="No expert solves 'ketle'. Did you mean"):
    Expert(env.model, ('ketle',))
