"""Distributions of DreamerV2, with noise as an argument."""

import functools

import numpy as np
import tensorflow as tf

from moto_tf.nn.tfutils import custom_gradient


class UnitNormal:
  """Independent normals of unit variance over the last `dims` axes of mean."""

  def __init__(self, mean: tf.Tensor, dims: int):
    self._mean = tf.cast(mean, tf.float32)
    self._dims = dims

  def mean(self) -> tf.Tensor:
    return self._mean

  def log_prob(self, value: tf.Tensor) -> tf.Tensor:
    """Sum over the last `dims` axes of log p(value)."""
    axes = list(range(-self._dims, 0))
    size = int(np.prod(self._mean.shape[len(self._mean.shape) - self._dims :]))
    square = tf.math.squared_difference(self._mean, value)
    square = tf.reduce_sum(square, axes) if axes else square
    return -0.5 * (square + size * np.log(2 * np.pi))


class Bernoulli:
  """Bernoulli whose log_prob takes soft targets in [0, 1]."""

  def __init__(self, logit: tf.Tensor):
    self._logit = tf.cast(logit, tf.float32)

  def mean(self) -> tf.Tensor:
    return tf.sigmoid(self._logit)

  def log_prob(self, value: tf.Tensor) -> tf.Tensor:
    return -tf.nn.sigmoid_cross_entropy_with_logits(value, self._logit)


class OneHot:
  """Independent categoricals with straight-through one-hot samples.

  Args:
    logit: [..., stoch, discrete], normalised or not.
  """

  def __init__(self, logit: tf.Tensor):
    self._logit = tf.cast(logit, tf.float32)

  @functools.cached_property
  def log_probs(self) -> tf.Tensor:
    return tf.nn.log_softmax(self._logit)

  @functools.cached_property
  def probs(self) -> tf.Tensor:
    return tf.exp(self.log_probs)

  def sample(self, noise: tf.Tensor) -> tf.Tensor:
    """One-hot sample from Gumbel noise; gradients pass to the probabilities."""
    return _straight_through(self._logit, noise)

  def log_prob(self, value: tf.Tensor) -> tf.Tensor:
    """Sum over the categoricals of log p(value), shape [...]."""
    return tf.reduce_sum(value * self.log_probs, [-2, -1])

  def entropy(self) -> tf.Tensor:
    return -tf.reduce_sum(self.probs * self.log_probs, [-2, -1])

  def kl(self, other: 'OneHot') -> tf.Tensor:
    """KL(self || other), summed over the categoricals, shape [...]."""
    return tf.reduce_sum(
      self.probs * (self.log_probs - other.log_probs), [-2, -1]
    )


class TruncNormal:
  """Independent normals truncated to [-1, 1], reparameterised.

  Samples are the inverse distribution function at uniform noise, so they are
  differentiable, need no rejection and compile with XLA.

  Args:
    mean: [..., size] within [-1, 1].
    std: [..., size], of the normal before truncation.
  """

  def __init__(self, mean: tf.Tensor, std: tf.Tensor):
    self._mean = tf.cast(mean, tf.float32)
    self._std = tf.cast(std, tf.float32)
    self._a = (-1 - self._mean) / self._std
    self._b = (1 - self._mean) / self._std
    self._cdf_a = _cdf(self._a)
    self._mass = _cdf(self._b) - self._cdf_a

  def sample(self, noise: tf.Tensor) -> tf.Tensor:
    """Sample from uniform noise in (0, 1) of the shape of `mean`."""
    # The inverse has no finite gradient at 0 and 1; DreamerV2 clips there too.
    p = tf.clip_by_value(self._cdf_a + noise * self._mass, 1e-6, 1 - 1e-6)
    event = self._mean + self._std * tf.math.ndtri(p)
    clipped = tf.clip_by_value(event, -1 + 1e-6, 1 - 1e-6)
    return event + tf.stop_gradient(clipped - event)

  def mode(self) -> tf.Tensor:
    return tf.clip_by_value(self._mean, -1.0, 1.0)

  def mean(self) -> tf.Tensor:
    """Expected value, which lies nearer to 0 than the mode."""
    shift = (_pdf(self._a) - _pdf(self._b)) / self._mass
    return tf.clip_by_value(self._mean + self._std * shift, -1.0, 1.0)

  def log_prob(self, value: tf.Tensor) -> tf.Tensor:
    """Sum over the last axis of log p(value); value within [-1, 1]."""
    z = (value - self._mean) / self._std
    log_prob = _log_pdf(z) - tf.math.log(self._std * self._mass)
    return tf.reduce_sum(log_prob, -1)

  def entropy(self) -> tf.Tensor:
    """Sum over the last axis of the differential entropy."""
    edges = self._a * _pdf(self._a) - self._b * _pdf(self._b)
    entropy = (
      0.5 * np.log(2 * np.pi * np.e)
      + tf.math.log(self._std * self._mass)
      + edges / (2 * self._mass)
    )
    return tf.reduce_sum(entropy, -1)


@custom_gradient
def _straight_through(logit, noise):
  def grad(dy):
    probs = tf.nn.softmax(logit)
    return probs * (dy - tf.reduce_sum(probs * dy, -1, keepdims=True)), None

  index = tf.argmax(logit + noise, -1)
  return tf.one_hot(index, logit.shape[-1], dtype=logit.dtype), grad


def _log_pdf(z):
  return -0.5 * (z**2 + np.log(2 * np.pi))


def _pdf(z):
  return tf.exp(_log_pdf(z))


def _cdf(z):
  return 0.5 * tf.math.erfc(-z / np.sqrt(2))
