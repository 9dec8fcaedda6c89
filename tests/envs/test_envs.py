"""The protocol of environments, Meta-World and rendering."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from env_helpers import rollout, same, settings
from gymnasium.spaces import Box

from moto_tf.envs import Env, EnvError, make_env
from moto_tf.envs.metaworld import TASKS, scripted_policy
from moto_tf.envs.render import View, load_mujoco


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


def demonstrate(env, task, seed):
  """Episode of the scripted policy, with the action that led into a record."""
  policy = scripted_policy(task)
  records = [{**env.reset(seed), 'action': np.zeros(4, np.float32)}]
  while not records[-1]['is_last']:
    action = policy(env.raw_obs)
    records.append({**env.step(action), 'action': action})
  return {k: np.stack([r[k] for r in records]) for k in records[0]}


TESTS = Path(__file__).parent
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
  # At first the arm still settles.
  episode = rollout(env, 0, [*4 * [still], up])
  rise = np.diff(episode['state'][:, 2])
  assert np.abs(rise[:4]).max() < 1e-3 < rise[4]
  images = episode['image'].astype(int)
  before, after = (np.abs(images[i] - images[i + 1]).sum() for i in (3, 4))
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
    ('drawer-open', {}, r"'drawer-open'.*metaworld, kitchen, gym"),
    ('metaworld_', {}, 'Example: metaworld_drawer-open'),
    ('atari_pong', {}, 'metaworld, kitchen, gym'),
    ('metaworld_drawer-opn', {}, r'mean drawer-open\?.*assembly.*window-open'),
    ('metaworld_drawer-open-v2', {}, r'mean drawer-open\?'),
    (
      'metaworld_reach',
      {'image': True, 'camera': 'corner5'},
      r"camera 'corner5'.*mean corner.*behindGripper.*topview",
    ),
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


@pytest.mark.parametrize(
  'task, camera',
  [('metaworld_drawer-open', 'corner2'), ('kitchen_mixed', 'left_cap')],
)
def test_second_image(make, task, camera):
  """Of another size, another camera, or both; the first stays as it is."""

  def show(**changes):
    return make(task, image=True, **changes).reset(0)

  plain = show()
  assert 'image_extra' not in plain
  for size, view in ((64, ''), (96, ''), (64, camera), (32, camera)):
    found = show(extra_size=size, extra_camera=view)
    np.testing.assert_array_equal(found['image'], plain['image'])
    assert found['image_extra'].shape == (size, size, 3)
    alone = show(image_size=size, camera=view or 'default')
    np.testing.assert_array_equal(found['image_extra'], alone['image'])
  assert 'image_extra' not in make(task, extra_size=64).reset(0)
  with pytest.raises(EnvError, match='Unknown camera'):
    show(extra_size=64, extra_camera='typo')


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


def test_fast_renderer_draws_no_shadows():
  mujoco = load_mujoco()
  from moto_tf.envs.render import Renderer

  model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody>
    <light pos="0 0 4" dir="0 0 -1" castshadow="true"/>
    <geom type="plane" size="2 2 .1" rgba="1 1 1 1"/>
    <geom type="sphere" size=".3" pos="0 0 1.5" rgba="1 0 0 1"/>
  </worldbody></mujoco>""")
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  floor = {}
  for fast in (False, True):
    renderer = Renderer(model, 64, View(90, -10, 3, (0, 0, 0.3)), fast)
    image = renderer(data).astype(int)
    renderer.close()
    # Below the sphere: the shadow, if any, lies in the middle.
    floor[fast] = image[38:42, 30:34].mean(), image[38:42, 4:8].mean()
  assert floor[False][0] < 0.7 * floor[False][1]
  assert floor[True][0] > 0.9 * floor[True][1]


def test_without_opengl():
  """State alone needs none; images say what switched it off."""
  code = """
from env_helpers import settings
from moto_tf.envs import EnvError, make_env
print(make_env('metaworld_reach', settings()).reset(0)['state'].shape)
try:
  make_env('metaworld_reach', settings(image=True))
except EnvError as error:
  print(error)
"""
  out = in_subprocess(code, 'disable')
  assert '(39,)' in out and 'MUJOCO_GL=disable switches images off' in out


def test_forgotten_environment_ends_quietly():
  code = """
from env_helpers import settings
from moto_tf.envs import make_env
env = make_env('metaworld_reach', settings(image=True))
print(env.reset(0)['image'].shape)
"""
  assert in_subprocess(code, 'egl') == '(64, 64, 3)\n'


def test_rendering_beside_tensorflow_is_refused():
  """The two would end the process with a segmentation fault."""
  code = """
import sys
from env_helpers import settings
from moto_tf.envs import EnvError, make_env, render
render._has_nvidia = lambda: False
sys.modules['tensorflow'] = sys
print(make_env('metaworld_reach', settings()).reset(0)['state'].shape)
try:
  make_env('metaworld_reach', settings(image=True))
except EnvError as error:
  print(error)
"""
  out = in_subprocess(code, 'egl')
  assert '(39,)' in out and '--env_workers process' in out


def test_wrong_opengl():
  code = """
from env_helpers import settings
from moto_tf.envs import EnvError, make_env
try:
  make_env('metaworld_reach', settings())
except EnvError as error:
  print(error)
"""
  assert "MUJOCO_GL='nonsense'" in in_subprocess(code, 'nonsense')


def in_subprocess(code, gl):
  return subprocess.run(
    [sys.executable, '-c', code],
    env={
      **os.environ,
      'MUJOCO_GL': gl,
      'PYTHONPATH': os.pathsep.join([str(TESTS), str(TESTS.parents[1])]),
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=True,
  ).stdout


class Broken(Env):
  def __init__(self):
    super().__init__({'state': Box(-1, 1, (2,))}, 1)

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
