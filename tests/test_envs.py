"""Meta-World, gymnasium environments and rendering."""

import os
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from moto_tf.envs import Env, EnvError, make_env
from moto_tf.envs.gym import wrap_gym
from moto_tf.envs.metaworld import TASKS, scripted_policy
from moto_tf.envs.render import View, load_mujoco


def settings(**changes):
  values = {
    'image_size': 64,
    'action_repeat': 2,
    'time_limit': 100,
    'image': False,
    'camera': 'default',
    'fast_render': True,
    'hide_goal': True,
  }
  return types.SimpleNamespace(**{**values, **changes})


@pytest.fixture
def make():
  """`make_env` with the settings as keywords; closes what it made."""
  made = []

  def build(task, **changes):
    made.append(make_env(task, settings(**changes)))
    return made[-1]

  yield build
  for env in made:
    env.close()


def rollout(env, seed, actions):
  records = [env.reset(seed)] + [env.step(a) for a in actions]
  return {k: np.stack([r[k] for r in records]) for k in records[0]}


def demonstrate(env, task, seed):
  """Episode of the scripted policy, with the action that led into a record."""
  policy = scripted_policy(task)
  records = [{**env.reset(seed), 'action': np.zeros(4, np.float32)}]
  while not records[-1]['is_last']:
    action = policy(env.raw_obs)
    records.append({**env.step(action), 'action': action})
  return {k: np.stack([r[k] for r in records]) for k in records[0]}


def same(a, b):
  return a.keys() == b.keys() and all(
    a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a
  )


ACTIONS = np.random.default_rng(0).uniform(-1, 1, (8, 4)).astype(np.float32)


def test_same_seed_same_episode(make):
  first = make('metaworld_drawer-open', image=True)
  second = make('metaworld_drawer-open', image=True)
  episode = rollout(first, 3, ACTIONS)
  # Another episode in between, and other random numbers, must not matter.
  other = rollout(second, 4, ACTIONS[::-1])
  np.random.seed(1)
  assert same(rollout(second, 3, ACTIONS), episode)
  assert same(rollout(first, 3, ACTIONS), episode)
  assert not np.array_equal(other['image'][0], episode['image'][0])
  assert not np.array_equal(other['state'][0], episode['state'][0])


@pytest.mark.parametrize('task', ['drawer-open', 'plate-slide'])
def test_a_new_goal_for_every_seed(make, task):
  env = make(f'metaworld_{task}')
  goals = np.array([env.reset(s)['state'][-3:] for s in range(60)])
  # More than the 50 frozen goals of the benchmark, and all of them visible.
  assert len(np.unique(goals, axis=0)) == 60
  assert np.abs(goals).max(1).min() > 0.1
  assert not np.array_equal(env.reset(2**40)['state'][-3:], goals[0])


def test_record_format(make):
  env = make('metaworld_hammer', image=True, image_size=32)
  assert set(env.obs_space) == {'image', 'state'}
  assert env.act_space == Box(-1, 1, (4,), np.float32)
  assert env.action_repeat == 2
  for record in (env.reset(0), env.step(np.zeros(4))):
    assert set(record) == {
      *('image', 'state', 'reward'),
      *('is_first', 'is_last', 'is_terminal', 'success'),
    }
    for key, space in env.obs_space.items():
      assert record[key].dtype == space.dtype
      assert record[key].shape == space.shape
    assert record['reward'].dtype == np.float32
    for key in ('is_first', 'is_last', 'is_terminal', 'success'):
      assert record[key].dtype == bool and record[key].shape == ()
  assert env.obs_space['image'].shape == (32, 32, 3)


@pytest.mark.parametrize('task', TASKS)
def test_scripted_policy_succeeds(make, task):
  env = make(f'metaworld_{task}')
  episodes = [demonstrate(env, task, seed) for seed in range(3)]
  assert sum(e['success'].any() for e in episodes) >= 2
  for e in episodes:
    assert len(e['reward']) == 101
    assert e['is_first'].tolist() == [True] + 100 * [False]
    assert e['is_last'].tolist() == 100 * [False] + [True]
    assert not e['is_terminal'].any()
    assert e['reward'][0] == 0 and set(e['reward']) <= {0.0, 1.0}
    # Success means ever, the reward means now.
    achieved = np.maximum.accumulate(e['reward']) > 0
    np.testing.assert_array_equal(e['success'], achieved)
    assert np.abs(e['action']).max() <= 1
    assert e['action'].dtype == np.float32


def test_success_outlasts_the_reward(make):
  env = make('metaworld_door-open')
  episodes = [demonstrate(env, 'door-open', s) for s in range(4)]
  assert any(e['success'][-1] and not e['reward'][-1] for e in episodes)


def test_reward_is_read_after_the_repeat(make):
  """Against environment steps one by one, with a loop of its own."""
  twice = make('metaworld_drawer-open')
  once = make('metaworld_drawer-open', action_repeat=1, time_limit=0)
  episode = demonstrate(twice, 'drawer-open', 5)
  slow = rollout(once, 5, np.repeat(episode['action'][1:], 2, axis=0))
  np.testing.assert_array_equal(episode['reward'], slow['reward'][::2])
  np.testing.assert_array_equal(episode['state'], slow['state'][::2])
  assert 0 < episode['reward'].sum() < 100


def test_record_shows_the_effect_of_its_action(make):
  env = make('metaworld_reach', image=True)
  still, up = np.zeros(4), np.array([0, 0, 1, 0])
  episode = rollout(env, 0, [still, still, up, still, still])
  height = episode['state'][:, 2]
  assert np.abs(np.diff(height)[:2]).max() < 1e-3
  assert height[3] - height[2] > 1e-3
  images = episode['image'].astype(int)
  before, after = (np.abs(images[i] - images[i + 1]).sum() for i in (1, 2))
  assert after > 2 * before


@pytest.mark.parametrize('task', ['drawer-open', 'window-open', 'assembly'])
def test_first_record_shows_where_objects_are(make, task):
  """Meta-World moves them at the end of its reset without updating them."""
  env = make(f'metaworld_{task}', image=True)
  for seed in (1, 3):
    episode = rollout(env, seed, [np.zeros(4)])
    state, image = episode['state'], episode['image'].astype(int)
    assert np.abs(state[0, 4:7] - state[1, 4:7]).max() < 0.01
    np.testing.assert_array_equal(state[0, :18], state[0, 18:36])
    assert np.abs(image[0] - image[1]).mean() < 1


def test_episode_ends_and_starts_again(make):
  env = make('metaworld_reach', time_limit=3)
  with pytest.raises(EnvError, match='call reset'):
    env.step(np.zeros(4))
  for _ in range(2):
    episode = rollout(env, 0, np.zeros((3, 4)))
    assert episode['is_last'].tolist() == [False, False, False, True]
    with pytest.raises(EnvError, match='call reset'):
      env.step(np.zeros(4))


def test_limit_of_the_simulation(make):
  env = make('metaworld_reach', action_repeat=100, time_limit=0)
  episode = rollout(env, 0, np.zeros((5, 4)))
  assert episode['is_last'].tolist() == 5 * [False] + [True]
  with pytest.raises(EnvError, match=r'time_limit 251.*give 250 or less'):
    make('metaworld_reach', time_limit=251)


@pytest.mark.parametrize(
  'action, message',
  [
    (np.zeros(3), r'shape \(3,\), expected \(4,\)'),
    (np.zeros((1, 4)), r'shape \(1, 4\)'),
    ([0, np.nan, 0, 0], 'not finite'),
    ([0, np.inf, 0, 0], 'not finite'),
  ],
)
def test_wrong_actions(make, action, message):
  env = make('metaworld_reach')
  env.reset(0)
  with pytest.raises(EnvError, match=message):
    env.step(action)
  # The episode is unharmed.
  assert not env.step(np.zeros(4))['is_last']


def test_actions_are_clipped(make):
  env = make('metaworld_reach')
  wild = rollout(env, 0, 5 * np.sign(ACTIONS))
  assert same(wild, rollout(env, 0, np.sign(ACTIONS)))


def test_names(make):
  first = make('metaworld_drawer-open-v3').reset(0)
  assert same(first, make('metaworld_drawer-open').reset(0))
  # Not among the ten of the paper.
  assert make('metaworld_button-press-wall').reset(0)['is_first']


@pytest.mark.parametrize(
  'task, changes, message',
  [
    ('drawer-open', {}, r"'drawer-open'.*metaworld, gym"),
    ('metaworld_', {}, 'Example: metaworld_drawer-open'),
    ('atari_pong', {}, 'metaworld, gym'),
    ('metaworld_drawer-opn', {}, r'mean drawer-open\?.*assembly.*window-open'),
    ('metaworld_drawer-open-v2', {}, r'mean drawer-open\?'),
    (
      'metaworld_reach',
      {'image': True, 'camera': 'corner5'},
      r"camera 'corner5'.*mean corner.*behindGripper.*topview",
    ),
    ('gym_Pendulm-v1', {}, 'Pendulum-v1'),
    ('gym_no_such_module:Pendulum-v1', {}, 'no_such_module'),
    ('gym_CartPole-v1', {'time_limit': 0}, 'only continuous actions'),
    ('gym_Pendulum-v1', {'camera': 'side'}, 'camera_name'),
  ],
)
def test_impossible_tasks(make, task, changes, message):
  with pytest.raises(EnvError, match=message):
    make(task, **changes)


def test_scripted_policy_of_unknown_task():
  with pytest.raises(EnvError, match='mean hammer'):
    scripted_policy('hamer')


def fingers(image):
  """Rows of the cyan pixels of the gripper."""
  r, g, b = image.astype(int).transpose(2, 0, 1)
  return np.nonzero((g > 120) & (b > 120) & (r < 60))[0]


@pytest.mark.parametrize('camera', ['default', 'authors', 'corner2', 'corner4'])
def test_cameras_are_upright(make, camera):
  env = make('metaworld_reach', image=True, image_size=128, camera=camera)
  before = env.reset(0)['image']
  for _ in range(8):
    after = env.step(np.array([0, 0, 1, 0]))['image']
  # The hand went up by some cm.
  assert fingers(after).mean() < fingers(before).mean() - 3


def test_views_differ(make):
  def show(**changes):
    return make('metaworld_drawer-open', image=True, **changes).reset(0)

  names = ('default', 'authors', 'corner2', 'corner4', 'topview')
  views = {name: show(camera=name) for name in names}
  for i, a in enumerate(names):
    # A camera changes pixels and nothing else.
    assert np.array_equal(views[a]['state'], views['default']['state'])
    assert views[a]['image'].std() > 10
    for b in names[i + 1 :]:
      difference = views[a]['image'].astype(int) - views[b]['image']
      assert np.abs(difference).mean() > 5
  plain = views['default']['image'].astype(int)
  goal = show(hide_goal=False)['image'] - plain
  changed = (np.abs(goal).max(-1) > 30).sum()
  # The marker covers a few pixels of the whole image.
  assert 1 <= changed <= 20
  full = np.abs(show(fast_render=False)['image'] - plain)
  assert 1 < full.mean() < 30


def test_renderer_turns_cameras_that_hang_upside_down():
  """One camera twice, once rolled by 180 degrees: the same image."""
  mujoco = load_mujoco()
  from moto_tf.envs.render import Renderer

  model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody>
    <light pos="0 -3 3"/>
    <geom type="sphere" size=".2" pos="0 0 .4" rgba="1 0 0 1"/>
    <geom type="sphere" size=".2" pos=".5 0 -.2" rgba="0 0 1 1"/>
    <camera name="up" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
    <camera name="down" pos="0 -3 0" xyaxes="-1 0 0 0 0 -1"/>
  </worldbody></mujoco>""")
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  frames = {}
  for camera in ('up', 'down', View(90, 0, 3, (0, 0, 0))):
    renderer = Renderer(model, 48, camera, fast=True)
    image = frames[camera] = renderer(data).astype(int)
    renderer.close()
    red = np.argwhere(image[..., 0] > image[..., 2] + 50).mean(0)
    blue = np.argwhere(image[..., 2] > image[..., 0] + 50).mean(0)
    # Red is above blue, blue right of red.
    assert red[0] < blue[0] - 5 and blue[1] > red[1] + 5
  assert np.abs(frames['up'] - frames['down']).mean() < 1


def test_without_opengl():
  """State alone needs none; images say what to install."""
  code = """
from tests.test_envs import make_env, settings
from moto_tf.envs import EnvError
print(make_env('metaworld_reach', settings()).reset(0)['state'].shape)
try:
  make_env('metaworld_reach', settings(image=True))
except EnvError as error:
  print(error)
"""
  out = in_subprocess(code, 'disable')
  assert '(39,)' in out and "MUJOCO_GL='disable'" in out and 'libegl1' in out


def test_forgotten_environment_ends_quietly():
  code = """
from tests.test_envs import make_env, settings
env = make_env('metaworld_reach', settings(image=True))
print(env.reset(0)['image'].shape)
"""
  assert in_subprocess(code, 'egl') == '(64, 64, 3)\n'


def test_wrong_opengl():
  code = """
from tests.test_envs import make_env, settings
from moto_tf.envs import EnvError
try:
  make_env('metaworld_reach', settings())
except EnvError as error:
  print(error)
"""
  assert "MUJOCO_GL='nonsense'" in in_subprocess(code, 'nonsense')


def in_subprocess(code, gl):
  return subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'MUJOCO_GL': gl},
    cwd=os.path.dirname(os.path.dirname(__file__)),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=True,
  ).stdout


class Point(gymnasium.Env):
  """A point pushed along a line, with all that a wrapper must handle."""

  metadata = {'render_modes': ['rgb_array']}
  action_space = Box(np.float32([-2, 0]), np.float32([2, 10]))
  observation_space = Box(-np.inf, np.inf, (2,), np.float64)

  def __init__(self, render_mode=None, end=100, limit=100, key='success'):
    self.render_mode = render_mode
    self._end, self._limit, self._key = end, limit, key
    # One array for all steps, as some environments have it.
    self._state = np.zeros(2)

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    self._state[:] = self.np_random.uniform(size=2)
    self._steps, self.actions = 0, []
    return self._state, {}

  def step(self, action):
    self.actions.append(action)
    self._steps += 1
    self._state += 1
    reward = float(self._steps)
    terminated, truncated = self._steps == self._end, self._steps == self._limit
    info = {self._key: self._steps == 3}
    return self._state, reward, terminated, truncated, info

  def render(self):
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:20, :, 0], frame[:, 30:, 1] = 200, 100
    return frame


class Spaces(gymnasium.Env):
  """Any spaces, with samples as observations."""

  def __init__(self, observation, action=None):
    self.observation_space = observation
    self.action_space = action or Box(-1, 1, (2,))

  def reset(self, seed=None, options=None):
    self.observation_space.seed(seed)
    self.last = self.observation_space.sample()
    return self.last, {}

  def step(self, action):
    self.action = action
    self.last = self.observation_space.sample()
    return self.last, 0.0, False, False, {}


def simple(**changes):
  return settings(**{'action_repeat': 1, 'time_limit': 0, **changes})


def test_gym_actions_are_rescaled():
  point = Point()
  env = wrap_gym(point, simple())
  env.reset(0)
  for action in ([-1, -1], [1, 1], [0, 0], [0.5, -0.5], [3, -3]):
    env.step(np.array(action))
  expected = [[-2, 0], [2, 10], [0, 5], [1, 2.5], [2, 0]]
  np.testing.assert_allclose(point.actions, expected)
  assert all(a.dtype == np.float32 for a in point.actions)


def test_gym_shape_of_actions():
  space = Box(-1, 1, (2, 3), np.float32)
  inner = Spaces(Box(-1, 1, (1,)), space)
  env = wrap_gym(inner, simple())
  assert env.act_space.shape == (6,)
  env.reset(0)
  action = np.linspace(-1, 1, 6, dtype=np.float32)
  env.step(action)
  np.testing.assert_allclose(inner.action, action.reshape(2, 3), atol=1e-7)


def test_gym_observations_are_copies():
  env = wrap_gym(Point(), simple())
  first = env.reset(0)['state']
  before = first.copy()
  second = env.step(np.zeros(2))['state']
  np.testing.assert_array_equal(first, before)
  np.testing.assert_allclose(second, before + 1)
  assert first.dtype == np.float32


def test_gym_same_seed_same_episode():
  env = wrap_gym(Point(), simple())
  a, b, c = (rollout(env, s, np.zeros((3, 2))) for s in (1, 1, 2))
  assert same(a, b) and not same(a, c)


@pytest.mark.parametrize(
  'ends, limit, terminal',
  [({'end': 5}, 0, True), ({'limit': 5}, 0, False), ({}, 3, False)],
)
def test_gym_ends_and_action_repeat(ends, limit, terminal):
  env = wrap_gym(Point(**ends), simple(action_repeat=2, time_limit=limit))
  episode = rollout(env, 0, np.zeros((3, 2)))
  # Five steps of the environment are three of the agent: 1 + 2, 3 + 4, 5.
  last = 5 if ends else 5 + 6
  assert episode['reward'].tolist() == [0, 1 + 2, 3 + 4, last]
  assert episode['is_last'].tolist() == [False, False, False, True]
  assert episode['is_terminal'].tolist() == [False, False, False, terminal]
  # Achieved in the middle of a repeat, and not forgotten.
  assert episode['success'].tolist() == [False, False, True, True]


@pytest.mark.parametrize('key, count', [('is_success', 1), ('other', 0)])
def test_gym_success(key, count):
  episode = rollout(wrap_gym(Point(key=key), simple()), 0, np.zeros((3, 2)))
  assert episode['success'].sum() == count


def test_gym_renders(make):
  config = simple(image=True, image_size=20)
  env = wrap_gym(Point('rgb_array'), config)
  image = env.reset(0)['image']
  assert set(env.obs_space) == {'state', 'image'}
  assert image.shape == env.obs_space['image'].shape == (20, 20, 3)
  assert image[0, 0].tolist() == [200, 0, 0]
  assert image[-1, -1].tolist() == [0, 100, 0]
  with pytest.raises(EnvError, match="render_mode='rgb_array'"):
    wrap_gym(Point(), config)


def test_gym_registered(make):
  gymnasium.register('moto-test/Point-v0', Point, max_episode_steps=4)
  env = make('gym_moto-test/Point-v0', image=True, image_size=20, time_limit=0)
  episode = rollout(env, 0, np.zeros((2, 2)))
  assert episode['image'].shape == (3, 20, 20, 3)
  # The limit of its registration, in environment steps.
  assert episode['is_last'].tolist() == [False, False, True]


def test_gym_pendulum(make):
  env = make('gym_Pendulum-v1', action_repeat=1, time_limit=0)
  actions = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
  episode = rollout(env, 7, actions)
  inner = gymnasium.make('Pendulum-v1')
  obs, _ = inner.reset(seed=7)
  for i, action in enumerate(actions):
    np.testing.assert_allclose(episode['state'][i], obs, rtol=1e-6)
    obs, reward, *_ = inner.step(2 * action)
    assert episode['reward'][i + 1] == pytest.approx(reward)
  assert not episode['is_last'].any()


def test_gym_dict_of_observations():
  space = Dict(
    {
      'front': Box(0, 255, (30, 40, 3), np.uint8),
      'exact': Box(0, 255, (16, 16, 3), np.uint8),
      'joints': Box(-1, 1, (5,), np.float64),
      'count': Box(0, 9, (), np.int64),
    }
  )
  inner = Spaces(space)
  # Its own images suffice, so none is rendered.
  env = wrap_gym(inner, simple(image=True, image_size=16))
  record = env.reset(0)
  shapes = {
    k: (v.shape, np.dtype(v.dtype).name) for k, v in env.obs_space.items()
  }
  assert shapes == {
    'front': ((16, 16, 3), 'uint8'),
    'exact': ((16, 16, 3), 'uint8'),
    'joints': ((5,), 'float32'),
    'count': ((1,), 'float32'),
  }
  for key, (shape, dtype) in shapes.items():
    assert record[key].shape == shape and record[key].dtype == dtype
  np.testing.assert_array_equal(record['exact'], inner.last['exact'])
  np.testing.assert_allclose(record['joints'], inner.last['joints'], 1e-6)
  # Averaged over areas, not sampled.
  np.testing.assert_allclose(
    record['front'].mean(), inner.last['front'].mean(), atol=1
  )


def test_gym_image_observation():
  space = Box(0, 255, (8, 8, 3), np.uint8)
  env = wrap_gym(Spaces(space), simple(image_size=8))
  assert list(env.obs_space) == ['image']
  assert env.reset(0)['image'].shape == (8, 8, 3)


VECTOR = Box(-1, 1, (2,))


@pytest.mark.parametrize(
  'observation, action, message',
  [
    (VECTOR, Discrete(3), 'only continuous actions'),
    (VECTOR, MultiBinary(3), 'only continuous actions'),
    (VECTOR, Box(0, 3, (2,), np.int64), 'only continuous actions'),
    (VECTOR, Box(-np.inf, 1, (2,)), 'not bounded'),
    (Discrete(3), None, "'state'.*expected a vector or an image"),
    (Box(0, 255, (8, 8), np.uint8), None, 'expected a vector or an image'),
    (Box(0, 255, (3, 8, 8), np.uint8), None, 'expected a vector or an image'),
    (Box(0, 1, (8, 8, 3)), None, 'expected a vector or an image'),
    (Dict({'a': Dict({'b': VECTOR})}), None, "'a'.*expected a vector"),
    (Dict({'reward': VECTOR}), None, 'named reward clash'),
  ],
)
def test_gym_spaces_that_cannot_be_used(observation, action, message):
  with pytest.raises(EnvError, match=message):
    wrap_gym(Spaces(observation, action), simple())


class Broken(Env):
  def __init__(self):
    super().__init__({'state': VECTOR}, 1)

  def _reset(self, seed):
    return {'state': np.zeros(2, np.float32)}

  def _step(self, action):
    return {'state': np.float32([0, np.nan])}, 0.0, False, False, False


def test_broken_simulation_is_noticed():
  env = Broken()
  env.reset(0)
  with pytest.raises(EnvError, match="not finite in 'state' at agent step 1"):
    env.step([0])


def test_seeds():
  env = Broken()
  assert env.reset(np.int64(3))['is_first']
  with pytest.raises(EnvError, match='got -1'):
    env.reset(-1)
  with pytest.raises(TypeError):
    env.reset(1.5)
