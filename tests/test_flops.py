"""FLOP by hand, and the scopes that they are of."""

import pytest
import tensorflow as tf

from moto_tf.benchmark import BenchmarkError, flops, scope_of


def count(function, *shapes, **options):
  """FLOP by scope of a function of float32 tensors."""
  specs = [tf.TensorSpec(shape) for shape in shapes]
  graph = tf.function(function).get_concrete_function(*specs).graph
  return dict(flops.count(graph, **options))


def count_with_gradients(function, *shapes):
  """FLOP of a function and its gradients in all arguments."""

  def learn(*args):
    with tf.GradientTape() as tape:
      for arg in args:
        tape.watch(arg)
      loss = tf.reduce_sum(function(*args) ** 2)
    return tape.gradient(loss, args)

  return count(learn, *shapes)


@pytest.mark.parametrize(
  'name, scope',
  [
    ('encoder/conv0/Conv2D', 'encoder'),
    ('gradient_tape/encoder_1/conv0/Conv2DBackpropFilter', 'encoder'),
    ('model_opt/gradient_tape/encoder/x', 'model_opt'),
    ('ArithmeticOptimizer/Fold_encoder/heads_12/x', 'heads'),
    ('actor_opt_3/cond/then/_0/actor/Square', 'actor_opt'),
    ('encoders/MatMul_1', 'other'),
    ('', 'other'),
  ],
)
def test_scope_is_first_known_piece_of_the_name(name, scope):
  assert scope_of(name) == scope


@pytest.mark.parametrize(
  'options, left, right',
  [
    ({}, (5, 7), (7, 3)),
    ({'transpose_a': True}, (7, 5), (7, 3)),
    ({'transpose_b': True}, (5, 7), (3, 7)),
    ({}, (4, 5, 7), (4, 7, 3)),
    ({'transpose_a': True}, (4, 7, 5), (4, 7, 3)),
    ({}, (4, 5, 7), (1, 7, 3)),
  ],
)
def test_flop_of_matrix_products(options, left, right):
  product = lambda a, b: tf.matmul(a, b, **options)
  expected = 2 * 5 * 7 * 3 * (4 if len(left) == 3 else 1)
  assert count(product, left, right) == {'other': expected}
  # Each gradient is a product of the same three sizes.
  assert count_with_gradients(product, left, right) == {'other': 3 * expected}


@pytest.mark.parametrize(
  'padding, stride, outputs',
  [
    ('VALID', 1, 6 * 6),
    ('VALID', 2, 3 * 3),
    ('SAME', 1, 8 * 8),
    ('SAME', 2, 16),
  ],
)
def test_flop_of_convolutions(padding, stride, outputs):
  conv = lambda x, k: tf.nn.conv2d(x, k, stride, padding)
  shapes = (2, 8, 8, 4), (3, 3, 4, 5)
  expected = 2 * (2 * outputs * 5) * (3 * 3 * 4)
  assert count(conv, *shapes) == {'other': expected}
  assert count_with_gradients(conv, *shapes) == {'other': 3 * expected}


def test_flop_of_transposed_convolutions():
  # Each of the 2 * 4 * 4 * 5 inputs adds to 3 * 3 * 6 outputs.
  deconv = lambda x, k: tf.nn.conv2d_transpose(x, k, [2, 9, 9, 6], 2, 'VALID')
  shapes = (2, 4, 4, 5), (3, 3, 6, 5)
  expected = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 6)
  assert count(deconv, *shapes) == {'other': expected}
  assert count_with_gradients(deconv, *shapes) == {'other': 3 * expected}


def test_flop_by_scope_and_without_what_no_output_needs():
  def function(x, y):
    with tf.name_scope('encoder'):
      tf.matmul(y, y)
      z = tf.matmul(x, y)
    with tf.name_scope('heads'):
      return tf.matmul(z, y)

  flop = count(function, (2, 3), (3, 3))
  assert flop == {'encoder': 2 * 2 * 3 * 3, 'heads': 2 * 2 * 3 * 3}


def test_flop_of_functions_and_of_the_larger_branch():
  inner = tf.function(lambda x: x @ x)

  def function(x):
    with tf.name_scope('actor'):
      small, large = lambda: x @ x[:, :1], lambda: inner(x)
      y = tf.cond(x[0, 0] > 0, lambda: large() + inner(x), small)
    return y, inner(x)

  each = 2 * 4**3
  assert count(function, (4, 4)) == {'actor': 2 * each, 'other': each}


def test_flop_needs_sizes():
  product = lambda x, y: tf.matmul(x, y, name='product')
  with pytest.raises(BenchmarkError, match='product.*MatMul.*None'):
    count(product, (None, 3), (3, 5))
  assert count(product, (None, 3), (3, 5), unknown=7) == {'other': 2 * 7 * 15}
  with pytest.raises(BenchmarkError, match='loop'):
    count(
      lambda x: tf.while_loop(lambda x: True, lambda x: [x @ x], [x]), (2, 2)
    )
  with pytest.raises(BenchmarkError, match='Einsum'):
    count(lambda x: tf.einsum('ij,jk->ik', x, x), (2, 2))


def test_flop_of_a_split_by_numbers_that_the_graph_leaves_open():
  def function(x, counts, y):
    parts = tf.split(x, tf.cast(counts, tf.int32), num=2)
    return [tf.matmul(part, y) for part in parts]

  # Half of the five rows each, on average.
  flop = count(function, (5, 3), (2,), (3, 4), unknown=2.5)
  assert flop == {'other': 2 * 5 * 3 * 4}
