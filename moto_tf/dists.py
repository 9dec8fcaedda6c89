"""Distributions: TensorFlow Probability's, and the two DreamerV2 defines."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def normal(mean: tf.Tensor, dims: int) -> tfd.Distribution:
  """Unit-variance normal over the last `dims` axes of `mean`."""
  return tfd.Independent(tfd.Normal(tf.cast(mean, tf.float32), 1.0), dims)


def bernoulli(logit: tf.Tensor) -> tfd.Distribution:
  """Bernoulli whose log_prob takes soft targets in [0, 1]."""
  return tfd.Bernoulli(logits=tf.cast(logit, tf.float32), dtype=tf.float32)


class OneHot:
  """Independent categoricals with straight-through one-hot samples.

  Args:
    logit: [..., stoch, discrete], normalised or not.
  """

  def __init__(self, logit: tf.Tensor):
    self.log_probs = tf.nn.log_softmax(tf.cast(logit, tf.float32))
    self.probs = tf.exp(self.log_probs)

  def sample(self, noise: tf.Tensor) -> tf.Tensor:
    """One-hot sample from Gumbel noise; gradients pass to the probabilities."""
    depth = self.probs.shape[-1]
    index = tf.argmax(self.log_probs + noise, -1)
    hard = tf.one_hot(index, depth, dtype=tf.float32)
    return hard + (self.probs - tf.stop_gradient(self.probs))

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


def _log_pdf(z):
  return -0.5 * (z**2 + np.log(2 * np.pi))


def _pdf(z):
  return tf.exp(_log_pdf(z))


def _cdf(z):
  return 0.5 * tf.math.erfc(-z / np.sqrt(2))
