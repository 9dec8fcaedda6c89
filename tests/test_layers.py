"""Seeded weights, and layers against TensorFlow's plain operations."""

import numpy as np
import pytest
import tensorflow as tf
from plain import MODES, TOLERANCE, assert_near, evaluate, normal

from moto_tf.nn import nets
from moto_tf.nn.layers import FEW_ROWS, FEW_UNITS, Layers, Module

PRECISIONS = ['float32', 'mixed_float16', 'mixed_bfloat16']


def make_module(seed, precision='float32'):
  layers = Layers(seed, precision)
  module = Module()
  module.dense = layers.dense(3, 4)
  module.convs = [layers.conv(3, 4, 2), layers.deconv(3, 4, 2)]
  module.heads = {'x': layers.norm(4)}
  module.stack = nets.StackedMLP(layers, 3, 4, [4], 2, 'elu', 'none')
  module.weight = layers.weight('weight', [3, 4])
  module.same = layers.weight('same', [3, 4])
  module._hidden = layers.weight('hidden', [3, 4])
  module.missing = None
  return module


def test_equal_seeds_give_equal_weights():
  one, two, other = (make_module(s).named_variables() for s in (1, 1, 2))
  low = make_module(1, 'mixed_float16').named_variables()
  assert list(one) == list(two) == list(other) == list(low)
  random = [k for k in one if np.array(one[k]).std() > 0]
  assert len(random) == 7
  for key in one:
    np.testing.assert_array_equal(one[key], two[key])
    np.testing.assert_array_equal(one[key], low[key])
  for key in random:
    assert not np.array_equal(one[key], other[key])


def test_weights_do_not_depend_on_the_global_seed():
  tf.random.set_seed(0)
  one = make_module(1).variables
  tf.random.set_seed(5)
  for a, b in zip(one, make_module(1).variables, strict=True):
    np.testing.assert_array_equal(a, b)


def test_weights_of_one_shape_differ():
  module = make_module(0)
  assert not np.array_equal(module.weight, module.same)
  kernel = module.stack.kernel[0].numpy()
  for i in range(3):
    for j in range(i):
      assert np.abs(kernel[i] - kernel[j]).min() > 0


def test_stacked_weights_are_initialised_like_single_ones():
  """Glorot's limit is that of one member, not of the stack."""
  kernel = Layers(0).weight('kernel', [50, 30, 20]).numpy()
  limit = np.sqrt(6 / (30 + 20))
  assert 0.98 * limit < np.abs(kernel).max() <= limit
  assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
  filled = Layers(0).weight('bias', [2, 3], 1.0)
  np.testing.assert_array_equal(filled, np.ones([2, 3]))


def test_variables_are_named_by_path():
  names = list(make_module(0).named_variables('model/'))
  assert names == [
    'model/dense/kernel',
    'model/dense/bias',
    'model/convs/0/kernel',
    'model/convs/0/bias',
    'model/convs/1/kernel',
    'model/convs/1/bias',
    'model/heads/x/gain',
    'model/heads/x/bias',
    'model/stack/kernel/0',
    'model/stack/kernel/1',
    'model/stack/bias/0',
    'model/stack/bias/1',
    'model/weight',
    'model/same',
  ]


def test_layers_compute_in_their_precision_and_store_float32():
  for precision, dtype in (
    ('float32', tf.float32),
    ('mixed_float16', tf.float16),
    ('mixed_bfloat16', tf.bfloat16),
  ):
    layers = Layers(0, precision)
    dense = layers.dense(3, 4)
    assert layers.dtype == dense(np.ones([2, 3])).dtype == dtype
    assert dense.kernel.dtype == layers.weight('w', [3, 4]).dtype == 'float32'


def check(layer, plain, shape, mode='eager'):
  """Output and gradients of x, kernel and bias, those of the plain form."""
  layer.bias.assign(normal(layer.bias.shape, 1))
  x, (kernel, bias) = normal(shape), layer.variables
  assert layer(x).dtype == layer._dtype
  expected = evaluate(plain, [x, kernel.numpy(), bias.numpy()])
  results = evaluate(layer, [x], [kernel, bias], mode)
  assert_near(results, expected, TOLERANCE[layer._dtype.name])


def plain_dense(x, kernel, bias):
  return tf.tensordot(x, kernel, 1) + bias


def plain_conv(x, kernel, bias):
  return tf.nn.conv2d(x, kernel, 2, 'VALID') + bias


def plain_deconv(x, kernel, bias):
  count, rows, cols, _ = x.shape
  size, _, units, _ = kernel.shape
  shape = [count, 2 * (rows - 1) + size, 2 * (cols - 1) + size, units]
  return tf.nn.conv2d_transpose(x, kernel, shape, 2, 'VALID') + bias


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize(
  'lead', [[5], [2, 3], [2, 1, 3], [FEW_ROWS + 1], [2, FEW_ROWS]]
)
def test_dense(lead, precision, cpu):
  check(Layers(0, precision, cpu).dense(4, 3), plain_dense, [*lead, 4])


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('size', [2, 3, 4, 5])
@pytest.mark.parametrize(
  'rows, cols', [(5, 8), (6, 6), (6, 8), (7, 7), (7, 9), (8, 8), (9, 6)]
)
def test_conv(size, rows, cols, cpu):
  layer = Layers(0, cpu=cpu).conv(3, 4, size)
  check(layer, plain_conv, [2, rows, cols, 3])


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('size', range(1, 7))
@pytest.mark.parametrize('units', range(1, FEW_UNITS + 3))
def test_deconv(units, size, cpu):
  layer = Layers(0, cpu=cpu).deconv(3, units, size)
  for rows, cols in ((1, 1), (3, 3), (2, 4), (1, 3), (3, 1)):
    check(layer, plain_deconv, [2, rows, cols, 3])


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('precision', PRECISIONS[1:])
def test_convolutions_in_low_precision(precision, cpu):
  layers = Layers(0, precision, cpu)
  for pixels in (6, 8):
    layer = layers.conv(3, 4, 4)
    check(layer, plain_conv, [2, pixels, pixels, 3])
  for units, pixels in ((3, 1), (3, 3), (FEW_UNITS + 1, 3)):
    layer = layers.deconv(3, units, 5)
    check(layer, plain_deconv, [2, pixels, pixels, 3])


@pytest.mark.parametrize('mode', MODES[1:])
def test_layers_when_compiled(mode):
  layers = Layers(0, cpu=mode != 'xla')
  check(layers.dense(4, 3), plain_dense, [2, 3, 4], mode)
  check(layers.conv(3, 4, 4), plain_conv, [2, 7, 7, 3], mode)
  check(layers.conv(3, 4, 3), plain_conv, [2, 5, 6, 3], mode)
  for units, pixels in ((3, 1), (3, 2), (FEW_UNITS + 1, 2)):
    layer = layers.deconv(3, units, 5)
    check(layer, plain_deconv, [2, pixels, pixels, 3], mode)
