"""Eq. 2: statistics against loops, their gradients against TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf
from moto_naive import naive_penalty
from plain import MODES, assert_near, evaluate

from moto_tf.agents.penalties import PENALTIES, TINY, statistics
from moto_tf.agents.settings import PENALTY_NAMES
from moto_tf.model.latents import Categorical, Gaussian


def test_every_statistic_is_a_choice():
  """The settings are checked without TensorFlow, by names of their own."""
  assert tuple(PENALTIES) == PENALTY_NAMES


@pytest.mark.parametrize('name', PENALTIES)
def test_penalty(name):
  rng = np.random.default_rng(1)
  logits = rng.normal(0, 2, (7, 2, 3, 4, 5)).astype(np.float32)
  stoch = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (2, 3, 4))]
  u = PENALTIES[name](tf.constant(logits), tf.constant(stoch))
  assert u.shape == (2, 3)
  for t in range(2):
    for n in range(3):
      true = naive_penalty(name, logits[:, t, n], stoch[t, n])
      np.testing.assert_allclose(u[t, n], true, rtol=1e-4)


@pytest.mark.parametrize('name', PENALTIES)
def test_penalty_of_unnormalised_logits(name):
  """Adding a constant to a member's logits leaves its distribution alone."""
  rng = np.random.default_rng(2)
  logits = rng.normal(size=(3, 2, 4, 5)).astype(np.float32)
  shift = rng.normal(0, 3, (3, 2, 4, 1)).astype(np.float32)
  stoch = tf.one_hot(rng.integers(0, 5, (2, 4)), 5)
  penalty = PENALTIES[name]
  u, moved = penalty(logits, stoch), penalty(logits + shift, stoch)
  np.testing.assert_allclose(u, moved, rtol=1e-4)


@pytest.mark.parametrize('name', PENALTIES)
def test_penalty_when_members_agree(name):
  rng = np.random.default_rng(3)
  one = rng.normal(size=(1, 2, 4, 5)).astype(np.float32)
  logits = tf.constant(np.repeat(one, 7, 0))
  stoch = tf.one_hot(rng.integers(0, 5, (2, 4)), 5)
  with tf.GradientTape() as tape:
    tape.watch(logits)
    u = PENALTIES[name](logits, stoch)
  assert np.all(u >= 0) and np.max(u) <= 1e-5
  assert np.all(np.isfinite(tape.gradient(u, logits)))


def plain_penalty(name):
  """A statistic to be differentiated by TensorFlow."""

  def logit_std(logits):
    var = tf.math.reduce_variance(tf.nn.log_softmax(logits), 0)
    return tf.reduce_mean(tf.sqrt(var + TINY), [-2, -1])

  def prob_distance(logits):
    probs = tf.nn.softmax(logits)
    square = (probs - tf.reduce_mean(probs, 0)) ** 2
    distance = tf.sqrt(tf.reduce_sum(square, [-2, -1]) + TINY)
    return tf.reduce_mean(distance, 0)

  return {'logit_std': logit_std, 'prob_distance': prob_distance}[name]


def own_penalty(name):
  zeros = lambda logits: tf.zeros(logits.shape[1:])
  return lambda logits: PENALTIES[name](logits, zeros(logits))


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('members', [1, 2, 7])
@pytest.mark.parametrize('name', ['logit_std', 'prob_distance'])
def test_gradient_of_penalty(name, members, mode):
  rng = np.random.default_rng(4)
  for spread in (5, 0.1):
    common = rng.normal(0, 3, (1, 2, 3, 4, 5))
    logits = common + rng.normal(0, spread, (members, 2, 3, 4, 5))
    inputs = [logits.astype(np.float32)]
    results = evaluate(own_penalty(name), inputs, mode=mode)
    # In float32 the slope is known as well as the members differ.
    tolerance = 1e-5 if spread == 5 else 1e-3
    plain = evaluate(plain_penalty(name), inputs)
    assert_near(results, plain, tolerance)
    assert results[1].any() == (members > 1)


@pytest.mark.parametrize('members', [1, 2, 4])
@pytest.mark.parametrize('name', ['logit_std', 'prob_distance'])
def test_penalty_is_exact_when_members_agree(name, members):
  """As the mean over a power of two is exact."""
  one = np.random.default_rng(5).normal(size=(1, 3, 4, 5)).astype(np.float32)
  value, grad = evaluate(own_penalty(name), [np.repeat(one, members, 0)])
  np.testing.assert_allclose(value, np.sqrt(TINY), rtol=1e-3)
  assert not grad.any()


def slopes_of_categories(logits, stoch):
  """Of log p_i(z), [M, N]: itself, by the logits, and by z."""
  high = logits.max(-1, keepdims=True)
  total = np.log(np.exp(logits - high).sum(-1, keepdims=True)) + high
  log_probs = logits - total
  by_logits = stoch - np.exp(log_probs) * stoch.sum(-1, keepdims=True)
  return (stoch * log_probs).sum((-2, -1)), by_logits, log_probs


def slopes_of_gaussians(moments, stoch):
  """Of log p_i(z), [M, N]: itself, by means and deviations, and by z."""
  mean, std = moments[..., 0], moments[..., 1]
  z = (stoch - mean) / std
  log_probs = (-0.5 * (z**2 + np.log(2 * np.pi)) - np.log(std)).sum(-1)
  return log_probs, np.stack([z / std, (z**2 - 1) / std], -1), -z / std


LATENTS = {
  'categorical': (Categorical(3, 5), slopes_of_categories),
  'gaussian': (Gaussian(4), slopes_of_gaussians),
}


@pytest.mark.parametrize('members', [2, 7])
@pytest.mark.parametrize('kind', LATENTS)
def test_gradient_of_log_prob_std(kind, members):
  """By the members' parameters and by z, by hand.

  With l_i = log p_i(z) and u their deviation, du / dl_i = (l_i - mean) / (M u).
  """
  latent, slopes = LATENTS[kind]
  rng = np.random.default_rng(6)
  shape = [6, *latent.shape]
  if kind == 'categorical':
    stats = rng.normal(0, 2, (members, *shape))
    stoch = np.eye(5)[rng.integers(0, 5, (6, 3))]
  else:
    moments = rng.normal(size=(2, members, *shape))
    stats = np.stack([moments[0], 0.1 + np.exp(moments[1])], -1)
    stoch = rng.normal(size=shape)
  log_probs, by_stats, by_stoch = slopes(stats, stoch)
  centered = log_probs - log_probs.mean(0)
  u = np.sqrt((centered**2).mean(0) + TINY)
  outer = (centered / (members * u)).reshape(
    members, 6, *[1] * (stats.ndim - 2)
  )
  expected = outer * by_stats
  outer = outer.reshape(members, 6, *[1] * (stoch.ndim - 1))
  through_state = (outer * by_stoch).sum(0)
  inputs = [tf.constant(x, tf.float32) for x in (stats, stoch)]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    found = statistics(latent)['log_prob_std'](*inputs)
  np.testing.assert_allclose(found, u, rtol=1e-4)
  grads = tape.gradient(found, inputs)
  assert all(grad is not None for grad in grads)
  assert all(np.linalg.norm(grad) > 1e-6 for grad in grads)
  assert_near(grads, [expected, through_state], 1e-4)
