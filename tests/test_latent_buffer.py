"""Latent buffers: order, ages, shares, bounds, and that they come back."""

import collections

import golden_runs
import numpy as np
import pytest
import tensorflow as tf
from helpers import make_batch
from latent_helpers import latent_agent, latent_config

import moto_tf
from moto_tf import memory
from moto_tf.agents import sizes
from moto_tf.agents.latent_buffer import LatentBuffer, Ring, without_broken
from moto_tf.envs.gym import wrap_gym
from moto_tf.nn.tfutils import make_seed
from moto_tf.rules import ConfigError

ROWS, LENGTH, COUNT = 7, 3, 3
SEED = tf.constant(make_seed(5))


def step(number):
  return tf.constant(number, tf.int64)


def make_rows(first, count=COUNT, length=LENGTH):
  """Rows whose states are numbered: 100 * row + t, and likewise the rest."""
  row = 100 * (first + np.arange(count))[:, None]
  state, now = row + np.arange(length + 1), row + np.arange(length)
  values = {
    'feat': np.stack([state, -state], -1),
    'action': now[..., None] + 0.25,
    'reward': now + 0.5,
    'discount': 1 / (1 + now),
    'mask': now % 2,
  }
  return {k: tf.constant(v, tf.float32) for k, v in values.items()}


def filled(*steps):
  """A ring to which three rows were added at each of these steps."""
  ring = Ring(ROWS, LENGTH, 2, 1)
  for i, number in enumerate(steps):
    ring.add(make_rows(COUNT * i), step(number))
  return ring


def test_newest_rows_take_the_place_of_the_oldest():
  """Against a list, over several rounds."""
  ring, naive, place = Ring(ROWS, LENGTH, 2, 1), [None] * ROWS, 0
  for added in range(6):
    ring.add(make_rows(COUNT * added), step(10 * added))
    for row in range(COUNT * added, COUNT * added + COUNT):
      naive[place] = row, 10 * added
      place = (place + 1) % ROWS
    state = {k: v.numpy() for k, v in ring.state('x/').items()}
    assert ring.held == sum(x is not None for x in naive)
    for i, known in enumerate(naive):
      if known is None:
        assert not state['x/feat'][i].any()
        continue
      row, when = known
      for key, value in make_rows(row, 1).items():
        np.testing.assert_array_equal(state[f'x/{key}'][i], value[0])
      assert state['x/step'][i] == when


@pytest.mark.parametrize('steps', [(4,), (4, 9), (4, 9, 11, 30)])
def test_samples_are_transitions_of_what_is_held(steps):
  """Each equally often, whole, with its age, and nothing that was left."""
  ring, count = filled(*steps), 6000
  found = ring.sample(count, SEED, step(50))
  found = {k: v.numpy() for k, v in found.items()}
  now = found['feat'][:, 0]
  np.testing.assert_array_equal(found['feat'][:, 1], -now)
  np.testing.assert_array_equal(found['next'][:, 0], now + 1)
  np.testing.assert_array_equal(found['action'][:, 0], now + 0.25)
  np.testing.assert_array_equal(found['reward'], now + 0.5)
  np.testing.assert_allclose(found['discount'], 1 / (1 + now), 1e-6)
  np.testing.assert_array_equal(found['mask'], now % 2)
  row = now.astype(int) // 100
  np.testing.assert_array_equal(found['age'], 50 - np.array(steps)[row // 3])
  total = COUNT * len(steps)
  held = range(max(0, total - ROWS), total)
  expected = {100 * r + t for r in held for t in range(LENGTH)}
  counts = collections.Counter(now.astype(int).tolist())
  assert counts.keys() == expected
  mean = count / len(expected)
  spread = [abs(x - mean) / np.sqrt(mean) for x in counts.values()]
  assert max(spread) < 4.5


def test_seeds():
  ring = filled(1, 2)
  one, same = (ring.sample(9, SEED, step(3))['reward'] for _ in range(2))
  other = ring.sample(9, tf.constant(make_seed(6)), step(3))['reward']
  np.testing.assert_array_equal(one, same)
  assert (one != other).numpy().any()


def test_more_rows_than_fit():
  with pytest.raises(ValueError, match='8 rows do not fit into a ring of 7'):
    Ring(ROWS, LENGTH, 2, 1).add(make_rows(0, 8), step(0))


def test_half_of_a_batch_comes_from_each():
  config = latent_config(latent__batch=500)
  buffer = LatentBuffer(config, 2, 1)
  length = config.replay.length - 1
  assert (buffer.real.rows, buffer.real.length) == (60 // length, length)
  assert (buffer.latent.rows, buffer.latent.length) == (20, 3)
  buffer.real.add(make_rows(0, 4, length), step(2))
  buffer.latent.add(make_rows(50, 9), step(5))
  batch, metrics = buffer.sample(SEED, step(7))
  reward = batch['reward'].numpy()
  assert len(reward) == 1000
  assert reward[:500].max() < 5000 <= reward[500:].min()
  # Of both, other places are drawn.
  assert len(np.unique(reward[:500])) == 4 * length
  assert len(np.unique(reward[500:])) == 27
  assert {k: float(v) for k, v in metrics.items()} == {
    'real_age': 5,
    'latent_age': 2,
    'real_held': 4 * length,
    'latent_held': 27,
  }


def test_rows_that_are_not_finite_are_left_out():
  rows = make_rows(1, count=4)
  broken = {k: v.numpy() for k, v in rows.items()}
  broken['feat'][1, 2, 0] = np.inf
  broken['reward'][3, 0] = np.nan
  found, count = without_broken({k: tf.constant(v) for k, v in broken.items()})
  assert count == 2
  for key, value in rows.items():
    np.testing.assert_array_equal(found[key].numpy()[::2], value[::2])
    assert not found[key].numpy()[1::2].any()


def test_a_state_that_overflows_does_not_stay():
  """Both buffers stay finite, as checkpoints have to be."""
  agent = latent_agent('combo')
  batch = make_batch(latent_config())
  data, behavior = agent.model.preprocess(batch), agent.behavior
  post = dict(agent._encode_step(batch, SEED))
  one = tf.one_hot([0], post['feat'].shape[0])[0][:, None, None]
  for key in ('feat', 'deter'):
    post[key] = tf.where(one > 0, np.nan, post[key])
  metrics = behavior.add(post, data, SEED, step(4))
  starts = post['feat'].shape[1]
  assert metrics['buffer_broken'] == 1 + starts
  arrays = {k: v for k, v in agent.save().items() if k.startswith('buffer/')}
  assert all(np.isfinite(x).all() for x in arrays.values())
  assert arrays['buffer/real/mask'].any()


def test_memory_is_bounded_and_counted():
  config = latent_config()
  agent = latent_agent()
  batch = make_batch(config)
  size = lambda: sum(
    v.numpy().nbytes
    for k, v in agent.variables().items()
    if k.startswith('buffer/')
  )
  before = size()
  for number in range(8, 14):
    agent.train(batch, number)
  assert size() == before
  # Twice, as a checkpoint copies them; the sizes of actions are not known.
  assert 0.8 * 2 * before < sizes.latent_buffers(config) < 2 * before
  assert memory.estimate(config)['latent buffers'] > 0
  assert memory.estimate(moto_tf.make_config())['latent buffers'] == 0
  large = moto_tf.make_config('lompo', {'latent.capacity': 10**11})
  with pytest.raises(ConfigError, match=r'buffers.*--latent.capacity \d+'):
    memory.check(large)


def test_an_agent_comes_back_bit_for_bit():
  """Between two additions; buffers wrap before and after."""
  settings = dict(offline_steps=10, latent__model_share=0.1)
  batches = [make_batch(latent_config(), i) for i in range(12)]
  whole, first = latent_agent(**settings), latent_agent(**settings)
  for agent, end in ((whole, 12), (first, 8)):
    for number in range(end):
      agent.train(batches[number], number)
  second = latent_agent(noise=3, **settings)
  second.load(first.save())
  for number in range(8, 12):
    metrics = second.train(batches[number], number)
  assert metrics['latent_held'] == metrics['real_held'] == 60
  assert metrics['real_age'] > metrics['latent_age'] > 0
  end, found = whole.save(), second.save()
  assert end.keys() == found.keys()
  for name, value in end.items():
    np.testing.assert_array_equal(found[name], value, name)
  # Acting needs none of it.
  third = latent_agent(noise=4, **settings)
  arrays = {k: v for k, v in end.items() if not k.startswith('buffer/')}
  third.load(arrays, policy_only=True)
  assert not any(x.startswith('buffer/') for x in third.policy_variables())


def test_a_run_comes_back_bit_for_bit(tmp_path):
  """Left between two checkpoints, without a word."""
  demos, arrays = tmp_path / 'demos', []
  for name in ('whole', 'left'):
    config = moto_tf.make_config(
      'gym',
      'debug',
      'lompo',
      {
        'task': 'custom_reach',
        'env.image': False,
        'logdir': str(tmp_path / name),
        'offline_data': str(demos),
        'precision': 'float32',
        'env_workers': 'none',
        'envs': 1,
        'offline_steps': 4,
        'online_steps': 4,
        'prefill_episodes': 0,
        'eval_every': 0,
        'report_every': 0,
        'checkpoint_every': 2,
        r'.+coder\.cnn_keys': '$^',
        r'.+coder\.mlp_keys': 'state',
        r'.*\.layers': [16],
        r'rssm\.(deter|hidden)': 16,
        'latent.capacity': 100,
        'latent.add_every': 2,
      },
    )
    if not demos.exists():
      golden_runs.write_demos(demos, config)
    make_env = lambda env=config.env: wrap_gym(golden_runs.Reach(), env)
    if name == 'left':
      with moto_tf.Run(config, make_env=make_env) as run:
        run.prefill()
        for _ in run.offline_steps():
          run.update(run.sample())
          if run.gradient_step == 3:
            break
    moto_tf.train(config, make_env=make_env)
    (path,) = (tmp_path / name / 'checkpoints').glob('*-00000008.npz')
    with np.load(path) as file:
      arrays.append({k: file[k] for k in file.files if k != 'meta'})
  whole, left = arrays
  assert whole.keys() == left.keys()
  assert np.any(whole['buffer/latent/feat'])
  for key, value in whole.items():
    np.testing.assert_array_equal(left[key], value, key)
