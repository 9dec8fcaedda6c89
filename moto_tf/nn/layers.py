"""Seeded weights and the layers made of them."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from moto_tf.nn.tfutils import (
  ACTIVATIONS,
  custom_gradient,
  make_seed,
  product,
)

# Up to so many rows a product is cheaper as `product`.
FEW_ROWS = 256
# Up to so many channels, those of images, a transposed convolution is faster
# forwards as `_subpixel_deconv`.
FEW_UNITS = 4
# From so many numbers on two casts take less time than they save.
MANY = 2**14


class Module:
  """Holds weights and other modules as public attributes.

  What a name with a leading underscore holds is not the module's own.
  """

  def named_variables(self, prefix: str = '') -> dict[str, tf.Variable]:
    """Trainable variables by path, such as rssm/prior/kernel/0."""
    found = {}
    for key, value in vars(self).items():
      if not key.startswith('_'):
        found.update(_named(value, f'{prefix}{key}'))
    return found

  @property
  def variables(self) -> list[tf.Variable]:
    return list(self.named_variables().values())


def _named(value, path):
  if isinstance(value, tf.Variable):
    return {path: value}
  if isinstance(value, Module):
    return value.named_variables(f'{path}/')
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, (list, tuple)):
    items = enumerate(value)
  else:
    return {}
  return {
    k: v
    for key, item in items
    for k, v in _named(item, f'{path}/{key}').items()
  }


class Layers:
  """Makes layers and weights, all seeded and of one precision.

  Every weight is initialised from (seed, how many came before), so equal
  configurations give equal networks in any process.

  Args:
    seed: of all weights.
    precision: float32, mixed_float16 or mixed_bfloat16; weights are float32.
    cpu: whether to take what is fastest on CPU without XLA. Otherwise plain
      convolutions, and all shapes known when traced.
  """

  def __init__(self, seed: int, precision: str = 'float32', cpu: bool = False):
    self.precision = precision
    self.cpu = cpu
    self.dtype = tf.as_dtype(precision.removeprefix('mixed_'))
    self._seed = seed
    self._count = 0

  def weight(self, name: str, shape: list[int], value=None) -> tf.Variable:
    """Float32 weight; `value` fills it, else Glorot over the last two axes.

    Leading axes of a matrix stack are independent members.
    """
    if value is not None:
      return tf.Variable(tf.fill(shape, float(value)), name=name)
    *lead, rows, cols = shape
    parts = [self._glorot([rows, cols]) for _ in range(int(np.prod(lead)))]
    return tf.Variable(tf.reshape(tf.stack(parts), shape), name=name)

  def dense(self, inputs: int, units: int, last: bool = False) -> 'Dense':
    """Linear layer; the `last` one of a head computes in float32.

    bfloat16 would round values of 300 to even numbers.
    """
    dtype = tf.float32 if last else self.dtype
    return Dense(self._kernel([inputs, units]), self, dtype=dtype)

  def conv(self, inputs: int, units: int, size: int) -> 'Conv':
    return Conv(self._kernel([size, size, inputs, units]), self)

  def deconv(self, inputs: int, units: int, size: int) -> 'Deconv':
    return Deconv(self._kernel([size, size, units, inputs]), self, units)

  def norm(self, units: int) -> 'Norm':
    return Norm(units)

  def activation(self, name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """An activation that on CPU computes many bfloat16 in float32.

    In bfloat16 they take 1.4 to 2.6 times as long, but for relu and silu.
    """
    act = ACTIVATIONS[name]
    if not self.cpu or self.dtype == tf.float32 or name in ('relu', 'silu'):
      return act

    def precise(x):
      if x.shape.is_fully_defined() and x.shape.num_elements() < MANY:
        return act(x)
      return tf.cast(act(tf.cast(x, tf.float32)), x.dtype)

    return precise

  def _kernel(self, shape):
    return tf.Variable(self._glorot(shape), name='kernel')

  def _glorot(self, shape):
    self._count += 1
    seed = int(make_seed(self._seed, self._count)[0])
    return keras.initializers.GlorotUniform(seed=seed)(shape)


class _Kernel(Module):
  """What has a kernel and a bias, used in the compute precision or `dtype`."""

  def __init__(
    self, kernel: tf.Variable, layers: Layers, units: int = 0, dtype=None
  ):
    self.kernel = kernel
    self.bias = tf.Variable(tf.zeros([units or kernel.shape[-1]]), name='bias')
    self._cpu = layers.cpu
    self._dtype = dtype or layers.dtype

  def _cast(self, x):
    return (tf.cast(v, self._dtype) for v in (x, self.kernel, self.bias))


class Dense(_Kernel):
  """Linear layer, [..., I] to [..., O]."""

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    x, kernel, bias = self._cast(x)
    lead = x.shape[:-1].as_list()
    x = tf.reshape(x, [-1, x.shape[-1]])
    few = x.shape[0] is not None and x.shape[0] <= FEW_ROWS
    x = (product if few else tf.matmul)(x, kernel) + bias
    return tf.reshape(x, [*lead, x.shape[-1]])


class Conv(_Kernel):
  """Convolution with stride 2 and no padding, [N, H, W, I] to [N, ., ., O]."""

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    x, kernel, bias = self._cast(x)
    if self._cpu and kernel.shape[0] == 4 and x.shape[1:3] in ([6, 6], [7, 7]):
      return _window_conv(x[:, :6, :6], kernel) + bias
    return _add_bias(tf.nn.conv2d(x, kernel, 2, 'VALID'), bias)


class Deconv(_Kernel):
  """Transposed convolution with stride 2 and no padding."""

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """[N, H, W, I] to [N, 2 * (H - 1) + k, 2 * (W - 1) + k, O]."""
    count, rows, cols = x.shape[:3]
    x, kernel, bias = self._cast(x)
    size, _, units, inputs = kernel.shape
    if rows == cols == 1:
      # From a single pixel it is a matrix product, many times faster on CPU.
      x = tf.reshape(x, [count, inputs])
      x = tf.matmul(x, tf.reshape(kernel, [-1, inputs]), transpose_b=True)
      return _add_bias(tf.reshape(x, [count, size, size, units]), bias)
    if self._cpu and units <= FEW_UNITS:
      return _subpixel_deconv(x, kernel, bias)
    shape = [count, 2 * (rows - 1) + size, 2 * (cols - 1) + size, units]
    x = tf.nn.conv2d_transpose(x, kernel, shape, 2, 'VALID')
    return _add_bias(x, bias)


@custom_gradient
def _add_bias(x, bias):
  """x + bias, with a gradient of the bias that adds up in float32.

  On CPU TensorFlow's adds up in bfloat16, where a sum no longer grows once it
  is 256 times as large as what is added.
  """
  return tf.nn.bias_add(x, bias), lambda dy: (dy, _sum_pixels(dy))


def _sum_pixels(x):
  """Sum per channel; images first, which is faster where channels are few."""
  return tf.reduce_sum(tf.reduce_sum(x, 0), [0, 1])


@custom_gradient
def _window_conv(x, kernel):
  """Convolution of 6 x 6 to 2 x 2 pixels, kernel 4, as a product of windows.

  For so few windows that copying them costs less than a convolution.
  """
  count, _, _, inputs = x.shape
  units = kernel.shape[-1]
  flat = tf.reshape(kernel, [-1, units])
  windows = [
    tf.reshape(x[:, i : i + 4, j : j + 4], [count, -1])
    for i in (0, 2)
    for j in (0, 2)
  ]
  windows = tf.concat(windows, 0)
  y = tf.reshape(tf.matmul(windows, flat), [2, 2, count, units])

  def overlap(first, second, axis):
    """Adds up windows that share their inner two pixels."""
    before, shared = tf.split(first, 2, axis)
    other, after = tf.split(second, 2, axis)
    return tf.concat([before, shared + other, after], axis)

  def grad(dy):
    dy = tf.reshape(tf.transpose(dy, [1, 2, 0, 3]), [-1, units])
    dx = tf.matmul(dy, flat, transpose_b=True)
    dx = tf.reshape(dx, [2, 2, count, 4, 4, inputs])
    rows = [overlap(*tf.unstack(row), 2) for row in tf.unstack(dx)]
    dkernel = tf.matmul(windows, dy, transpose_a=True)
    return overlap(*rows, 1), tf.reshape(dkernel, kernel.shape)

  return tf.transpose(y, [2, 0, 1, 3]), grad


@custom_gradient
def _subpixel_deconv(x, kernel, bias):
  """Transposed convolution with stride 2, forwards as a plain convolution.

  Output pixels of one parity meet every other weight of the kernel, so the
  four parities are channels of a convolution with a kernel of half the size.
  """
  count, rows, cols, inputs = x.shape
  size, _, units, _ = kernel.shape
  half = -(-size // 2)
  shape = [count, 2 * (rows - 1) + size, 2 * (cols - 1) + size, units]
  pad = 2 * half - size
  small = tf.pad(kernel, [[0, pad], [0, pad], [0, 0], [0, 0]])
  small = tf.reshape(small, [half, 2, half, 2, units, inputs])
  small = tf.transpose(small[::-1, :, ::-1], [0, 2, 5, 1, 3, 4])
  small = tf.reshape(small, [half, half, inputs, 4 * units])
  edge = [half - 1, half - 1]
  y = tf.nn.conv2d(x, small, 1, [[0, 0], edge, edge, [0, 0]])
  y = tf.nn.bias_add(y, tf.tile(bias, [4]))
  # As tf.nn.depth_to_space, which is slower.
  _, high, wide, _ = y.shape
  y = tf.reshape(y, [count, high, wide, 2, 2 * units])
  y = tf.reshape(tf.transpose(y, [0, 1, 3, 2, 4]), [count, -1, 2 * wide, units])
  y = y[:, : shape[1], : shape[2]]

  def grad(dy):
    dx = tf.nn.conv2d(dy, kernel, 2, 'VALID')
    dkernel = tf.raw_ops.Conv2DBackpropFilter(
      input=dy,
      filter_sizes=kernel.shape,
      out_backprop=x,
      strides=[1, 2, 2, 1],
      padding='VALID',
    )
    return dx, dkernel, _sum_pixels(dy)

  return y, grad


class Norm(Module):
  """Layer norm over the last axis."""

  def __init__(self, units: int):
    self.gain = tf.Variable(tf.ones([units]), name='gain')
    self.bias = tf.Variable(tf.zeros([units]), name='bias')

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    gain, bias = (tf.cast(v, x.dtype) for v in (self.gain, self.bias))
    return layer_norm(x, gain, bias)


def layer_norm(x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
  """Normalises the last axis in float32 (epsilon as in Keras, 1e-3)."""
  dtype = x.dtype
  x = tf.cast(x, tf.float32)
  mean, var = tf.nn.moments(x, [-1], keepdims=True)
  x = (x - mean) * tf.math.rsqrt(var + 1e-3)
  return tf.cast(x, dtype) * gain + bias
