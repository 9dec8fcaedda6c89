"""Distributions keep the contract of TensorFlow Probability."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from test_dists import grid, normal

from moto_tf.nn import dists
from moto_tf.nn.tfutils import gumbel, uniform

tfd = tfp.distributions


def plain_onehot(logits):
  return tfd.Independent(tfd.OneHotCategorical(logits, dtype=tf.float32), 1)


def plain_trunc(loc, scale):
  return tfd.Independent(tfd.TruncatedNormal(loc, scale, -1.0, 1.0), 1)


# Ours, TFP's own, and their parameters [2, 3, 4].
PARAMS = {
  'normal': [normal([2, 3, 4])],
  'bernoulli': [normal([2, 3, 4])],
  'onehot': [normal([2, 3, 4], scale=2)],
  'trunc': [np.tanh(normal([2, 3, 4])), 0.2 + np.exp(normal([2, 3, 4], 1))],
  'diag': [normal([2, 3, 4]), 0.2 + np.exp(normal([2, 3, 4], 1))],
}
OURS = {
  'normal': lambda x: dists.UnitNormal(x, 2),
  'bernoulli': dists.Bernoulli,
  'onehot': dists.OneHot,
  'trunc': dists.TruncNormal,
  'diag': dists.DiagNormal,
}
PLAIN = {
  'normal': lambda x: tfd.Independent(tfd.Normal(x, 1.0), 2),
  'bernoulli': lambda x: tfd.Bernoulli(x, dtype=tf.float32),
  'onehot': plain_onehot,
  'trunc': plain_trunc,
  'diag': lambda x, y: tfd.Independent(tfd.Normal(x, y), 1),
}


def pair(name, dtype=tf.float32, flip=False):
  """Our distribution and TFP's, of equal parameters."""
  params = [tf.cast(x[::-1] if flip else x, dtype) for x in PARAMS[name]]
  return OURS[name](*params), PLAIN[name](
    *(tf.cast(x, tf.float32) for x in params)
  )


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
@pytest.mark.parametrize('name', OURS)
def test_statistics_are_those_of_tfp(name, dtype):
  mine, plain = pair(name, dtype)
  assert isinstance(mine, tfd.Distribution)
  assert mine.dtype == plain.dtype == tf.float32
  assert mine.batch_shape == plain.batch_shape
  assert mine.event_shape == plain.event_shape
  assert mine.reparameterization_type == plain.reparameterization_type
  for each in ('batch_shape_tensor', 'event_shape_tensor'):
    assert (getattr(mine, each)() == getattr(plain, each)()).numpy().all()
  for each in ('mean', 'mode', 'variance', 'stddev', 'entropy'):
    found, expected = getattr(mine, each)(), getattr(plain, each)()
    assert found.dtype == tf.float32 and found.shape == expected.shape, each
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5, err_msg=each)
  # Also of many values at once.
  value = plain.sample(5, seed=1)
  for each in ('log_prob', 'prob'):
    found, expected = getattr(mine, each)(value), getattr(plain, each)(value)
    assert found.dtype == tf.float32 and found.shape == expected.shape, each
    np.testing.assert_allclose(found, expected, 1e-3, 1e-5, err_msg=each)


@pytest.mark.parametrize('name', ['normal', 'bernoulli', 'onehot'])
def test_kl_divergence_also_from_and_to_tfp(name):
  (mine, plain), (other, plain_other) = pair(name), pair(name, flip=True)
  expected = tfd.kl_divergence(plain, plain_other)
  assert expected.shape == mine.batch_shape
  for one in (mine, plain):
    for two in (other, plain_other):
      found = tfd.kl_divergence(one, two)
      np.testing.assert_allclose(found, expected, 1e-4, 1e-5)
  np.testing.assert_array_equal(
    mine.kl_divergence(other), tfd.kl_divergence(mine, other)
  )


@pytest.mark.parametrize('name', OURS)
def test_slices_copies_and_passes_through_functions(name):
  mine, plain = pair(name)
  expected = plain.mean().numpy()
  for found in (mine.copy(), tf.function(lambda: mine)()):
    assert type(found) is type(mine)
    np.testing.assert_allclose(found.mean(), expected, 1e-4, 1e-5)
  found = tf.function(lambda dist: dist.mean())(mine)
  np.testing.assert_allclose(found, expected, 1e-4, 1e-5)
  if mine.batch_shape.rank:
    found = mine[1:]
    assert found.batch_shape == [1, *mine.batch_shape[1:]]
    assert found.event_shape == mine.event_shape
    np.testing.assert_allclose(found.mean(), expected[1:], 1e-4, 1e-5)


@pytest.mark.parametrize('name', OURS)
def test_seeded_samples(name):
  mine, plain = pair(name)
  count = 20_000
  sample = mine.sample(count, seed=[1, 2]).numpy()
  assert sample.shape == (count, 2, 3, 4) and sample.dtype == np.float32
  spread = plain.stddev().numpy()
  error = np.abs(sample.mean(0) - plain.mean()) / (spread / np.sqrt(count))
  assert error.max() < 4.5
  np.testing.assert_allclose(sample.std(0), spread, rtol=0.05, atol=0.01)
  again = mine.sample(count, seed=[1, 2]).numpy()
  np.testing.assert_array_equal(sample, again)
  for other in (mine.sample(count, seed=[1, 3]), mine.sample(count)):
    assert (other.numpy() != sample).any()
  # Independent in all of its entries.
  rows = sample.reshape(count, -1) - sample.reshape(count, -1).mean(0)
  if name != 'onehot':
    corr = np.corrcoef(rows.T) - np.eye(rows.shape[1])
    assert np.abs(corr).max() < 0.04
  compiled = tf.function(lambda: mine.sample([3, 2], seed=[1, 2]))()
  assert compiled.shape == (3, 2, 2, 3, 4)
  assert mine.sample(seed=3).shape == (2, 3, 4)
  value, log_prob = mine.experimental_sample_and_log_prob([3], seed=[1, 2])
  np.testing.assert_allclose(log_prob, mine.log_prob(value), 1e-5)


def test_samples_of_noise():
  mine, _ = pair('onehot')
  noise = gumbel([5, 2, 3, 4], [0, 1])
  found = mine.sample(noise=noise)
  index = np.argmax(PARAMS['onehot'][0] + noise, -1)
  np.testing.assert_array_equal(found, np.eye(4)[index])
  np.testing.assert_array_equal(mine.sample(noise=0.0), mine.mode())
  mine, plain = pair('trunc')
  noise = uniform([5, 2, 3, 4], [0, 1])
  found = mine.sample(noise=noise)
  np.testing.assert_allclose(plain.distribution.cdf(found), noise, atol=1e-4)


@pytest.mark.parametrize('name', ['onehot', 'trunc'])
def test_noise_is_not_mistaken_for_a_shape(name):
  mine, _ = pair(name)
  noise = uniform([4], [0, 1])
  for value in (noise, noise.numpy()):
    with pytest.raises(TypeError, match='by its name'):
      mine.sample(value)
  for args in ({'seed': 1}, {'sample_shape': [2]}, {'sample_shape': 2}):
    with pytest.raises(TypeError, match='either'):
      mine.sample(noise=noise, **args)


def test_straight_through_with_many_samples():
  """The gradient is that of as many softmaxes."""
  logits = tf.constant(PARAMS['onehot'][0])
  noise, weight = gumbel([5, 2, 3, 4], [0, 1]), normal([5, 2, 3, 4], 7)
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(logits)
    found = dists.OneHot(logits).sample(noise=noise)
    found = tf.reduce_sum(weight * found)
    soft = tf.reduce_sum(weight * tf.nn.softmax(logits))
  found, expected = (tape.gradient(x, logits) for x in (found, soft))
  np.testing.assert_allclose(found, expected, 1e-4, 1e-6)


def test_nothing_is_kept_between_calls():
  """What was computed in a function is not in its way afterwards."""
  mine, _ = pair('onehot')
  other, _ = pair('trunc')
  for dist in (mine, other):
    inside = tf.function(lambda dist=dist: dist.entropy())()
    np.testing.assert_allclose(inside, dist.entropy(), 1e-6)


def test_log_prob_outside_of_the_bounds():
  mine, plain = pair('trunc')
  value = np.full([2, 3, 4], 0.5, np.float32)
  value[0, 0, 0], value[1, 0, 1], value[1, 1] = 1.5, -1.01, 1.0
  found, expected = mine.log_prob(value), plain.log_prob(value)
  np.testing.assert_allclose(found, expected, 1e-4)
  assert np.isinf(found).sum() == 2


def sample_and_grad(sample, loc, scale):
  """Sample of independent entries, and d sample / d loc and d scale."""
  with tf.GradientTape() as tape:
    loc, scale = tf.constant(loc), tf.constant(scale)
    tape.watch([loc, scale])
    value = sample(loc, scale)
  return value, *tape.gradient(value, [loc, scale])


def dreamer_sample(loc, scale):
  """As DreamerV2 samples: TFP's sample, clipped without a gradient."""
  event = tfd.TruncatedNormal(loc, scale, -1.0, 1.0).sample(seed=[4, 5])
  clipped = tf.clip_by_value(event, -1 + 1e-6, 1 - 1e-6)
  return event - tf.stop_gradient(event) + tf.stop_gradient(clipped)


def test_dreamer_gradient_is_that_of_tfp():
  """Where the sample is the same, and with it the noise that makes it."""
  loc, scale = (np.repeat(x[:, None], 50, 1) for x in grid())
  value, *expected = sample_and_grad(dreamer_sample, loc, scale)
  np.testing.assert_array_equal(expected[0], np.ones_like(loc))
  cast = lambda x: tf.cast(x, tf.float64)
  exact = tfd.TruncatedNormal(cast(loc), cast(scale), cast(-1.0), cast(1.0))
  noise = tf.cast(exact.cdf(cast(value)), tf.float32)

  def mine(loc, scale):
    return dists.TruncNormal(loc, scale, 'dreamerv2').sample(noise=noise)

  found, *grads = sample_and_grad(mine, loc, scale)
  np.testing.assert_allclose(found, value, atol=1e-4)
  np.testing.assert_array_equal(grads[0], expected[0])
  np.testing.assert_allclose(grads[1], expected[1], rtol=5e-3, atol=5e-3)
  exact = dists.TruncNormal(loc, scale).sample(noise=noise)
  np.testing.assert_array_equal(found, exact)


def test_dreamer_gradient_passes_where_samples_are_clipped():
  ones = np.ones([1, 1], np.float32)

  def mine(loc, scale):
    dist = dists.TruncNormal(loc, scale, 'dreamerv2')
    return dist.sample(noise=1 - 1e-7 * ones)

  value, by_loc, by_scale = sample_and_grad(mine, ones, 0.3 * ones)
  assert value == 1 - np.float32(1e-6)
  assert by_loc == 1 and abs(by_scale) < 1e-3


@pytest.mark.parametrize('noise', [0.05, 0.4, 0.7, 0.95])
def test_exact_gradient_is_a_difference_quotient(noise):
  loc, scale = np.meshgrid([-0.9, -0.3, 0.0, 0.6], [0.1, 0.4, 1.1, 2.1])

  def invert(loc, scale):
    low, high = (-1 - loc) / scale, (1 - loc) / scale
    return scipy.stats.truncnorm.ppf(noise, low, high, loc, scale)

  def mine(loc, scale):
    return dists.TruncNormal(loc, scale).sample(noise=noise)

  step = 1e-4
  slopes = [
    (invert(loc + step, scale) - invert(loc - step, scale)) / (2 * step),
    (invert(loc, scale + step) - invert(loc, scale - step)) / (2 * step),
  ]
  params = [x.astype(np.float32) for x in (loc, scale)]
  value, *grads = sample_and_grad(mine, *params)
  np.testing.assert_allclose(value, invert(loc, scale), atol=1e-4)
  for found, expected in zip(grads, slopes, strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


def test_unknown_gradient_is_refused():
  with pytest.raises(ValueError, match='sample_grad'):
    dists.TruncNormal([0.0], [1.0], 'tfp')
