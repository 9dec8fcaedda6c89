"""Constants of methods are those of the settings, wherever they are used."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_agent, make_batch, randomize, tiny_config
from latent_helpers import latent_config
from model_free_naive import make_data, make_free

MODEL_FREE = 'bc', 'sac', 'cql', 'iql'
LATENT = 'lompo', 'combo'
# Images take most of the time.
VECTOR = {
  'env__image': False,
  'encoder__mlp_keys': 'state',
  'encoder__cnn_keys': '$^',
  'decoder__mlp_keys': 'state',
  'decoder__cnn_keys': '$^',
}
DATA_TARGET = {
  name: {'moto__data_target': name} for name in ('one_step', 'lambda')
}
ENDS = {'pred_discount': True}
# Method and other settings; the constant and its other value; what differs, a
# metric or the names of weights. Each is what one use of the constant changes
# by itself, where there are several.
CASES = [
  ('iql', {}, 'iql__temperature', 1.0, 'actor_weight'),
  ('iql', {}, 'iql__clip', 1e-3, 'actor_weight'),
  ('iql', {}, 'iql__expectile', 0.9, 'value_loss'),
  ('cql', {}, 'cql__alpha', 1.0, 'critic_loss'),
  ('cql', {}, 'cql__actions', 2, 'cql_loss'),
  ('sac', {}, 'sac__target_entropy', -2.0, 'temperature_loss'),
  ('sac', {}, 'sac__temperature', 0.5, 'temperature'),
  ('sac', {}, 'model_free__tau', 0.5, 'target/'),
  ('iql', {}, 'model_free__tau', 0.5, 'target/'),
  ('sac', {}, 'discount', 0.5, 'critic_data_target'),
  ('lompo', {}, 'lompo__lmbd', 1.0, 'imag_penalty'),
  ('lompo', {}, 'lompo__lmbd', 1.0, 'imag_reward'),
  ('combo', {}, 'combo__conservatism', 1.0, 'critic_conservative_loss'),
  ('combo', {}, 'combo__actions', 3, 'critic_gap'),
  ('lompo', {}, 'latent__noise', 0.5, 'buffer/latent/action'),
  ('lompo', {}, 'discount', 0.5, 'buffer/real/discount'),
  ('lompo', {}, 'discount', 0.5, 'buffer/latent/discount'),
  ('dreamerv2', {}, 'discount_lambda', 0.5, 'imag_value'),
  ('dreamerv2', {}, 'discount', 0.5, 'imag_value'),
  ('moto', {}, 'discount_lambda', 0.5, 'imag_value'),
  ('moto', {}, 'discount_lambda', 0.5, 'critic_model_target'),
  ('moto', DATA_TARGET['lambda'], 'discount_lambda', 0.5, 'critic_data_target'),
  ('moto', {}, 'discount', 0.5, 'imag_value'),
  ('moto', DATA_TARGET['one_step'], 'discount', 0.5, 'critic_data_target'),
  ('moto', DATA_TARGET['lambda'], 'discount', 0.5, 'critic_data_target'),
  ('moto', ENDS, 'discount', 0.5, 'discount_loss'),
]


@pytest.fixture(scope='module', autouse=True)
def graphs():
  """Leaves tf.function on for the tests that follow."""
  yield
  tf.config.run_functions_eagerly(False)


def build(method, settings):
  """An agent and its batch, both the same whatever the settings."""
  if method in MODEL_FREE:
    agent, config = make_free(method, **settings)
    return agent, make_data(config)
  if method in LATENT:
    settings = {'offline_steps': 0, 'latent__add_every': 1, **settings}
    config = latent_config(method, **settings)
  else:
    heads = {'rssm__ensemble': 1} if method == 'dreamerv2' else {}
    config = tiny_config(method=method, **VECTOR, **heads, **settings)
  return make_agent(config), make_batch(config, firsts=((0, 3),))


def steps(method, settings):
  """Metrics of two gradient steps, and all arrays after each of them."""
  agent, batch = build(method, settings)
  randomize(agent)
  return [(agent.train(batch, i), agent.save()) for i in range(2)]


@functools.cache
def default(method, settings):
  return steps(method, dict(settings))


def differ(one, other):
  """By more than what rounding does."""
  one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
  return np.abs(one - other).max() > 1e-4 * np.abs(one).max()


@pytest.mark.parametrize('method, settings, key, value, name', CASES)
def test_a_constant_is_that_of_the_settings(method, settings, key, value, name):
  """From equal weights and batches, two gradient steps are other ones."""
  before = default(method, tuple(settings.items()))
  after = steps(method, {**settings, key: value})
  for (metrics, arrays), (others, changed) in zip(before, after, strict=True):
    if name in metrics:
      assert differ(metrics[name], others[name])
      continue
    found = [k for k in arrays if k.startswith(name)]
    assert found and any(differ(arrays[k], changed[k]) for k in found)
