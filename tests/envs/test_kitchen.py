"""Franka Kitchen: rewards, targets, images from positions, noise by seed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from env_helpers import rollout, same, settings

from moto_tf import rules
from moto_tf.data import episodes, inspect
from moto_tf.envs import EnvError, make_env
from moto_tf.envs.kitchen import tasks as kitchen
from moto_tf.envs.kitchen.arm import REST_JOINTS
from moto_tf.envs.kitchen.demonstrations import JITTER, ORDERS, draw_order
from moto_tf.envs.kitchen.env import HANDLES, Painter, Places, make_simulation
from moto_tf.envs.kitchen.expert import Expert
from moto_tf.presets import make_config

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (12, 9)).astype(np.float32)
HOME = {'action_repeat': 1, 'time_limit': 280}


@pytest.fixture
def make():
  """`make_env` with the settings as keywords; closes what it made."""
  made = []

  def build(task='kitchen_mixed', **changes):
    made.append(make_env(task, settings(**{**HOME, **changes})))
    return made[-1]

  yield build
  for env in made:
    env.close()


def place(env, *targets):
  """Puts objects where they should be."""
  for target in targets:
    index, goal = kitchen.GOALS[target]
    env.data.qpos[list(index)] = goal


def test_goals_are_those_of_the_environment():
  from gymnasium_robotics.envs.franka_kitchen import kitchen_env as original

  assert kitchen.GOALS.keys() == original.OBS_ELEMENT_GOALS.keys()
  for name, (index, goal) in kitchen.GOALS.items():
    np.testing.assert_array_equal(index, original.OBS_ELEMENT_INDICES[name])
    np.testing.assert_array_equal(goal, original.OBS_ELEMENT_GOALS[name])
  assert original.BONUS_THRESH == kitchen.NEAR


def test_same_seed_same_episode(make):
  first, second = make(image=True), make(image=True)
  episode = rollout(first, 3, ACTIONS)
  other = rollout(second, 4, ACTIONS)
  np.random.seed(1)
  assert same(rollout(second, 3, ACTIONS), episode)
  assert same(rollout(first, 3, ACTIONS), episode)
  # The noise of the sensors, which the controller uses too.
  assert not np.array_equal(other['state'][0], episode['state'][0])
  assert not np.array_equal(other['qpos'][-1], episode['qpos'][-1])
  np.testing.assert_array_equal(other['qpos'][0], episode['qpos'][0])


def test_records(make):
  env = make('kitchen_partial', image=True, image_size=32)
  for record in (env.reset(0), env.step(np.zeros(9))):
    for key, space in env.obs_space.items():
      assert record[key].dtype == space.dtype, key
      assert record[key].shape == space.shape, key
  assert record['image'].shape == (32, 32, 3)
  np.testing.assert_array_equal(record['state'][:18], record['proprio'])
  # Noise of up to 0.001 rad on the robot, none on these positions.
  assert 0 < np.abs(record['state'][:9] - record['qpos'][:9]).max() <= 1.01e-3
  np.testing.assert_allclose(record['qpos'], env.data.qpos, atol=1e-6)
  assert {key for key in env.obs_space if key.startswith('log_')} == {
    *('log_microwave', 'log_kettle', 'log_bottom_burner', 'log_light_switch')
  }


def test_the_preset_clones_by_the_first_three_targets():
  targets = rules.split_names(make_config('kitchen_partial').bc_targets)
  assert tuple(targets) == kitchen.TASKS['partial'][:3]


def test_an_episode_has_280_steps(make):
  env = make(time_limit=0)
  record, steps = env.reset(0), 0
  while not record['is_last']:
    record = env.step(np.zeros(9))
    steps += 1
  assert steps == 280 and not record['is_terminal']
  with pytest.raises(EnvError, match='give 280 or less'):
    make(time_limit=281)
  with pytest.raises(EnvError, match='give 140 or less'):
    make(action_repeat=2)


@pytest.mark.parametrize('task', kitchen.TASKS)
def test_reward_is_the_number_of_targets_in_place(make, task):
  """Not only once, and success is of targets in place at different times."""
  env = make(f'kitchen_{task}')
  targets = kitchen.TASKS[task]
  env.reset(0)
  still = np.zeros(9)
  assert env.step(still)['reward'] == 0
  place(env, *targets[:2])
  for _ in range(2):
    record = env.step(still)
    assert record['reward'] == 2 and not record['success']
    found = [record[kitchen.log_key(target)] for target in targets]
    assert found == [1, 1, 0, 0]
  index, _ = kitchen.GOALS[targets[0]]
  env.data.qpos[list(index)] = 0
  assert env.step(still)['reward'] == 1
  place(env, *targets[2:])
  record = env.step(still)
  assert record['reward'] == 3 and record['success']
  other = ({*kitchen.GOALS} - {*targets}).pop()
  env.reset(0)
  place(env, other)
  record = env.step(still)
  assert record['reward'] == 0
  assert not any(record[kitchen.log_key(target)] for target in targets)


def test_repeated_actions(make):
  """Every second record of the same without; of rewards the last one counts."""
  slow, fast = make(), make(action_repeat=2, time_limit=140)
  assert (slow.action_repeat, fast.action_repeat) == (1, 2)
  targets = kitchen.TASKS['mixed']
  keys = ['state', 'qpos', 'reward', 'success', *map(kitchen.log_key, targets)]
  slow.reset(5)
  start, rewards, successes = fast.reset(5)['qpos'], [], []
  for i, action in enumerate(ACTIONS[:8]):
    for env in (slow, fast):
      place(env, *{2: targets[:1], 4: targets[1:]}.get(i, ()))
    between, first = slow.step(action), slow.step(action)
    second = fast.step(action)
    for key in keys:
      np.testing.assert_array_equal(second[key], first[key], key)
    assert not np.array_equal(second['qpos'], between['qpos'])
    rewards.append(float(second['reward']))
    successes.append(bool(second['success']))
  assert np.abs(second['qpos'] - start)[:7].max() > 0.05
  # It may be less again, where something falls.
  assert rewards[:4] == [0, 0, 1, 1] and 2 < max(rewards) <= 4
  assert successes == [False] * 4 + [True] * 4


def test_images_come_from_positions_alone(make):
  """Of the live run, and of another simulation that sees only positions."""
  episode = rollout(make(image=True), 0, ACTIONS)
  model = make_simulation(kitchen.TASKS['mixed']).model
  painter = Painter(model, 64, 'default', True)
  for i in reversed(range(13)):
    image = painter(episode['qpos'][i])
    np.testing.assert_array_equal(image, episode['image'][i])
  painter.close()
  assert np.ptp(episode['image'][0]) > 150
  assert not np.array_equal(episode['image'][0], episode['image'][12])


def test_places_come_from_positions_alone(make):
  episode = rollout(make(), 0, ACTIONS)
  places = Places(make_simulation(kitchen.TASKS['mixed']).model)
  for i in reversed(range(13)):
    found = places(episode['qpos'][i])
    np.testing.assert_array_equal(found, episode['places'][i])


def test_places_are_those_of_the_simulation():
  import mujoco

  simulation = make_simulation(kitchen.TASKS['mixed'])
  model, data = simulation.model, mujoco.MjData(simulation.model)
  places, rng = Places(model), np.random.default_rng(0)
  data.qpos[:] = rng.uniform(-0.3, 0.3, 30)
  mujoco.mj_forward(model, data)
  found = places(data.qpos)
  hand = data.site('end_effector')
  np.testing.assert_allclose(found[:3], hand.xpos, atol=1e-6)
  np.testing.assert_allclose(found[3:9], hand.xmat[:6], atol=1e-6)
  for i, side in enumerate(('left', 'right')):
    finger = data.body(f'panda0_{side}finger').xpos
    np.testing.assert_allclose(found[9:][3 * i :][:3], finger, atol=1e-6)
  handles = dict(zip(HANDLES, found[15:].reshape(-1, 3), strict=True))
  for name, place in handles.items():
    np.testing.assert_allclose(place, data.site(name).xpos, atol=1e-6)
  # What is moved, and nothing else.
  data.qpos[23] += 0.1
  moved = places(data.qpos) - found
  assert moved[-3:] == pytest.approx([0.1, 0, 0], abs=1e-6)
  assert not moved[:-3].any()


@pytest.mark.parametrize('fast', [True, False])
def test_the_light_switch_lights_the_stove(make, fast):
  env = make(image=True, fast_render=fast)
  env.reset(0)
  dark = env.step(np.zeros(9))['image'].astype(int)
  place(env, 'light switch')
  lit = env.step(np.zeros(9))['image'].astype(int)
  env.data.qpos[17:19] = 0
  again = env.step(np.zeros(9))['image'].astype(int)
  stove = np.s_[20:36, 26:46]
  assert (lit - dark)[stove].mean() > 30
  assert abs((again - dark)[stove].mean()) < 5


def test_names():
  with pytest.raises(EnvError, match='Did you mean mixed'):
    make_env('kitchen_mixd', settings(**HOME))


def test_missing_package_is_named():
  code = (
    'import sys, types; sys.modules["gymnasium_robotics"] = None\n'
    'from moto_tf.envs.kitchen.env import make_simulation\n'
    'make_simulation(())'
  )
  root = Path(__file__).parents[2]
  command = [sys.executable, '-c', code]
  done = subprocess.run(command, cwd=root, capture_output=True, text=True)
  assert 'EnvError: Franka Kitchen cannot be imported' in done.stderr
  assert 'pip install gymnasium-robotics' in done.stderr


def test_metrics_have_every_target(make):
  from moto_tf.training.evaluation import episode_metrics, summarise

  env = make()
  env.reset(0)
  place(env, 'kettle')
  records = [env.step(np.zeros(9))]
  env.data.qpos[23:30] = 0
  records.append(env.step(np.zeros(9)))
  episode = {k: np.stack([r[k] for r in records]) for k in records[0]}
  found = episode_metrics(episode)
  assert found['kettle'] == 1 and found['microwave'] == 0
  summary = summarise([episode, {**episode, 'log_kettle': np.zeros(2)}], [0, 1])
  assert summary['kettle'] == 0.5 and summary['rollouts'][1]['kettle'] == 0
  json.dumps(summary)


def test_plans_of_the_public_demonstrations():
  """24 sets of four objects, always in the same order."""
  order = [
    'microwave', 'kettle', 'top burner', 'bottom burner', 'light switch',
    'hinge cabinet', 'slide cabinet',
  ]  # fmt: skip
  assert len(ORDERS) == len({frozenset(x) for x in ORDERS}) == 24
  for plan in ORDERS:
    places = [order.index(name) for name in plan]
    assert len(plan) == 4 and places == sorted(set(places))
  starts = [plan[0] for plan in ORDERS]
  assert [starts.count(x) for x in order[:3]] == [14, 8, 2]
  # The targets of mixed are one plan, those of partial none.
  sets = [set(plan) for plan in ORDERS]
  assert ORDERS[sets.index(set(kitchen.TASKS['mixed']))] == (
    'microwave', 'kettle', 'light switch', 'slide cabinet',
  )  # fmt: skip
  assert set(kitchen.TASKS['partial']) not in sets


def test_demonstrations_by_task():
  """One of the 24 plans, or the targets alone."""
  from moto_tf.envs import make_demonstrator

  wins = {'success': np.array([False, True])}
  fails = {'success': np.array([False, False])}
  kept = {}
  for name, targets in kitchen.TASKS.items():
    made = make_demonstrator(f'kitchen_{name}')
    kept[name] = (made.keep(wins), made.keep(fails))
    orders = [draw_order(name, seed) for seed in range(400)]
    if name == 'complete':
      assert set(orders) == {targets}
    else:
      assert set(orders) == set(ORDERS)
      assert max(orders.count(x) for x in ORDERS) < 40
    qpos = np.zeros(30, np.float32)
    qpos[:7] = REST_JOINTS
    qpos = {'qpos': qpos}
    first, again = (made.policy(0)(qpos) for _ in range(2))
    others = [made.policy(seed)(qpos) for seed in range(1, 6)]
    np.testing.assert_array_equal(first, again)
    assert first.shape == (9,)
    assert not all(np.array_equal(first, other) for other in others)
    # With an order, nothing else happens, and every episode counts.
    made = make_demonstrator(f'kitchen_{name}', 'kettle, microwave')
    ordered = Expert(
      make_simulation(targets).model,
      ('kettle', 'microwave'), 4, JITTER,
    )  # fmt: skip
    np.testing.assert_array_equal(made.policy(4)(qpos), ordered(qpos['qpos']))
    assert made.keep(wins) and made.keep(fails)
  for order, message in (
    ('kettle,kettle', 'comes twice'),
    ('ketle', 'Did you mean kettle'),
  ):
    with pytest.raises(EnvError, match=message):
      make_demonstrator('kitchen_mixed', order)
  with pytest.raises(EnvError, match='no parts'):
    make_demonstrator('metaworld_reach', 'kettle')
  assert kept == {
    'mixed': (True, True),
    'complete': (True, False),
    'partial': (False, True),
  }


def test_parity_says_what_it_needs():
  """d4rl cannot live in this environment."""
  done = subprocess.run(
    [sys.executable, '-m', 'moto_tf.envs.kitchen.parity'],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 1
  assert 'd4rl cannot be imported' in done.stderr
  assert 'requirements-d4rl.txt' in done.stderr


def test_kitchen_table(tmp_path):
  """Which objects were in place, from positions alone; the first is not."""
  for index, plan in enumerate(({2: 'kettle', 4: 'top burner'}, {3: 'kettle'})):
    qpos = np.zeros((7, 30), np.float32)
    for when, name in plan.items():
      where, goal = kitchen.GOALS[name]
      qpos[when:, list(where)] = goal
    where, goal = kitchen.GOALS['slide cabinet']
    qpos[0, list(where)] = goal
    records = np.arange(7)
    episode = {
      'qpos': qpos,
      'action': np.zeros((7, 9)),
      'reward': np.zeros(7),
      'is_first': records == 0,
      'is_last': records == 6,
      'is_terminal': np.zeros(7, bool),
      'success': np.zeros(7, bool),
    }
    episodes.save_episode(tmp_path, f'{index:06d}', episode)
  info = inspect.inspect(tmp_path)
  assert info.measures == {}
  record = {'task': 'kitchen_mixed', 'order': 'kettle,top burner'}
  (tmp_path / 'dataset.json').write_text(json.dumps(record))
  info = inspect.inspect(tmp_path)
  assert info.measures['placed'].sum(1).tolist() == [2, 1]
  assert info.measures['object_steps'].tolist() == [5 + 3, 4]
  text = ' '.join(inspect.compare({'kitchen_mixed': info}).split())
  for part in (
    'episodes 2 563',
    'transitions 12 128569',
    'per episode 6.0 228.4',
    'objects per episode 1.50 3.98',
    'mean return, targets 0.00 261.12', 'mean return, all objects 6.00',
    'full successes 0.000', 'all of --order 0.500', 'kettle 1.000',
    'top burner 0.500', 'slide cabinet 0.000',
  ):  # fmt: skip
    assert part in text
