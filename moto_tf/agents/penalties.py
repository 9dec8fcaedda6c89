"""Eq. 2: how the disagreement of the prior heads becomes a number.

A statistic maps the logits [M, ..., S, C] of all heads at h[t+1], and the next
state's sample [..., S, C], to one number per state and action, [...]. A new one
is a function and a line in PENALTIES, and a choice where MOTO's settings are
checked without TensorFlow; a test compares the two.
"""

import functools
from collections.abc import Callable, Mapping

import tensorflow as tf

from moto_tf.model.latents import Categorical, Gaussian
from moto_tf.nn import dists
from moto_tf.nn.tfutils import custom_gradient

# Keeps the gradient of a square root finite where all members agree.
TINY = 1e-12


def logit_std(logits: tf.Tensor, stoch: tf.Tensor) -> tf.Tensor:
  """Eq. 2: std over members of normalised logits, mean over the entries.

  Args:
    logits: [M, ..., S, C] of all prior heads.
    stoch: [..., S, C], the sampled next state (unused here).

  Returns:
    [...].
  """
  del stoch
  return _logit_std(logits)


@custom_gradient
def _logit_std(logits):
  """With its gradient, as the largest tensors of a step pass through here.

  With l = log softmax(x), c = l - mean_m l and n entries,
  du / dl = c / (M n std), and dx = dl - softmax(x) * sum_c dl.
  """
  log_probs = tf.nn.log_softmax(logits)
  centered = log_probs - tf.reduce_mean(log_probs, 0)
  std = tf.sqrt(tf.reduce_mean(centered**2, 0) + TINY)
  size = std.shape[-1] * std.shape[-2]

  def grad(du):
    members = logits.shape[0]
    slope = du[..., None, None] / (members * size * std)
    slope = centered * slope
    total = tf.reduce_sum(slope, -1, keepdims=True)
    return slope - tf.exp(log_probs) * total

  return tf.reduce_mean(std, [-2, -1]), grad


def log_prob_std(
  stats: tf.Tensor, stoch: tf.Tensor, dist: Callable = dists.OneHot
) -> tf.Tensor:
  """LOMPO's statistic: std over members of log p_i(z').

  Args:
    stats: [M, ...] of all prior heads, parameters of `dist`.
    stoch: the sampled next state z'.
    dist: from parameters to a distribution.

  Returns:
    [...].
  """
  return _std(dist(stats).log_prob(tf.cast(stoch, tf.float32)))


def prob_distance(logits: tf.Tensor, stoch: tf.Tensor) -> tf.Tensor:
  """Mean over members of the L2 distance of p_i from the members' mean."""
  del stoch
  return _prob_distance(logits)


@custom_gradient
def _prob_distance(logits):
  """With its gradient, as `_logit_std`.

  With c_i = p_i - mean_j p_j and n_i = c_i / |c_i|,
  du / dp_i = (n_i - mean_j n_j) / M, and dx = p * (dp - sum_c p * dp).
  """
  members = logits.shape[0]
  probs = tf.nn.softmax(logits)
  centered = probs - tf.reduce_mean(probs, 0)
  square = tf.reduce_sum(centered**2, [-2, -1], keepdims=True)
  distance = tf.sqrt(square + TINY)

  def grad(du):
    slope = centered / distance
    slope = (slope - tf.reduce_mean(slope, 0)) * (du[..., None, None] / members)
    return probs * (slope - tf.reduce_sum(probs * slope, -1, keepdims=True))

  return tf.reduce_mean(distance[..., 0, 0], 0), grad


def _std(x):
  return tf.sqrt(tf.math.reduce_variance(x, 0) + TINY)


PENALTIES = {
  'prob_distance': prob_distance,
  'logit_std': logit_std,
  'log_prob_std': log_prob_std,
}


def statistics(latent: Categorical | Gaussian) -> Mapping[str, Callable]:
  """Those of PENALTIES that a kind of latent has, by name."""
  if isinstance(latent, Categorical):
    return PENALTIES
  # Means and deviations have no logits and no probabilities.
  return {'log_prob_std': functools.partial(log_prob_std, dist=latent.dist)}
