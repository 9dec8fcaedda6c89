"""The KL between posterior and prior, and its gradients, by hand."""

import numpy as np
import pytest
import tensorflow as tf
from net_helpers import normal
from rssm_naive import BATCH, STEPS

from moto_tf.model.rssm import kl_loss


def naive_kl(post, prior):
  """KL per state, summed over the categoricals, in float64."""
  log = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))
  post, prior = log(post.astype(np.float64)), log(prior.astype(np.float64))
  return (np.exp(post) * (post - prior)).sum((-2, -1))


def naive_kl_gradients(one, other):
  """d KL(one || other) per state by both logits, in float64, by hand.

  With p = softmax(one), q = softmax(other) and l = log p - log q of one
  categorical, these are p * (l - sum p l) and q - p.
  """
  soft = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
  p, q = soft(one.astype(np.float64)), soft(other.astype(np.float64))
  ratio = np.log(p) - np.log(q)
  return p * (ratio - (p * ratio).sum(-1, keepdims=True)), q - p


def naive_kl_loss(post, prior, free, balance, forward, free_avg):
  """DreamerV2's rule state by state: loss, and its gradients by both sides."""
  if forward:
    values = naive_kl(prior, post)
    to_prior, to_post = naive_kl_gradients(prior, post)
  else:
    values = naive_kl(post, prior)
    to_post, to_prior = naive_kl_gradients(post, prior)
  shares, total = {'post': 1 - balance, 'prior': balance}, 0.0
  if balance == 0.5:
    shares = {'post': 1.0, 'prior': 1.0}
  per_state = balance == 0.5 or not free_avg
  if per_state:
    for value in values.ravel():
      total += max(value, free) / values.size
    above = values > free
  else:
    total = max(values.mean(), free)
    above = np.full(values.shape, values.mean() > free)
  above = above[..., None, None] / values.size
  return (
    total,
    shares['post'] * above * to_post,
    shares['prior'] * above * to_prior,
  )


@pytest.mark.parametrize('free', [0.0, 1.5, 2.5, 50.0])
@pytest.mark.parametrize('balance', [0.8, 0.5, 0.3, 0.0, 1.0])
@pytest.mark.parametrize('forward', [False, True])
@pytest.mark.parametrize('free_avg', [False, True])
def test_kl_loss_and_gradient_match_naive(free, balance, forward, free_avg):
  arrays = normal([STEPS, BATCH, 3, 4]), normal([STEPS, BATCH, 3, 4], 1)
  settings = free, balance, forward, free_avg
  expected, *slopes = naive_kl_loss(*arrays, *settings)
  values = naive_kl(*(arrays[::-1] if forward else arrays))
  assert 0.5 < values.min() < 1.5 < values.mean() < 2.5 < values.max() < 50
  inputs = [tf.constant(x) for x in arrays]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    loss, value = kl_loss(*inputs, *settings)
  np.testing.assert_allclose(value, values, rtol=1e-4, atol=1e-5)
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  for grad, slope in zip(tape.gradient(loss, inputs), slopes, strict=True):
    # The KL of a side without a share may not be differentiated at all.
    grad = np.zeros_like(slope) if grad is None else grad
    np.testing.assert_allclose(grad, slope, rtol=1e-3, atol=1e-6)


def test_kl_of_equal_shares_is_the_plain_one():
  """Twice the gradient of two halves, as in DreamerV2."""
  inputs = [tf.constant(normal([2, BATCH, 3, 4], s)) for s in (0, 1)]
  grads = []
  for balance in (0.5, 0.5 + 1e-6):
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      loss, _ = kl_loss(*inputs, 0.0, balance)
    grads.append(tape.gradient(loss, inputs))
  for whole, half in zip(*grads, strict=True):
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-3, atol=1e-7)
