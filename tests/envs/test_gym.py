"""gymnasium environments behind the protocol."""

import gymnasium
import numpy as np
import pytest
from env_helpers import rollout, same, settings
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from moto_tf.envs import EnvError, make_env
from moto_tf.envs.gym import wrap_gym


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


def test_gym_renders():
  config = simple(image=True, image_size=20)
  env = wrap_gym(Point('rgb_array'), config)
  image = env.reset(0)['image']
  assert set(env.obs_space) == {'state', 'image'}
  assert image.shape == env.obs_space['image'].shape == (20, 20, 3)
  assert image[0, 0].tolist() == [200, 0, 0]
  assert image[-1, -1].tolist() == [0, 100, 0]
  with pytest.raises(EnvError, match="render_mode='rgb_array'"):
    wrap_gym(Point(), config)


def test_gym_registered():
  gymnasium.register('moto-test/Point-v0', Point, max_episode_steps=4)
  config = simple(image=True, image_size=20, action_repeat=2)
  env = make_env('gym_moto-test/Point-v0', config)
  episode = rollout(env, 0, np.zeros((2, 2)))
  assert episode['image'].shape == (3, 20, 20, 3)
  # The limit of its registration, in environment steps.
  assert episode['is_last'].tolist() == [False, False, True]


def test_gym_pendulum():
  env = make_env('gym_Pendulum-v1', simple())
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


@pytest.mark.parametrize(
  'task, changes, message',
  [
    ('gym_Pendulm-v1', {}, 'nearest names: .*Pendulum-v1'),
    ('gym_no_such_module:Pendulum-v1', {}, 'no_such_module'),
    ('gym_CartPole-v1', {}, 'only continuous actions'),
    ('gym_Pendulum-v1', {'camera': 'side'}, 'camera_name'),
    ('gym_Pendulum-v1', {'extra_size': 32}, 'has one view'),
    (
      'gym_HalfCheetah-v5',
      {'camera': 'trak'},
      "Unknown camera 'trak'; cameras here: track, and default",
    ),
  ],
)
def test_gym_impossible_tasks(task, changes, message):
  with pytest.raises(EnvError, match=message):
    make_env(task, simple(**changes))


class Odd:
  """Returns from reset and step what it is told; no gymnasium.Env."""

  observation_space = Box(-1, 1, (2,), np.float32)
  action_space = Box(-1, 1, (1,), np.float32)

  def __init__(self, step, reset=None):
    self._results = [(np.zeros(2), {}) if reset is None else reset, step]

  def reset(self, *, seed):
    return self._results[0]

  def step(self, action):
    return self._results[1]


OBS = np.ones(2)


@pytest.mark.parametrize(
  'step, expected',
  [
    # Reward, is_last, is_terminal, success.
    ((OBS, 1, False, False, {}), (1, False, False, False)),
    ([OBS, 1, np.True_, 0, None], (1, True, True, False)),
    ((OBS, np.array([2.5]), np.array([False]), 1, {}), (2.5, True, False, 0)),
    ((OBS, True, None, False, {'success': None}), (1, False, False, False)),
    # The older gym: observation, reward, done, info.
    ((OBS, 1, False, {'is_success': 1.0}), (1, False, False, True)),
    ((OBS, 1, True, {}), (1, True, True, False)),
    ((OBS, 1, True, {'TimeLimit.truncated': True}), (1, True, False, False)),
    ((OBS, 1, True, {'TimeLimit.truncated': False}), (1, True, True, False)),
    (([1, 1], 1, False, False, {'success': [0, 1]}), (1, False, False, True)),
  ],
)
def test_gym_clear_contracts(step, expected):
  for reset in (np.zeros(2), (np.zeros(2), {}), (np.zeros(2), None)):
    env = wrap_gym(Odd(step, reset), simple())
    assert env.reset(0)['state'].tolist() == [0, 0]
    record = env.step(np.zeros(1))
    keys = ('reward', 'is_last', 'is_terminal', 'success')
    assert tuple(record[key] for key in keys) == expected
    assert record['state'].tolist() == [1, 1]


@pytest.mark.parametrize(
  'step, problem',
  [
    (None, 'step returned None'),
    ((OBS, 1, False), r'step returned 3 \(ndarray, int, bool\)'),
    ((OBS, 1, False, False, {}, 0), 'step returned 6 '),
    ((OBS, 1, False, False), 'step returned a bool as info'),
    ((OBS, None, False, False, {}), 'reward is None'),
    ((OBS, '1', False, False, {}), "reward is '1'"),
    ((OBS, np.zeros(2), False, False, {}), r'reward is an array float64 \(2'),
    ((OBS, 1j, False, False, {}), 'reward is 1j'),
    ((OBS, 1, 'False', False, {}), "terminated is 'False'"),
    ((OBS, 1, False, np.nan, {}), 'truncated is nan'),
    ((OBS, 1, False, False, {'success': 'False'}), "success in info is 'Fal"),
    ((OBS, 1, False, False, {'is_success': np.nan}), 'success in info is nan'),
    ((np.ones(3), 1, False, False, {}), r"'state' is an array float64 \(3,\)"),
    ((None, 1, False, False, {}), "'state' is None, expected 2 numbers"),
    ((['1', '2'], 1, False, False, {}), "'state' is .*expected 2 numbers"),
    (([1, [2, 3]], 1, False, False, {}), "'state' is .*expected 2 numbers"),
  ],
)
def test_gym_unclear_contracts(step, problem):
  """One line that says what came and what gymnasium expects."""
  env = wrap_gym(Odd(step), simple())
  env.reset(0)
  with pytest.raises(EnvError, match=f'{problem}.* gymnasium expects reset'):
    env.step(np.zeros(1))


def test_gym_unclear_resets():
  step = (OBS, 1, False, False, {})
  for reset in ((), (OBS, {}, 1), (OBS, 'info'), 'text', (None, {})):
    env = wrap_gym(Odd(step, reset), simple())
    with pytest.raises(EnvError, match='gymnasium expects reset'):
      env.reset(0)

  class Unseeded(Point):
    def reset(self):
      return np.zeros(2), {}

  for env in (Unseeded(), gymnasium.wrappers.TimeLimit(Unseeded(), 5)):
    with pytest.raises(EnvError, match="takes no seed .*'seed'.*gymnasium"):
      wrap_gym(env, simple())


def test_gym_four_values_within_a_wrapper_of_gymnasium():
  class Old(Point):
    def step(self, action):
      state, reward, *_, info = super().step(action)
      return state, reward, False, info

  env = wrap_gym(gymnasium.wrappers.TimeLimit(Old(), 5), simple())
  env.reset(0)
  with pytest.raises(EnvError, match='values to unpack.*gymnasium expects'):
    env.step(np.zeros(2))
  # A defect of the environment itself keeps its traceback.
  broken = Point()
  broken.step = lambda action: int('x')
  env = wrap_gym(broken, simple())
  env.reset(0)
  with pytest.raises(ValueError, match='invalid literal'):
    env.step(np.zeros(2))


@pytest.mark.parametrize(
  'image, fits',
  [
    (np.full((8, 8, 3), 200, np.uint8), True),
    (np.full((8, 8, 3), 200, np.int64), True),
    (np.full((8, 8, 3), 300, np.int64), False),
    (np.full((8, 8, 3), 0.5), False),
    (np.full((3, 8, 8), 200, np.uint8), False),
    (None, False),
  ],
)
def test_gym_images_are_what_their_space_says(image, fits):
  inner = Spaces(Box(0, 255, (8, 8, 3), np.uint8))
  inner.reset = lambda seed: (image, {})
  env = wrap_gym(inner, simple(image_size=8))
  if fits:
    found = env.reset(0)['image']
    assert found.dtype == np.uint8 and (found == 200).all()
    assert found is not image
  else:
    with pytest.raises(EnvError, match="'image' is .*expected an image uint8"):
      env.reset(0)


def test_gym_missing_keys():
  inner = Spaces(Dict({'a': VECTOR, 'b': VECTOR}))
  for obs, found in (
    ({'a': np.zeros(2)}, r"\['a'\]"),
    (np.zeros(2), 'ndarray'),
  ):
    inner.reset = lambda seed, obs=obs: (obs, {})
    with pytest.raises(EnvError, match=f"'[ab]' is missing in {found}"):
      wrap_gym(inner, simple()).reset(0)


def test_gym_advice_on_unbounded_actions_works():
  """The wrapper that the message names, as it stands there."""
  env = Spaces(VECTOR, Box(-np.inf, np.inf, (2,), np.float32))
  with pytest.raises(EnvError) as info:
    wrap_gym(env, simple())
  advice = str(info.value).partition(' to 1: ')[2]
  env = eval(advice, {'gymnasium': gymnasium, 'np': np, 'env': env})
  wrapped = wrap_gym(env, simple())
  wrapped.reset(0)
  wrapped.step(np.float32([0.5, -2]))
  assert env.unwrapped.action.tolist() == [0.5, -1]


def test_an_episode_without_end_is_cut(capfd):
  """By the environment's own limit where it has one, else with a warning."""
  env = wrap_gym(Point(limit=10**9, end=10**9), simple())
  env.longest = 20
  episode = rollout(env, 0, np.zeros((20, 2)))
  assert np.flatnonzero(episode['is_last']).tolist() == [20]
  assert not episode['is_terminal'].any()
  assert 'cut after 20 agent steps' in capfd.readouterr().err
  rollout(wrap_gym(Point(end=5), simple()), 0, np.zeros((5, 2)))
  assert not capfd.readouterr().err
  gymnasium.register('moto-test/Long-v0', Point, max_episode_steps=50_000)
  assert make_env('gym_moto-test/Long-v0', simple()).longest == 50_000


def test_gym_pendulum_from_pixels():
  pytest.importorskip('pygame')
  env = make_env('gym_Pendulum-v1', simple(image=True, image_size=32))
  episode = rollout(env, 0, np.ones((5, 1)))
  env.close()
  assert episode['image'].shape == (6, 32, 32, 3)
  assert (episode['image'][0] != episode['image'][5]).any()
