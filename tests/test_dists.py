"""Distributions against TensorFlow Probability and plain numpy."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from plain import MODES, TOLERANCE, assert_near, evaluate

from moto_tf.nn import dists
from moto_tf.nn.tfutils import gumbel, make_seed

tfd = tfp.distributions

MEANS = [-1.0, -0.99, -0.3, 0.0, 0.5, 1.0]
STDS = [0.02, 0.1, 0.5, 2.1]


def normal(shape, seed=0, scale=1.0):
  return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def grid():
  """All pairs of means and deviations: two arrays [N]."""
  mean, std = np.meshgrid(MEANS, STDS)
  return mean.ravel().astype(np.float32), std.ravel().astype(np.float32)


def reference(mean, std):
  """TensorFlow Probability's truncated normal, in float64."""
  cast = lambda x: tf.cast(x, tf.float64)
  low, high = cast(-1.0), cast(1.0)
  return tfd.TruncatedNormal(cast(mean), cast(std), low, high)


def onehot(logit):
  return tfd.Independent(tfd.OneHotCategorical(logits=logit), 1)


def test_onehot_matches_tfp():
  one, two = normal([5, 3, 4], 1, 3), normal([5, 3, 4], 2, 3)
  value = np.eye(4, dtype=np.float32)[[[0, 3, 2]] * 4 + [[1, 1, 1]]]
  mine = dists.OneHot(one)
  np.testing.assert_allclose(
    mine.log_prob(value), onehot(one).log_prob(value), rtol=1e-5
  )
  np.testing.assert_allclose(mine.entropy(), onehot(one).entropy(), rtol=1e-5)
  np.testing.assert_allclose(
    mine.kl_divergence(dists.OneHot(two)),
    onehot(one).kl_divergence(onehot(two)),
    rtol=1e-4,
  )
  assert mine.kl_divergence(mine).numpy().tolist() == [0.0] * 5


def test_onehot_ignores_a_common_shift():
  logit = normal([5, 3, 4])
  plain, shifted = dists.OneHot(logit), dists.OneHot(logit + 7)
  value = plain.sample(seed=0)
  np.testing.assert_allclose(
    plain.log_prob(value), shifted.log_prob(value), atol=1e-5
  )


def test_onehot_extreme_logits_stay_finite():
  logit = np.array([[[100.0, -100.0, 0.0]], [[-1e4, 1e4, 0.0]]], np.float32)
  one, two = dists.OneHot(logit), dists.OneHot(logit[::-1])
  for value in (
    one.entropy(),
    one.kl_divergence(two),
    one.log_prob(two.sample(noise=0.0)),
  ):
    assert np.isfinite(value).all()


@pytest.mark.parametrize('dtype', [tf.float32, tf.float16, tf.bfloat16])
def test_onehot_samples_are_exactly_one_hot(dtype):
  logit = tf.cast(normal([200, 3, 4]), dtype)
  dist = dists.OneHot(logit)
  for value in (
    dist.sample(noise=gumbel([200, 3, 4], [0, 1])),
    dist.sample(noise=0.0),
  ):
    assert value.dtype == tf.float32
    assert set(np.unique(value)) == {0, 1}
    assert (value.numpy().sum(-1) == 1).all()
  best = tf.reduce_max(logit, -1, keepdims=True)
  assert (logit == best).numpy()[dist.sample(noise=0.0).numpy() == 1].all()


def test_onehot_samples_follow_probabilities():
  logit, count = normal([2, 5], 3, 1.5), 20_000
  noise = gumbel([count, 2, 5], make_seed(0))
  sample = dists.OneHot(np.broadcast_to(logit, [count, 2, 5])).sample(
    noise=noise
  )
  expected = count * np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)
  chi2 = ((sample.numpy().sum(0) - expected) ** 2 / expected).sum(-1)
  assert (chi2 < 23.5).all()  # 1 in 10,000 for four degrees of freedom.


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('scale', [1, 30])
def test_onehot_sample_is_the_largest_with_the_gradient_of_softmax(scale, mode):
  logit, noise = normal([6, 3, 4], 0, scale), gumbel([6, 3, 4], [5, 6])
  sample = lambda x: dists.OneHot(x).sample(noise=noise)
  value, grad = evaluate(sample, [logit], mode=mode)
  expected = np.eye(4)[np.argmax(logit + noise, -1)]
  np.testing.assert_array_equal(value, expected)
  assert_near([grad], evaluate(tf.nn.softmax, [logit])[1:])


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_onehot_gradient_in_low_precision(dtype):
  logit, noise = normal([6, 3, 4]), gumbel([6, 3, 4], [5, 6])
  sample = lambda x: dists.OneHot(tf.cast(x, dtype)).sample(noise=noise)
  expected = evaluate(tf.nn.softmax, [logit])[1:]
  assert_near(evaluate(sample, [logit])[1:], expected, TOLERANCE[dtype])


@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_onehot_gradients_match_tfp(mode):
  inputs = normal([5, 3, 4], 1, 3), normal([5, 3, 4], 2, 3)
  value = np.eye(4, dtype=np.float32)[[[0, 3, 2]] * 4 + [[1, 1, 1]]]

  def mine(one, two):
    one, two = dists.OneHot(one), dists.OneHot(two)
    return one.log_prob(value), one.entropy(), one.kl_divergence(two)

  def reference(one, two):
    one, two = onehot(one), onehot(two)
    return one.log_prob(value), one.entropy(), one.kl_divergence(two)

  assert_near(evaluate(mine, inputs, mode=mode), evaluate(reference, inputs))


@pytest.mark.parametrize('mode', MODES)
def test_normal_and_its_gradients_match_tfp(mode):
  inputs = normal([2, 3, 4, 5], 0), normal([2, 3, 4, 5], 1)

  def mine(mean, value):
    dist = [dists.UnitNormal(mean, dims) for dims in (0, 1, 3)]
    return [d.log_prob(value) for d in dist], dist[0].mean()

  def reference(mean, value):
    dist = tfd.Normal(mean, 1.0)
    each = [tfd.Independent(dist, dims) for dims in (0, 1, 3)]
    return [d.log_prob(value) for d in each], dist.mean()

  assert_near(evaluate(mine, inputs, mode=mode), evaluate(reference, inputs))


@pytest.mark.parametrize('mode', MODES)
def test_bernoulli_and_its_gradients_match_tfp(mode):
  logit = normal([2, 7], 0, 3) + [[0] * 7, [50, -50, 0, 0, 9, -9, 1]]
  target = np.broadcast_to(np.linspace(0, 1, 7), [2, 7])
  inputs = [x.astype(np.float32) for x in (logit, target)]

  def mine(logit, target):
    dist = dists.Bernoulli(logit)
    return dist.log_prob(target), dist.mean()

  def reference(logit, target):
    dist = tfd.Bernoulli(logit)
    return dist.log_prob(target), dist.mean()

  assert_near(evaluate(mine, inputs, mode=mode), evaluate(reference, inputs))


def test_normal_sums_over_the_last_axes():
  mean, value = normal([2, 3, 4, 5], 0), normal([2, 3, 4, 5], 1)
  expected = -0.5 * (value - mean) ** 2 - 0.5 * np.log(2 * np.pi)
  for dims, axes in ((0, ()), (1, (3,)), (3, (1, 2, 3))):
    result = dists.UnitNormal(tf.cast(mean, tf.float32), dims).log_prob(value)
    np.testing.assert_allclose(result, expected.sum(axes), rtol=1e-5)
  assert (
    dists.UnitNormal(tf.cast(mean, tf.float16), 1).mean().dtype == tf.float32
  )


def test_bernoulli_takes_soft_targets():
  logit, target = normal([7], 0, 3), np.linspace(0, 1, 7, dtype=np.float32)
  prob = 1 / (1 + np.exp(-logit))
  expected = target * np.log(prob) + (1 - target) * np.log(1 - prob)
  dist = dists.Bernoulli(logit)
  np.testing.assert_allclose(dist.log_prob(target), expected, rtol=1e-4)
  np.testing.assert_allclose(dist.mean(), prob, rtol=1e-5)


def test_trunc_normal_log_prob_matches_tfp():
  mean, std = grid()
  values = np.linspace(-1, 1, 21, dtype=np.float32)
  for value in values:
    value = np.full_like(mean, value)
    result = dists.TruncNormal(mean[:, None], std[:, None]).log_prob(
      value[:, None]
    )
    expected = reference(mean, std).log_prob(tf.cast(value, tf.float64))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_trunc_normal_density_integrates_to_one():
  mean, std = grid()
  edges = np.linspace(-1, 1, 20_001)
  middle = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)[:, None, None]
  dist = dists.TruncNormal(mean[:, None], std[:, None])
  mass = np.exp(dist.log_prob(middle).numpy()).mean(0) * 2
  np.testing.assert_allclose(mass, 1, atol=1e-3)


def test_trunc_normal_entropy_mode_and_mean_match_tfp():
  mean, std = grid()
  dist = dists.TruncNormal(mean[:, None], std[:, None])
  expected = reference(mean, std)
  np.testing.assert_allclose(
    dist.entropy(), expected.entropy(), rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(dist.mode()[:, 0], expected.mode(), atol=1e-6)
  np.testing.assert_allclose(dist.mean()[:, 0], expected.mean(), atol=2e-5)


def test_trunc_normal_gradients_match_tfp():
  """Away from the smallest deviations, where float32 is too coarse."""
  mean, std = grid()
  inputs = [x[std > 0.1, None] for x in (mean, std)]
  inputs.append(np.tanh(normal(inputs[0].shape)))

  def mine(mean, std, value):
    dist = dists.TruncNormal(mean, std)
    return dist.log_prob(value), dist.entropy()

  def plain(mean, std, value):
    dist = reference(mean, std)
    results = dist.log_prob(tf.cast(value, tf.float64)), dist.entropy()
    return [tf.reduce_sum(x, -1) for x in results]

  assert_near(evaluate(mine, inputs), evaluate(plain, inputs), 1e-4)


def test_trunc_normal_sums_over_the_last_axis():
  mean, std = np.tanh(normal([4, 3])), np.exp(normal([4, 3], 1))
  value = np.tanh(normal([4, 3], 2))
  dist, expected = dists.TruncNormal(mean, std), reference(mean, std)
  np.testing.assert_allclose(
    dist.log_prob(value),
    tf.reduce_sum(expected.log_prob(tf.cast(value, tf.float64)), -1),
    rtol=1e-4,
  )
  np.testing.assert_allclose(
    dist.entropy(), tf.reduce_sum(expected.entropy(), -1), rtol=1e-4
  )


def test_trunc_normal_samples_invert_the_distribution_function():
  mean, std = grid()
  count = 1000
  noise = (np.arange(count, dtype=np.float32) + 0.5)[:, None, None] / count
  noise = np.broadcast_to(noise, [count, len(mean), 1])
  sample = dists.TruncNormal(mean[:, None], std[:, None]).sample(noise=noise)
  assert (np.abs(sample) < 1).all()
  cdf = reference(mean, std).cdf(tf.cast(sample[..., 0], tf.float64))
  np.testing.assert_allclose(cdf, noise[..., 0], atol=2e-4)


@pytest.mark.parametrize('mean, std', [(-1, 0.1), (0.3, 0.4), (1, 2.1)])
def test_trunc_normal_samples_follow_the_distribution(mean, std):
  count = 4000
  noise = tf.random.stateless_uniform([count, 1], make_seed(3))
  sample = dists.TruncNormal([float(mean)], [std]).sample(noise=noise)
  cdf = reference(mean, std).cdf(tf.cast(sample[:, 0], tf.float64)).numpy()
  gap = np.abs(np.sort(cdf) - (np.arange(count) + 0.5) / count).max()
  assert gap < 1.95 / np.sqrt(count)  # Kolmogorov-Smirnov, 1 in 1000.


def test_trunc_normal_gradient_matches_implicit_reparameterisation():
  """dx / dtheta = -(dF / dtheta) / p(x), from the distribution function."""
  mean, std = (tf.constant(x[:, None]) for x in grid())
  for noise in (0.02, 0.5, 0.9):
    with tf.GradientTape() as tape:
      tape.watch([mean, std])
      sample = dists.TruncNormal(mean, std).sample(
        noise=tf.fill(mean.shape, noise)
      )
    result = tape.gradient(sample, [mean, std])
    params = [tf.cast(x, tf.float64) for x in (mean, std)]
    with tf.GradientTape() as tape:
      tape.watch(params)
      dist = reference(*params)
      cdf = dist.cdf(tf.cast(sample, tf.float64))
    for mine, slope in zip(result, tape.gradient(cdf, params), strict=True):
      expected = -slope / dist.prob(tf.cast(sample, tf.float64))
      np.testing.assert_allclose(mine, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize('std', [0.01, 0.1, 2.1])
@pytest.mark.parametrize('mean', [-1.0, -1 + 1e-6, 1 - 1e-7, 1.0])
def test_trunc_normal_stays_finite_at_the_edges(mean, std):
  mean, std = tf.constant([mean]), tf.constant([std])
  noises = [1e-7, 0.5, 1 - 1e-7]
  with tf.GradientTape(persistent=True) as tape:
    tape.watch([mean, std])
    dist = dists.TruncNormal(mean, std)
    results = [dist.sample(noise=tf.constant([x])) for x in noises]
    results += [dist.log_prob(tf.constant([x])) for x in (-1.0, 0.0, 1.0)]
    results += [dist.entropy(), dist.mode()]
  for result in results:
    assert np.isfinite(result).all()
    for grad in tape.gradient(
      result, [mean, std], unconnected_gradients='zero'
    ):
      assert np.isfinite(grad).all()
  samples = np.array(results[:3])
  assert (np.abs(samples) < 1).all()
  for sample in samples:
    assert np.isfinite(dist.log_prob(sample)).all()


def test_trunc_normal_takes_low_precision_parameters():
  dist = dists.TruncNormal(
    tf.constant([0.25], tf.float16), tf.constant([0.5], tf.bfloat16)
  )
  assert dist.sample(noise=tf.constant([0.3])).dtype == tf.float32
  assert dist.mode().numpy().tolist() == [0.25]
