"""Networks of dense layers against naive loops, alone and in stacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from net_helpers import elu, norm, normal, scramble
from plain import TOLERANCE, assert_near, evaluate

from moto_tf.nn import nets
from moto_tf.nn.layers import Layers, layer_norm


def make_stack(members=3, kind='none', **kwargs):
  layers = Layers(0, **kwargs)
  stack = nets.StackedMLP(layers, members, 4, [6, 5], 2, 'elu', kind)
  scramble(stack)
  return stack


def naive_member(stack, member, x, kind):
  """One member of a stack as a loop over its layers."""
  kernels = [k.numpy()[member] for k in stack.kernel]
  biases = [b.numpy()[member] for b in stack.bias]
  for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
    x = x @ kernel
    if i == len(kernels) - 1:
      return x + bias
    if kind == 'layer':
      gain, offset = (w[i].numpy()[member] for w in (stack.gain, stack.offset))
      x = elu(norm(x + offset, gain, bias))
    else:
      x = elu(x + bias)


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_mlp_matches_numpy(kind):
  mlp = nets.MLP(Layers(0), 4, [6, 5], 2, 'elu', kind)
  scramble(mlp)
  x = expected = normal([3, 2, 4])
  for dense, layer in zip(mlp.dense, mlp.norm, strict=True):
    expected = expected @ dense.kernel.numpy() + dense.bias.numpy()
    if kind == 'layer':
      expected = norm(expected, layer.gain.numpy(), layer.bias.numpy())
    expected = elu(expected)
  expected = expected @ mlp.out.kernel.numpy() + mlp.out.bias.numpy()
  np.testing.assert_allclose(mlp(x), expected, rtol=1e-4, atol=1e-5)
  assert mlp.size == 2


def test_mlp_without_output_ends_in_its_last_layer():
  mlp = nets.MLP(Layers(0), 4, [6, 5], None, 'relu', 'none')
  assert mlp.size == 5 and mlp.out is None
  result = mlp(normal([3, 4])).numpy()
  assert result.shape == (3, 5) and (result >= 0).all()


@pytest.mark.parametrize('act', ['elu', 'relu', 'gelu', 'silu', 'tanh'])
def test_activations(act):
  mlp = nets.MLP(Layers(0), 4, [6], None, act, 'none')
  x = normal([3, 4])
  expected = keras.activations.get(act)(mlp.dense[0](x))
  np.testing.assert_allclose(mlp(x), expected, atol=1e-6)


@pytest.mark.parametrize('kind', ['none', 'layer'])
@pytest.mark.parametrize('members', [1, 3])
def test_stack_equals_separate_members(members, kind):
  stack = make_stack(members, kind)
  x = normal([7, 2, 4])
  result = stack(tf.constant(x))
  assert result.shape == (members, 7, 2, 2)
  for member in range(members):
    expected = naive_member(stack, member, x, kind)
    np.testing.assert_allclose(result[member], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_select_picks_one_member_per_row(kind):
  stack = make_stack(3, kind)
  x, members = normal([5, 2, 4]), [2, 0, 1, 1, 2]
  result = stack.select(tf.constant(x), tf.constant(members))
  every = stack(tf.constant(x)).numpy()
  expected = np.stack([every[m, t] for t, m in enumerate(members)])
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
  assert np.abs(every[0] - every[1]).max() > 0.1


def test_select_of_a_single_member():
  stack = make_stack(1)
  x = tf.constant(normal([5, 2, 4]))
  result = stack.select(x, tf.zeros([5], tf.int32))
  np.testing.assert_allclose(result, stack(x)[0], rtol=1e-5)


def rows_of(stack, kind):
  """`select` as a loop over rows and layers; plain operations."""

  def select(x, members):
    outputs, last = [], len(stack.kernel) - 1
    for y, member in zip(tf.unstack(x), tf.unstack(members), strict=True):
      for i, kernel in enumerate(stack.kernel):
        y = y @ kernel[member]
        if kind == 'layer' and i < last:
          y = y + stack.offset[i][member]
          mean = tf.reduce_mean(y, -1, keepdims=True)
          var = tf.math.reduce_variance(y, -1, keepdims=True)
          y = (y - mean) / tf.sqrt(var + 1e-3) * stack.gain[i][member]
        y = y + stack.bias[i][member]
        y = tf.nn.elu(y) if i < last else y
      outputs.append(y)
    return tf.stack(outputs)

  return select


def check_select(stack, kind, draw, mode='eager'):
  """Output and gradients of x and all weights, those of the plain loop."""
  outputs = []

  def select(x, members):
    outputs.append(stack.select(x, members))
    return outputs[0]

  inputs = normal([len(draw), 2, 4]), np.array(draw, np.int32)
  expected = evaluate(rows_of(stack, kind), inputs, stack.variables)
  results = evaluate(select, inputs, stack.variables, mode)
  assert_near(results, expected, TOLERANCE[stack._dtype.name])
  assert outputs[0].shape == (len(draw), 2, 2)
  assert outputs[0].dtype == stack._dtype


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('kind', ['none', 'layer'])
@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_select_equals_a_loop_over_rows(mode, kind, cpu):
  """Also where a member is drawn by no row, or by all."""
  stack = make_stack(4, kind, cpu=cpu)
  for draw in ([2, 0, 1, 1, 2], [3, 1, 3], [1, 1, 1], [2]):
    check_select(stack, kind, draw, mode)


@pytest.mark.parametrize('members', [1, 4])
def test_select_with_xla(members):
  draw = [members - 1, 0, members - 1]
  check_select(make_stack(members, 'layer'), 'layer', draw, 'xla')


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_select_in_low_precision(precision, cpu):
  stack = make_stack(4, 'layer', precision=precision, cpu=cpu)
  check_select(stack, 'layer', [2, 0, 1, 1, 2])


@pytest.mark.parametrize('kind', ['none', 'layer'])
@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_gradient_of_all_members(mode, kind):
  stack, x = make_stack(3, kind), normal([5, 2, 4])

  def loop(x):
    rows = rows_of(stack, kind)
    return tf.stack([rows(x, tf.fill([5], m)) for m in range(3)])

  results = evaluate(stack, [x], stack.variables, mode)
  assert_near(results, evaluate(loop, [x], stack.variables))


@pytest.mark.parametrize('precision', ['float32', 'mixed_float16'])
def test_layer_norm_equals_keras(precision):
  layer = keras.layers.LayerNormalization(epsilon=1e-3, dtype=precision)
  layer.build([None, 6])
  gain, bias = normal([6], 1), normal([6], 2)
  layer.set_weights([gain, bias])
  dtype = layer.compute_dtype
  x = tf.cast(normal([4, 6]) * 3 + 1, dtype)
  own = Layers(0, precision).norm(6)
  own.gain.assign(gain)
  own.bias.assign(bias)
  result = own(x)
  assert result.dtype == dtype
  tolerance = 1e-5 if precision == 'float32' else 1e-2
  np.testing.assert_allclose(result, layer(x), rtol=tolerance, atol=tolerance)


def test_layer_norm_of_large_float16_does_not_overflow():
  x = tf.constant([[60000.0, -60000.0, 0.0, 100.0]], tf.float16)
  result = layer_norm(x, tf.ones([4], x.dtype), tf.zeros([4], x.dtype))
  np.testing.assert_allclose(result, norm(x.numpy().astype(float), 1, 0), 1e-2)
