"""What agents without a world model see, and which steps they learn from."""

import collections

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from helpers import ACT, SPACES, randomize
from model_free_naive import (
  GAMMA,
  PAD,
  crops,
  encode,
  make_data,
  make_free,
  numbers,
  single,
  stacks,
  transitions,
  twins,
  units,
)
from test_metrics_page import unexplained

from moto_tf import memory
from moto_tf.agents import make_agent
from moto_tf.agents import model_free as module
from moto_tf.agents.frames import (
  _shift_in_groups,
  push_frame,
  random_crops,
  shift,
  stack_frames,
)
from moto_tf.agents.pixel_nets import Net
from moto_tf.agents.sizes import gradient_step, weights
from moto_tf.config import without_effect
from moto_tf.data.cloning import Cloning
from moto_tf.data.episodes import save_episode
from moto_tf.data.replay import Replay
from moto_tf.nn.dists import DiagNormal, TanhNormal
from moto_tf.nn.layers import Layers
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

LENGTHS = 1, 2, 5, 9
SEED = tf.constant([3, 4])


@pytest.fixture(scope='module')
def iql():
  """Agent with random weights and units, and its data."""
  agent, config = make_free('iql')
  randomize(agent)
  agent.standardize.fit(
    {'state': np.random.default_rng(0).normal(1, 2, (9, 5))}
  )
  return agent, make_data(config)


@pytest.fixture(scope='module')
def replay(tmp_path_factory):
  """Episodes whose images say which episode and record they are."""
  place = tmp_path_factory.mktemp('episodes')
  for number, length in enumerate(LENGTHS):
    steps = np.arange(length + 1)
    image = np.zeros((length + 1, 2, 2, 3), np.uint8)
    image[..., 0] = number
    image[..., 1] = steps[:, None, None]
    save_episode(
      place,
      f'{number:06d}',
      {
        'image': image,
        'action': np.zeros((length + 1, 1), np.float32),
        'reward': np.zeros(length + 1, np.float32),
        'is_first': steps == 0,
        'is_last': steps == length,
        'is_terminal': np.zeros(length + 1, bool),
        'success': np.zeros(length + 1, bool),
      },
    )
  box = gymnasium.spaces.Box
  return Replay(
    place,
    None,
    {'image': box(0, 255, (2, 2, 3), np.uint8)},
    box(-1, 1, (1,), np.float32),
    batch=256,
    length=4,
    capacity=100,
    offline_share=-1.0,
    seed=0,
    cloning=Cloning(),
  )


def test_stacks_repeat_the_first_frame():
  images = np.random.default_rng(0).integers(0, 256, (5, 7, 2, 2, 3), np.uint8)
  first = np.random.default_rng(1).random((5, 7)) < 0.3
  first[:, 0] = True
  found = stack_frames(images, first, 3)
  assert found.dtype == tf.uint8
  np.testing.assert_array_equal(found, stacks(images, first))
  # Whether a window begins with an episode's first record is not known.
  first[:, 0] = False
  np.testing.assert_array_equal(found, stack_frames(images, first, 3))
  np.testing.assert_array_equal(stack_frames(images, first, 1), images)


def acting(number, length):
  """Stacks of an episode as they are made while it runs."""
  frames, found = np.full((2, 2, 2, 9), 7, np.uint8), []
  for t in range(length + 1):
    image = np.zeros((2, 2, 2, 3), np.uint8)
    image[..., 0], image[..., 1] = number, t
    # The other lane is in the middle of an episode of its own.
    frames = push_frame(frames, image, np.array([t == 0, False]), 3).numpy()
    found.append(frames[0])
  return found


def test_every_step_comes_alike_with_the_stacks_of_acting(replay):
  """First and last ones too; none from one episode to another."""
  seen = [acting(i, n) for i, n in enumerate(LENGTHS)]
  counts = collections.Counter()
  for step in range(40):
    batch = replay.sample(step)
    stack = stack_frames(batch['image'], batch['is_first'], 3).numpy()
    assert stack.shape[1] == 2
    for row, crossed in zip(stack, batch['is_first'][:, 3], strict=True):
      if not crossed:
        number, time = row[0, 0, 0, 6:8]
        np.testing.assert_array_equal(row[0], seen[number][time])
        np.testing.assert_array_equal(row[1], seen[number][time + 1])
        counts[number, time] += 1
  assert len(counts) == sum(LENGTHS)
  # 10,240 records of 21 are drawn, of which 17 begin a step.
  mean = 40 * 256 / (sum(LENGTHS) + len(LENGTHS))
  assert max(abs(n - mean) / np.sqrt(mean) for n in counts.values()) < 4


def test_crops_repeat_the_edge_and_are_the_same_across_a_stack():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (40, 12, 10, 6), np.uint8)
  offset = rng.integers(-PAD, PAD + 1, (40, 2)).astype(np.int32)
  expected = []
  for image, (down, right) in zip(images, offset, strict=True):
    padded = np.pad(image, ((PAD, PAD), (PAD, PAD), (0, 0)), 'edge')
    top, left = PAD + down, PAD + right
    expected.append(padded[top : top + 12, left : left + 10])
  np.testing.assert_array_equal(shift(images, offset), expected)
  np.testing.assert_array_equal(
    _shift_in_groups(tf.constant(images), offset, PAD), expected
  )
  images = tf.constant(images)
  for cpu in (False, True):
    found = random_crops(images, PAD, SEED, cpu)
    np.testing.assert_array_equal(found, crops(images.numpy(), SEED))
  assert random_crops(images, 0, SEED) is images


def test_crops_of_both_observations_are_independent():
  """Over all offsets, as pixels tell that say where they are."""
  agent, config = make_free('iql', replay__batch=200, replay__length=4)
  data = make_data(make_free('iql')[1])
  data = {k: np.repeat(v[:1, :4], 200, 0) for k, v in data.items()}
  data['is_first'] = np.zeros((200, 4), bool)
  rows, columns = np.indices((16, 16))
  data['image'][..., 0], data['image'][..., 1] = rows, columns
  data['image'][..., 2] = 0
  batch = agent.transitions(data, SEED)
  both = []
  for obs in (batch.obs, batch.next):
    pixels = np.rint(obs['pixels'].numpy() * 255)
    assert (pixels[..., :3] == pixels[..., 3:6]).all()
    assert (pixels[..., :3] == pixels[..., 6:]).all()
    both.append(pixels[:, 8, 8, :2] - 8)
  both = np.concatenate(both, -1)
  assert both.min() == -PAD and both.max() == PAD
  assert np.abs(np.corrcoef(both.T) - np.eye(4)).max() < 0.2


def test_transitions(iql):
  agent, data = iql
  expected = transitions(agent, data, SEED)
  found = agent.transitions(data, SEED)
  assert expected['mask'].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0]
  assert (expected['discount'] == 0).sum() == 1
  for name, value in {
    'before': found.obs['pixels'],
    'after': found.next['pixels'],
    'vector': found.obs['vector'],
    'next_vector': found.next['vector'],
    'action': found.action,
    'reward': found.reward,
    'discount': found.discount,
    'mask': found.mask,
  }.items():
    np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)


def test_means_leave_out_steps_between_episodes(iql):
  agent, data = iql
  batch = agent.transitions(data, SEED)
  values = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
  keep = batch.mask.numpy() == 1
  np.testing.assert_allclose(batch.mean(values), values[:, keep].mean(), 1e-5)
  nothing = batch._replace(mask=tf.zeros(9))
  assert nothing.mean(values) == 0


def test_networks(iql):
  agent, data = iql
  steps, batch = transitions(agent, data, SEED), agent.transitions(data, SEED)
  arrays = numbers(agent)
  args = steps['before'], steps['vector']
  features = agent.critic.encoder(batch.obs)
  np.testing.assert_allclose(
    features['pixels'], encode(arrays, 'critic', args[0]), 1e-4, 1e-5
  )
  assert agent.critic.encoder.size == 3 * 3 * 4
  np.testing.assert_allclose(
    agent.value(batch.obs), single(arrays, 'value', *args), 1e-4, 1e-4
  )
  expected = twins(arrays, 'critic', *args, steps['action'])
  found = agent.critic(batch.obs, batch.action)[..., 0]
  np.testing.assert_allclose(found, expected, 1e-4, 1e-4)
  # Several actions for the same observations.
  actions = tf.stack([batch.action, -batch.action, 0 * batch.action])
  found = agent.critic(batch.obs, actions)[..., 0]
  assert found.shape == (2, 3, 9)
  np.testing.assert_allclose(found[:, 0], expected, 1e-4, 1e-4)
  expected = twins(arrays, 'critic', *args, -steps['action'])
  np.testing.assert_allclose(found[:, 1], expected, 1e-4, 1e-4)


@pytest.mark.parametrize('method', ['iql', 'sac', 'bc'])
def test_acting_sees_stacks_and_starts_anew(method):
  """As the naive network on naive stacks; each lane has its own episode."""
  agent, _ = make_free(method)
  randomize(agent)
  arrays, state = numbers(agent), None
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (1, 5, 2, 16, 16, 3), np.uint8)[0]
  states = rng.normal(size=(5, 2, 5)).astype(np.float32)
  # A second episode of lane 1 begins at record 3.
  first = np.array([[1, 1], [0, 0], [0, 0], [0, 1], [0, 0]], bool)
  for t in range(5):
    obs = {'image': images[t], 'state': states[t], 'is_first': first[t]}
    lanes = np.array([7, 8]), np.array([t, t])
    action, state = agent.policy(obs, state, lanes, 'eval')
    seen = np.stack(
      [
        stacks(
          np.concatenate([images[:1, lane]] * 2 + [images[:, lane]])[None],
          np.concatenate([[False, True], first[:, lane]])[None],
        )[0, t]
        for lane in range(2)
      ]
    )
    np.testing.assert_array_equal(state['image'], seen)
    if method == 'sac':
      continue
    mean = single(arrays, 'actor', seen / 255, units(agent, states[t]))
    mean = np.tanh(mean) if method == 'bc' else np.clip(mean, -1, 1)
    np.testing.assert_allclose(action, mean, 1e-4, 1e-4)
  sampled, _ = agent.policy(obs, state, lanes)
  again, _ = agent.policy(obs, state, lanes)
  other, _ = agent.policy(obs, state, (lanes[0], lanes[1] + 1))
  np.testing.assert_array_equal(sampled, again)
  assert (sampled != other).any() and np.abs(sampled).max() <= 1
  with pytest.raises(ValueError, match='mode is'):
    agent.policy(obs, state, lanes, 'other')


def test_from_state_alone_and_from_images_alone():
  for presets, keys in ((['proprio'], ['state']), ([], ['image'])):
    config = make_config(
      'debug', *presets, 'sac', {'model_free.channels': [3, 4]}
    )
    agent = make_agent(config, SPACES, ACT)
    assert agent.input_keys == agent.obs_keys == keys
    obs = {k: np.zeros((2, *v.shape), v.dtype) for k, v in SPACES.items()}
    obs['is_first'] = np.ones(2, bool)
    action, state = agent.policy(obs, None, (np.zeros(2), np.zeros(2)))
    assert action.shape == (2, 2) and list(state) == [
      k for k in keys if k == 'image'
    ]


def test_the_cosine():
  agent, _ = make_free('iql', offline_steps=10, online_steps=30)
  found = [agent.decay(step) for step in (0, 10, 20, 40, 50)]
  expected = [1, (1 + np.sqrt(0.5)) / 2, 0.5, 0, 0]
  np.testing.assert_allclose(found, expected, atol=1e-12)
  agent, _ = make_free('iql', iql__cosine_decay=False)
  assert agent.decay(10**9) == 1


def test_impossible_settings():
  with pytest.raises(ConfigError, match='replay.length: 3 records .* least 4'):
    make_config('sac', {'replay.length': 3})
  for key, value, advice in (
    ('iql.expectile', 1.0, 'above 0 and below 1'),
    ('model_free.tau', 0.0, 'above 0 and at most 1'),
    ('sac.target_q', 'max', 'one of mean, min'),
    ('sac.target_entropy', 0.7, 'less than ln 2'),
  ):
    with pytest.raises(ConfigError, match=f'{key}: .*{advice}'):
      make_config(key.split('.')[0].replace('model_free', 'sac'), {key: value})
  for key in ('rssm.deter', 'encoder.act', 'actor_opt.lr', 'moto.alpha'):
    assert without_effect('cql', key)
  assert not without_effect('cql', 'encoder.cnn_keys')
  with pytest.raises(ConfigError, match='iql.expectile has no effect on sac'):
    make_config('sac', {'iql.expectile': 0.7})
  with pytest.raises(ConfigError, match='16 x 16 pixels are too small for 4'):
    make_free('sac', model_free__channels=[4] * 4)
  with pytest.raises(ConfigError, match='model_free.pad: 16 is not possible'):
    make_free('sac', model_free__pad=16)
  shapes = {'a': (16, 16, 3), 'b': (8, 8, 3)}
  with pytest.raises(ConfigError, match='must be of one size'):
    module.measure(shapes, ['a', 'b'], [], make_config().model_free)


def test_presets_have_the_values_of_the_paper():
  for method in ('bc', 'sac', 'cql', 'iql'):
    config = make_config('metaworld', 'small', 'short', method)
    # A batch has so many steps, each from a window of its own.
    steps = config.replay.length - config.model_free.frames
    assert config.replay.batch * steps == 256
    assert config.model_free.channels == (16, 32, 64, 128)
    config = make_config('kitchen', method).model_free
    assert config.channels == (32, 64, 128, 256) and config.pad == 4
    assert make_config(method).model_free_opt.lr == 3e-4
  assert GAMMA != make_config('sac').discount == 0.99


def test_memory_is_estimated_from_below():
  """Kernels of one network, by hand; images shrink to 31, 15, 7 and 3."""
  config = make_config('metaworld', 'sac')
  convolutions = 9 * (9 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
  count = convolutions + 3 * 3 * 256 * 50 + 50 * 256 + 256 * 256
  # A weight, its gradient and two means of Adam, of four bytes each.
  assert weights(config) == 16 * count == 16 * 583_200
  inputs = module.measure({'a': (64, 64, 3)}, ['a'], [], config.model_free)
  net = Net(Layers(0), inputs, config.model_free, 4)
  real = sum(v.shape.num_elements() for v in net.variables)
  assert 0.9 * real < count < real
  config = make_config('sac', {'model_free.channels': [10**7]})
  with pytest.raises(ConfigError, match='--model_free.channels 32,64,128,256'):
    memory.check(config)
  small, large = (
    gradient_step(make_config('sac', {'replay.batch': n})) for n in (256, 512)
  )
  assert large == 2 * small


def test_half_precision():
  """Losses in float32, near those of full precision; parts are explained."""
  found = []
  for precision in ('float32', 'mixed_float16'):
    agent, config = make_free('sac', precision=precision)
    found.append(agent.train(make_data(config), 0))
  for key, value in found[0].items():
    if 'loss' in key:
      assert found[1][key] == pytest.approx(value, 0.05, 0.02), key
  assert {'critic_loss_scale', 'actor_skipped'} <= found[1].keys()
  assert not unexplained(f'train/{k}' for k in found[1])


def test_tanh_normal():
  """Density by the change of variables; finite where tanh rounds to 1."""
  rng = np.random.default_rng(0)
  loc, scale = rng.normal(size=(2, 4, 3)).astype(np.float32)
  scale, noise = np.exp(scale), rng.normal(size=(4, 3)).astype(np.float32)
  dist = TanhNormal(loc, scale)
  value, log_prob = dist.sample_and_log_prob(noise)
  inner = (loc + scale * noise).astype(np.float64)
  np.testing.assert_allclose(value, np.tanh(inner), 1e-5)
  np.testing.assert_array_equal(value, dist.sample(noise=noise))
  normal = -0.5 * (noise**2 + np.log(2 * np.pi)) - np.log(scale)
  expected = (normal - np.log1p(-(np.tanh(inner) ** 2))).sum(-1)
  np.testing.assert_allclose(log_prob, expected, 1e-4, 1e-4)
  np.testing.assert_allclose(dist.log_prob(value), expected, 1e-2, 1e-2)
  np.testing.assert_allclose(dist.mode(), np.tanh(loc), 1e-6)
  _, log_prob = dist.sample_and_log_prob(noise + 100)
  assert np.isfinite(log_prob).all()
  # Densities integrate to 1.
  grid = np.linspace(-1, 1, 20_003)[1:-1, None].astype(np.float32)
  one = TanhNormal([0.3], [0.6])
  total = one.prob(grid).numpy().sum() * (grid[1, 0] - grid[0, 0])
  np.testing.assert_allclose(total, 1, 1e-3)
  sample = one.sample(20_000, seed=[1, 2])
  assert sample.shape == (20_000, 1)
  np.testing.assert_allclose(np.median(sample), np.tanh(0.3), atol=0.02)
  with pytest.raises(TypeError, match='by its name'):
    one.sample(tf.zeros([1]))


def test_diag_normal_is_tfps():
  dist = DiagNormal([0.5, -1.0], [0.1, 2.0])
  found = dist.sample(noise=tf.constant([1.0, -1.0]))
  np.testing.assert_allclose(found, [0.6, -3.0], 1e-6)
  expected = -0.5 * 2 - np.log([0.1, 2.0]).sum() - np.log(2 * np.pi)
  np.testing.assert_allclose(dist.log_prob(found), expected, 1e-5)
