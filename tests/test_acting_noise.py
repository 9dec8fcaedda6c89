"""How much noise actions have: while collecting, in evaluation, and at most."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_agent, make_batch, randomize, tiny_config
from model_free_naive import make_free

LANES = np.arange(8), np.zeros(8, int)


@pytest.fixture(scope='module', autouse=True)
def graphs():
  """Leaves tf.function on for the tests that follow."""
  yield
  tf.config.run_functions_eagerly(False)


def make(method, **settings):
  """An agent of random weights, the same whatever the settings."""
  if method == 'moto':
    agent = make_agent(tiny_config(**settings))
  else:
    agent, _ = make_free(method, **settings)
  randomize(agent)
  return agent


def act(agent, mode):
  """First actions of eight lanes."""
  batch = make_batch(tiny_config(replay__batch=8, moto__start_states=0))
  obs = {k: batch[k][:, 0] for k in ('image', 'state', 'is_first')}
  return agent.policy(obs, None, LANES, mode)[0]


@pytest.mark.parametrize('method', ['sac', 'iql', 'bc'])
def test_collecting_with_less_noise(method):
  """Without any it is what evaluation does by mean or mode."""
  agent = make(method, collect_std=1e-6)
  found, expected = act(agent, 'train'), act(agent, 'eval')
  np.testing.assert_allclose(found, expected, atol=1e-4)
  agent = make(method, collect_std=1.0)
  np.testing.assert_array_equal(act(agent, 'eval'), expected)
  assert np.abs(act(agent, 'train') - expected).max() > 0.1


@pytest.mark.parametrize('method', ['moto', 'sac', 'iql'])
def test_samples_of_evaluation_have_all_of_the_noise(method):
  """However little there is while collecting."""
  settings = {'eval_action': 'sample'}
  less = make(method, collect_std=0.1, **settings)
  whole = make(method, collect_std=1.0, **settings)
  sample, mean = act(less, 'eval'), act(make(method), 'eval')
  np.testing.assert_array_equal(sample, act(whole, 'eval'))
  np.testing.assert_array_equal(sample, act(whole, 'train'))
  assert np.abs(sample - mean).max() > 0.1
  assert np.abs(sample - act(less, 'train')).max() > 0.1


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_bounds_of_the_deviation_of_sac(scale):
  """Before tanh, and before the factor on it: e^-20 to e^2."""
  agent = make('sac')
  state = agent.variables()
  state['actor/mlp/out/kernel'].assign(
    tf.zeros_like(state['actor/mlp/out/kernel'])
  )
  features = {'pixels': tf.zeros([3, 36]), 'vector': tf.zeros([3, 5])}
  for log_std, expected in (
    ([10.0, -100.0], [np.exp(2), np.exp(-20)]),
    ([1.9, -19.0], [np.exp(1.9), np.exp(-19)]),
  ):
    state['actor/mlp/out/bias'].assign([0.3, -0.2, *log_std])
    dist = agent.dist(features, scale)
    np.testing.assert_allclose(dist._loc, [[0.3, -0.2]] * 3, rtol=1e-6)
    found = np.asarray(dist._scale, np.float64)
    np.testing.assert_allclose(found, [scale * np.array(expected)] * 3, 1e-5)
