"""Scripted experts of Franka Kitchen: kinematics, objects, sequences."""

import numpy as np
import pytest
from env_helpers import settings

from moto_tf.data import episodes, record
from moto_tf.envs import EnvError
from moto_tf.envs.kitchen import env as kitchen
from moto_tf.envs.kitchen.arm import Arm, Pose, _rotation_vector
from moto_tf.envs.kitchen.demonstrations import (
  JITTER,
  Kicks,
  demonstrator,
  draw_order,
)
from moto_tf.envs.kitchen.expert import PLANS, Expert
from moto_tf.envs.kitchen.tasks import in_place
from moto_tf.presets import make_config

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


def test_episodes_differ(env):
  """In pace and in places, as those of people do."""
  found = [solve(env, ('light switch',), seed, noise=0) for seed in range(6)]
  assert all(ever.all() for ever, _ in found)
  assert len({len(actions) for _, actions in found}) > 2
  starts = np.array([actions[:10] for _, actions in found])
  assert starts[..., :7].std(0).mean() > 0.03


def test_actions_depend_on_what_is_measured(env):
  """Nothing is remembered that the arm lags behind, or leads."""
  arm = Arm(env.model)
  joints = env.reset(0)['qpos'][:7].astype(float)
  for seed in range(3):
    rng = np.random.default_rng(seed)
    start = joints + rng.uniform(-0.1, 0.1, 7)
    # Away from the limits of two joints.
    start[[1, 5]] = joints[[1, 5]] + 0.3
    env.data.qpos[:7], env.data.qvel[:7] = start, 0
    # The controller starts from the last observation.
    env._env.robot_env._get_obs()
    _, torques = arm.see(env.data.qpos)
    change = rng.uniform(-0.05, 0.05, 7)
    env.step(arm.action(start + change, start, torques, 1.0))
    np.testing.assert_allclose(env.data.qpos[:7] - start, change, atol=1e-2)


def test_recorded_episodes_end_with_their_plan(tmp_path):
  """A cut and no terminal state; a recording goes on where it stopped.

  Where an expert needs its second tries, time may end an episode before.
  """
  names, ended = [], 0
  for outdir, counts in (('a', [3]), ('b', [1, 3])):
    config = make_config('kitchen', 'proprio')
    recipe = record.Recording(config.task, config.env)
    for count in counts:
      record.collect(recipe, tmp_path / outdir, count, workers=1)
    names.append([p.name for p in episodes.find_episodes(tmp_path / outdir)])
  assert names[0] == names[1] and len(names[0]) == 3
  for index, name in enumerate(names[0]):
    first, second = (episodes.load_episode(tmp_path / x / name) for x in 'ab')
    for key, value in first.items():
      np.testing.assert_array_equal(value, second[key], key)
    steps = len(first['action']) - 1
    assert 100 < steps <= 280
    assert first['is_last'].tolist() == [False] * steps + [True]
    assert not first['is_terminal'].any()
    if steps == 280:
      continue
    ended += 1
    order = draw_order('mixed', record._seed(0, index))
    placed = in_place(first['qpos'], order)
    assert placed.any(0).all()
    # What comes after the last object is short.
    assert steps - placed.argmax(0).max() < 40
  assert ended >= 2


def kicked(kicks, steps, free=lambda step: True):
  """Actions [steps, 9] of an arm that is still, its fingers at 0.7."""
  still = np.float32([0] * 7 + [0.7] * 2)
  found = [kicks(still, free(step)) for step in range(steps)]
  assert still.tolist() == np.float32([0] * 7 + [0.7] * 2).tolist()
  return np.array(found)


def test_kicks_are_short_and_rare():
  """One begins at a fifteenth of the steps at which there is none."""
  actions = kicked(Kicks(0), 3000)
  assert (actions[:, 7:] == np.float32(0.7)).all()
  arm = actions[:, :7]
  hit = arm.any(1)
  # The first of the two steps of each; another one may follow at once.
  begins, step = [], 0
  while step < 3000:
    if hit[step]:
      begins.append(step)
      np.testing.assert_array_equal(arm[step : step + 2], arm[[step, step]])
    step += 1 + hit[step]
  pushes = arm[begins]
  assert hit.sum() == 2 * len(begins) == 2 * len(np.unique(pushes, axis=0))
  share = len(begins) / (len(begins) + (~hit).sum())
  assert share == pytest.approx(1 / 15, abs=0.015)
  # A normal distribution of deviation 0.8, cut at 1: half are within 0.54, and
  # a fifth are cut.
  assert np.median(np.abs(pushes)) == pytest.approx(0.54, abs=0.05)
  assert np.abs(pushes).max() == 1
  assert np.mean(np.abs(pushes) == 1) == pytest.approx(0.21, abs=0.04)
  assert not np.array_equal(kicked(Kicks(1), 300), actions[:300])
  np.testing.assert_array_equal(kicked(Kicks(0), 300), actions[:300])


def test_no_kick_while_the_hand_is_at_something():
  """One that has begun ends there, and does not go on afterwards."""
  always = kicked(Kicks(0), 200)[:, :7].any(1)
  begin = int(np.argmax(always))
  at_first = lambda step: step <= begin
  found = kicked(Kicks(0), begin + 2, at_first)[:, :7].any(1)
  assert np.flatnonzero(found).tolist() == [begin]
  # Nor is there another one until the arm is free again.
  found = kicked(Kicks(0), 600, lambda step: not 100 <= step < 500)[:, :7]
  assert not found[100:500].any()
  assert found[:100].any() and found[500:].any()
  resumed = kicked(Kicks(0), begin + 3, lambda step: step != begin + 1)[:, :7]
  assert not resumed[begin + 1].any()
  assert not np.array_equal(resumed[begin + 2], resumed[begin])


def test_demonstrations_are_kicked_on_their_way(env):
  """And nothing else is different from what the expert does."""
  free, kicks = [], []
  for seed in range(3):
    policy = demonstrator('kitchen_mixed', 'microwave').policy(seed)
    expert = Expert(env.model, ('microwave',), seed, JITTER)
    record = env.reset(seed)
    while (action := policy(record)) is not None:
      wanted = expert(record['qpos'])
      free.append(expert.free)
      kicks.append((wanted[:7] != action[:7]).any())
      assert (wanted[7:] == action[7:]).all()
      record = env.step(action)
  free, kicks = np.array(free), np.array(kicks)
  assert not kicks[~free].any() and (~free).sum() > 50
  assert 2 <= kicks.sum() < free.sum() / 2


def test_unknown_target(env):
  with pytest.raises(EnvError, match="No expert solves 'ketle'. Did you mean"):
    Expert(env.model, ('ketle',))
