"""Distributions of DreamerV2, by TensorFlow Probability's contract.

All are `tfp.distributions` in float32, whatever the precision of their
parameters: `log_prob`, `entropy`, `mean`, `mode`, `batch_shape`, slicing,
`tfd.kl_divergence` and `sample(sample_shape, seed)` are TFP's. Policies and
latents are also sampled from noise that is given, by its name:

  dist.sample(seed=3)          a sample, as of any distribution
  dist.sample([10], seed=3)    ten samples
  dist.sample(noise=noise)     the sample that this noise makes

Subclasses have formulas of their own where TFP's take more operations.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moto_tf import startup
from moto_tf.nn import tfutils

with startup.quiet():
  from tensorflow_probability import bijectors as tfb
  from tensorflow_probability import distributions as tfd
  from tensorflow_probability import random as tfr
  from tensorflow_probability import util as tfu

# Gradients of TruncNormal's samples.
SAMPLE_GRADS = ('exact', 'dreamerv2')


class _Unscoped:
  """Leaves out TFP's name scopes and, by them, its assertions.

  TensorFlow may add up in another order where operations have other names.
  """

  @contextlib.contextmanager
  def _name_and_control_scope(self, name=None, value=None, kwargs=None):
    del value, kwargs
    yield name


class UnitNormal(_Unscoped, tfd.Independent):
  """Independent normals of unit variance; the last `dims` axes are the event.

  Args:
    loc: [..., *event].
    dims: number of axes of the event.
  """

  def __init__(self, loc: tf.Tensor, dims: int):
    parameters = {'loc': loc, 'dims': dims}
    self._loc, self._dims = tf.cast(loc, tf.float32), dims
    super().__init__(tfd.Normal(self._loc, 1.0), dims, name='UnitNormal')
    self._parameters = parameters

  @classmethod
  def _parameter_properties(cls, dtype, num_classes=None):
    event_ndims = lambda self: self._dims
    return {'loc': tfu.ParameterProperties(event_ndims=event_ndims)}

  def _log_prob(self, value):
    square = _square_distance(self._loc, value, self._dims)
    size = self.event_shape.num_elements()
    return -0.5 * (square + size * np.log(2 * np.pi))


class Bernoulli(_Unscoped, tfd.Bernoulli):
  """Bernoulli whose log_prob takes soft targets in [0, 1].

  Args:
    logits: [...].
  """

  def __init__(self, logits: tf.Tensor):
    parameters = {'logits': logits}
    super().__init__(tf.cast(logits, tf.float32), dtype=tf.float32)
    self._parameters = parameters

  @classmethod
  def _parameter_properties(cls, dtype, num_classes=None):
    return {'logits': tfu.ParameterProperties()}

  def _log_prob(self, value):
    logits, value = self.logits, tf.cast(value, tf.float32)
    if value.shape != logits.shape:
      logits, value = logits + 0 * value, value + 0 * logits
    return -tf.nn.sigmoid_cross_entropy_with_logits(value, logits)


class _FromNoise(_Unscoped, tfd.Independent):
  """Whose samples are a function of noise: `_make`, from that of `_draw`."""

  def sample(
    self, sample_shape=(), seed=None, name='sample', *, noise=None
  ) -> tf.Tensor:
    """Sample by TFP's arguments, or the one that given noise makes.

    Args:
      sample_shape, seed, name: as of every distribution.
      noise: of the shape of the sample, or one that broadcasts with it; what
        it has to be is said by the class. Instead of sample_shape and seed.

    Returns:
      [*sample_shape, *batch_shape, *event_shape] float32, or with noise its
      shape broadcast with batch_shape and event_shape.

    Raises:
      TypeError: both are given, or noise stands first and without its name.
    """
    dtype = getattr(sample_shape, 'dtype', None)
    if dtype is not None and tf.as_dtype(dtype).is_floating:
      raise TypeError('Give noise by its name, as in sample(noise=noise).')
    if noise is None:
      return super().sample(sample_shape, seed, name)
    if seed is not None or not isinstance(sample_shape, tuple) or sample_shape:
      raise TypeError('Give either noise, or sample_shape and seed.')
    return self._make(noise)

  def _sample_n(self, n, seed=None):
    parts = [n], self.batch_shape_tensor(), self.event_shape_tensor()
    return self._make(self._draw(tf.concat(parts, 0), tfr.sanitize_seed(seed)))

  def _sample_and_log_prob(self, sample_shape, seed):
    value = self.sample(sample_shape, seed)
    return value, self.log_prob(value)


class OneHot(_FromNoise):
  """Independent categoricals with straight-through one-hot samples.

  Gradients of a sample pass to the probabilities. `sample(noise=...)` takes
  Gumbel noise; 0 makes the mode.

  Args:
    logits: [..., stoch, discrete], normalised or not.
  """

  def __init__(self, logits: tf.Tensor):
    parameters = {'logits': logits}
    self._logits = tf.cast(logits, tf.float32)
    each = tfd.OneHotCategorical(self._logits, dtype=tf.float32)
    super().__init__(each, 1, name='OneHot')
    self._parameters = parameters

  @classmethod
  def _parameter_properties(cls, dtype, num_classes=None):
    return {'logits': tfu.ParameterProperties(event_ndims=2)}

  def _draw(self, shape, seed):
    return tfutils.gumbel(shape, seed)

  def _make(self, noise):
    logits, noise = self._logits, tf.convert_to_tensor(noise, tf.float32)
    if noise.shape not in ([], logits.shape):
      logits += tf.zeros_like(noise)
    return _straight_through(logits, noise)

  def _log_prob(self, value):
    return tf.reduce_sum(value * tf.nn.log_softmax(self._logits), [-2, -1])

  def _entropy(self):
    log_probs = tf.nn.log_softmax(self._logits)
    return -tf.reduce_sum(tf.exp(log_probs) * log_probs, [-2, -1])


@tfd.RegisterKL(OneHot, OneHot)
def _kl(one, two, name=None):
  del name
  mine, other = (tf.nn.log_softmax(x._logits) for x in (one, two))
  return tf.reduce_sum(tf.exp(mine) * (mine - other), [-2, -1])


class _LocScale(_FromNoise):
  """Independent entries over the last axis, each with a loc and a scale.

  Args:
    name: of the distribution.
    each: from loc and scale to that of the entries.
    loc, scale: [..., size].
    rest: other parameters, for copies.
  """

  def __init__(self, name, each, loc, scale, **rest):
    self._loc = tf.cast(loc, tf.float32)
    self._scale = tf.cast(scale, tf.float32)
    super().__init__(each(self._loc, self._scale), 1, name=name)
    self._parameters = {'loc': loc, 'scale': scale, **rest}

  @classmethod
  def _parameter_properties(cls, dtype, num_classes=None):
    vector = tfu.ParameterProperties(event_ndims=1)
    return {'loc': vector, 'scale': vector}


class DiagNormal(_LocScale):
  """Independent normals over the last axis.

  `sample(noise=...)` takes standard normal noise; 0 makes the mode. Log
  densities, entropies and `tfd.kl_divergence` are TFP's.

  Args:
    loc, scale: [..., size].
  """

  def __init__(self, loc: tf.Tensor, scale: tf.Tensor):
    super().__init__('DiagNormal', tfd.Normal, loc, scale)

  def _draw(self, shape, seed):
    return tfutils.normal(shape, seed)

  def _make(self, noise):
    return self._loc + self._scale * noise


class TruncNormal(_LocScale):
  """Independent normals truncated to [-1, 1], over the last axis.

  Samples are the inverse distribution function at uniform noise in (0, 1),
  which `sample(noise=...)` takes. So they need no rejection, compile with XLA,
  and have a gradient:

    exact       that of the inverse distribution function
    dreamerv2   d x / d loc = 1, d x / d scale = (x - loc) / scale. So has
                TFP's TruncatedNormal, and with it DreamerV2's public code; it
                holds where the bounds are far away.

  Args:
    loc: [..., size] within [-1, 1].
    scale: [..., size], of the normal before truncation.
    sample_grad: one of SAMPLE_GRADS.
  """

  def __init__(
    self, loc: tf.Tensor, scale: tf.Tensor, sample_grad: str = 'exact'
  ):
    if sample_grad not in SAMPLE_GRADS:
      raise ValueError(f'sample_grad is {sample_grad!r}, not in {SAMPLE_GRADS}')
    self._sample_grad = sample_grad
    each = lambda loc, scale: tfd.TruncatedNormal(loc, scale, -1.0, 1.0)
    super().__init__('TruncNormal', each, loc, scale, sample_grad=sample_grad)

  def _draw(self, shape, seed):
    return tfutils.uniform(shape, seed)

  def _make(self, noise):
    _, _, start, mass = self._bounds()
    # The inverse has no finite gradient at 0 and 1; DreamerV2 clips there too.
    p = tf.clip_by_value(start + noise * mass, 1e-6, 1 - 1e-6)
    z = tf.math.ndtri(p)
    if self._sample_grad == 'dreamerv2':
      z = tf.stop_gradient(z)
    event = self._loc + self._scale * z
    clipped = tf.clip_by_value(event, -1 + 1e-6, 1 - 1e-6)
    return event + tf.stop_gradient(clipped - event)

  def _mode(self):
    loc = self._loc + tf.zeros_like(self._scale)
    return tf.clip_by_value(loc, -1.0, 1.0)

  def _mean(self):
    return self.mean_by(normal_cdf)

  def mean_by(self, cdf: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The mean, by a distribution function of the normal that is given."""
    a, b, _, mass = self._bounds(cdf)
    shift = (_pdf(a) - _pdf(b)) / mass
    return tf.clip_by_value(self._loc + self._scale * shift, -1.0, 1.0)

  def _log_prob(self, value):
    *_, mass = self._bounds()
    z = (value - self._loc) / self._scale
    log_prob = _log_pdf(z) - tf.math.log(self._scale * mass)
    log_prob = tf.where(tf.abs(value) > 1, -np.inf, log_prob)
    return tf.reduce_sum(log_prob, -1)

  def _entropy(self):
    a, b, _, mass = self._bounds()
    edges = a * _pdf(a) - b * _pdf(b)
    entropy = (
      0.5 * np.log(2 * np.pi * np.e)
      + tf.math.log(self._scale * mass)
      + edges / (2 * mass)
    )
    return tf.reduce_sum(entropy, -1)

  def _bounds(self, cdf=None):
    """Of the normal before truncation: bounds, mass below and between them."""
    cdf = cdf or normal_cdf
    a, b = (-1 - self._loc) / self._scale, (1 - self._loc) / self._scale
    start = cdf(a)
    return a, b, start, cdf(b) - start


def normal_cdf(z: tf.Tensor) -> tf.Tensor:
  """Distribution function of the standard normal."""
  return 0.5 * tf.math.erfc(-z / np.sqrt(2))


class TanhNormal(_LocScale):
  """tanh of independent normals, on (-1, 1) over the last axis.

  It has no mean in closed form. Its `mode` is tanh(loc), the median of each
  entry, as the field calls what such a policy does without noise.
  `sample(noise=...)` takes noise of a standard normal.

  Args:
    loc, scale: [..., size], of the normals.
  """

  def __init__(self, loc: tf.Tensor, scale: tf.Tensor):
    def each(loc, scale):
      return tfd.TransformedDistribution(tfd.Normal(loc, scale), tfb.Tanh())

    super().__init__('TanhNormal', each, loc, scale)

  def sample_and_log_prob(
    self, noise: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """The sample [..., size] of noise, and its log-density [...].

    By the value before tanh, so that it is finite where tanh rounds to 1.
    """
    inner = self._loc + self._scale * noise
    change = tfb.Tanh().forward_log_det_jacobian(inner)
    log_prob = self.distribution.distribution.log_prob(inner) - change
    return tf.tanh(inner), tf.reduce_sum(log_prob, -1)

  def _draw(self, shape, seed):
    return tfutils.normal(shape, seed)

  def _make(self, noise):
    return tf.tanh(self._loc + self._scale * noise)

  def _mode(self):
    return tf.tanh(self._loc + tf.zeros_like(self._scale))


def _square_distance(one, two, dims):
  """Sum of (one - two)^2 over the last `dims` axes.

  Few operations touch every entry, also in the gradient, since the entries may
  be those of images.
  """
  shape = tf.broadcast_static_shape(one.shape, two.shape)
  one, two = (
    x if x.shape == shape else tf.broadcast_to(x, shape) for x in (one, two)
  )

  @tfutils.custom_gradient
  def run(one, two):
    difference = one - two

    def grad(dy):
      slope = difference * tf.reshape(2 * dy, [*dy.shape, *[1] * dims])
      return slope, -slope

    axes = list(range(-dims, 0))
    return tf.reduce_sum(tf.square(difference), axes), grad

  return run(one, two) if dims else tf.math.squared_difference(one, two)


@tfutils.custom_gradient
def _straight_through(logits, noise):
  def grad(dy):
    probs = tf.nn.softmax(logits)
    return probs * (dy - tf.reduce_sum(probs * dy, -1, keepdims=True)), None

  index = tf.argmax(logits + noise, -1)
  return tf.one_hot(index, logits.shape[-1], dtype=logits.dtype), grad


def _log_pdf(z):
  return -0.5 * (z**2 + np.log(2 * np.pi))


def _pdf(z):
  return tf.exp(_log_pdf(z))
