"""Vector observations in units of the data: fit, use, save, restore."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_agent, make_batch, tiny_config

from moto_tf.nn.standardize import LIMIT, Standardize

VECTOR = {'encoder__mlp_keys': 'state', 'decoder__mlp_keys': 'state'}


def make_data(count=500, seed=0):
  """Entries of several spreads, the second constant, the third nearly so."""
  values = np.random.default_rng(seed).normal(size=(count, 5))
  values *= [0.05, 0, 1e-6, 0.3, 2]
  return (values + [0.6, 1, 0.2, -3, 0]).astype(np.float32)


def test_fitted_data_has_mean_zero_and_spread_one():
  scaler, data = Standardize({'state': (5,)}), make_data()
  scaler.fit({'state': data})
  out = scaler('state', tf.constant(data)).numpy()
  wanted = (data - data.mean(0)) / [data[:, 0].std(), 1, 1, *data[:, 3:].std(0)]
  np.testing.assert_allclose(out, wanted, atol=1e-4)
  np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(out.std(0), [1, 0, 0, 1, 1], atol=1e-4)


def test_an_entry_beside_one_of_a_larger_unit_is_not_constant():
  """Such as joint angles beside the forces of contacts."""
  scaler = Standardize({'state': (3,)})
  data = np.random.default_rng(0).normal(size=(99, 3)) * [300, 0.2, 1e-3]
  scaler.fit({'state': data})
  out = scaler('state', tf.constant(data, tf.float32)).numpy()
  np.testing.assert_allclose(out.std(0)[:2], 1, atol=1e-3)
  assert out.std(0)[2] < 2e-3


def test_what_the_data_never_showed_is_limited():
  scaler = Standardize({'state': (5,)})
  scaler.fit({'state': make_data()})
  far = scaler('state', tf.constant([[9.0, 0.5, 9.0, 90.0, -90.0]]))
  np.testing.assert_allclose(far, [[10, -0.5, 8.8, 10, -10]], atol=1e-3)
  assert LIMIT == 10


def test_only_fitted_keys_change():
  scaler = Standardize({'state': (5,)})
  scaler.fit({'state': make_data(), 'other': np.ones(3)})
  np.testing.assert_allclose(scaler('reward', tf.constant([7.0])), [7.0])
  # Before the fit nothing changes but what is out of range.
  fresh = Standardize({'state': (2,)})('state', tf.constant([3.0, 30.0]))
  np.testing.assert_array_equal(fresh, [3, 10])


@pytest.mark.parametrize('seen', ['encoder', 'decoder'])
def test_the_model_sees_and_reconstructs_standardised_vectors(seen):
  config = tiny_config(**{f'{seen}__mlp_keys': 'state'})
  agent = make_agent(config)
  batch = make_batch(config)
  agent.fit({'state': make_data()}.get)
  data = agent.model.preprocess({k: tf.constant(v) for k, v in batch.items()})
  wanted = Standardize({'state': (5,)})
  wanted.fit({'state': make_data()})
  np.testing.assert_allclose(
    data['state'], wanted('state', tf.constant(batch['state'])), atol=1e-5
  )


def test_training_leaves_the_units_alone_and_checkpoints_keep_them():
  config = tiny_config(**VECTOR)
  agent = make_agent(config)
  agent.fit({'state': make_data()}.get)
  before = agent.save()
  keys = [k for k in before if 'standardize' in k]
  assert sorted(keys) == [
    'model/standardize/mean/state',
    'model/standardize/scale/state',
  ]
  agent.train(make_batch(config), 0)
  after = agent.save()
  other = make_agent(tiny_config(seed=1, **VECTOR))
  other.load(after, policy_only=True)
  for key in keys:
    np.testing.assert_array_equal(before[key], after[key])
    np.testing.assert_array_equal(before[key], other.save()[key])
  assert not [k for k in before if 'opt' in k and 'standardize' in k]


def test_an_agent_in_other_units_learns_the_same():
  """Metres or millimetres: equal losses from equally fitted agents."""
  config = tiny_config(**VECTOR)
  results = []
  for unit in (1.0, 1000.0):
    agent = make_agent(config)
    agent.fit({'state': unit * make_data()}.get)
    batch = make_batch(config)
    batch['state'] = make_data(18, 1).reshape(batch['state'].shape) * unit
    results.append(agent.train(batch, 0))
  for key, value in results[0].items():
    assert results[1][key] == pytest.approx(value, rel=1e-3, abs=1e-4), key
