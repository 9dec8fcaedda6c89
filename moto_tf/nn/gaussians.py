"""Gaussian policies by TensorFlow Probability's contract.

Like those of moto_tf.nn.dists they are `tfp.distributions` in float32 and are
also sampled from noise that is given, here of a standard normal:

  dist.sample(noise=normal(shape, seed))
"""

import tensorflow as tf

from moto_tf import startup
from moto_tf.nn import tfutils

with startup.quiet():
  from tensorflow_probability import bijectors as tfb
  from tensorflow_probability import distributions as tfd
  from tensorflow_probability import util as tfu


def normal(shape: list[int], seed: tf.Tensor) -> tf.Tensor:
  """Standard normal noise, the same with and without XLA.

  Args:
    shape: of the noise.
    seed: stateless, [2].
  """
  return tf.math.ndtri(tfutils.uniform(shape, seed))


class DiagNormal(tfd.MultivariateNormalDiag):
  """Normal of independent entries over the last axis.

  Args:
    loc: [..., A].
    scale: [..., A], standard deviations.
  """

  def __init__(self, loc: tf.Tensor, scale: tf.Tensor):
    parameters = {'loc': loc, 'scale': scale}
    self._mean_of, self._std_of = _floats(loc, scale)
    super().__init__(self._mean_of, self._std_of, name='DiagNormal')
    self._parameters = parameters

  @classmethod
  def _parameter_properties(cls, dtype, num_classes=None):
    vector = tfu.ParameterProperties(event_ndims=1)
    return {'loc': vector, 'scale': vector}

  def sample(
    self, sample_shape=(), seed=None, name='sample', *, noise=None
  ) -> tf.Tensor:
    """Sample by TFP's arguments, or the one that normal noise makes."""
    if noise is None:
      return super().sample(sample_shape, seed, name)
    return self._mean_of + self._std_of * noise


class TanhNormal(tfd.TransformedDistribution):
  """tanh of a `DiagNormal`, on (-1, 1) over the last axis.

  It has no mean in closed form. `mode` is tanh(loc), the median of every entry,
  which is what the field calls the mode of this policy and acts by.

  Args:
    loc, scale: [..., A], of the normal.
  """

  def __init__(self, loc: tf.Tensor, scale: tf.Tensor):
    parameters = {'loc': loc, 'scale': scale}
    loc, scale = _floats(loc, scale)
    inner = tfd.MultivariateNormalDiag(loc, scale)
    super().__init__(inner, tfb.Tanh(), name='TanhNormal')
    self._mean_of, self._std_of = loc, scale
    self._parameters = parameters

  @classmethod
  def _parameter_properties(cls, dtype, num_classes=None):
    vector = tfu.ParameterProperties(event_ndims=1)
    return {'loc': vector, 'scale': vector}

  def sample(
    self, sample_shape=(), seed=None, name='sample', *, noise=None
  ) -> tf.Tensor:
    """Sample by TFP's arguments, or the one that normal noise makes."""
    if noise is None:
      return super().sample(sample_shape, seed, name)
    return self.bijector.forward(self._mean_of + self._std_of * noise)

  def sample_and_log_prob(
    self, noise: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """The sample [..., A] of normal noise, and its log-density [...].

    Of the value before tanh, so that it is finite where tanh rounds to 1.
    """
    inner = self._mean_of + self._std_of * noise
    change = self.bijector.forward_log_det_jacobian(inner, event_ndims=1)
    log_prob = self.distribution.log_prob(inner) - change
    return self.bijector.forward(inner), log_prob

  def _mode(self):
    return tf.tanh(self._mean_of)


def _floats(loc, scale):
  """Both as float32 of one shape."""
  loc, scale = tf.cast(loc, tf.float32), tf.cast(scale, tf.float32)
  shape = tf.broadcast_static_shape(loc.shape, scale.shape)
  return tf.broadcast_to(loc, shape), tf.broadcast_to(scale, shape)
