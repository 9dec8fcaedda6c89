"""Compares fast forms with plain ones, in outputs and in gradients."""

import numpy as np
import tensorflow as tf

MODES = ['eager', 'graph', 'xla']
# Largest error, as a share of the largest number of a tensor.
TOLERANCE = {'float32': 1e-5, 'float16': 1e-2, 'bfloat16': 3e-2}


def normal(shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def evaluate(function, inputs, variables=(), mode='eager'):
  """What function(*inputs) returns, and the gradients of a loss of it.

  In the loss every number that is returned has a weight of its own.

  Args:
    function: of tensors to a nest of tensors.
    inputs: arrays, of which those of whole numbers get no gradient.
    variables: others that get a gradient.
    mode: eager, graph or xla.

  Returns:
    Arrays: all outputs, then the gradients of inputs and variables.
  """

  def run(*inputs):
    floats = [x for x in inputs if x.dtype.is_floating]
    with tf.GradientTape() as tape:
      tape.watch(floats)
      outputs = tf.nest.flatten(function(*inputs))
      loss = sum(
        tf.reduce_sum(normal(x.shape, [9, i]) * tf.cast(x, tf.float32))
        for i, x in enumerate(outputs)
      )
    sources = [*floats, *variables]
    grads = tape.gradient(loss, sources, unconnected_gradients='zero')
    # Gathered weights have sparse gradients.
    return *outputs, *map(tf.convert_to_tensor, grads)

  inputs = [tf.constant(x) for x in inputs]
  if mode != 'eager':
    # A concrete function is one even where functions are to run eagerly.
    run = tf.function(run, autograph=False, jit_compile=mode == 'xla')
    run = run.get_concrete_function(*inputs)
  return [tf.cast(x, tf.float32).numpy() for x in run(*inputs)]


def assert_near(results, expected, tolerance=TOLERANCE['float32']):
  """All arrays, each within a share of the largest number expected in it."""
  for i, (one, other) in enumerate(zip(results, expected, strict=True)):
    limit = tolerance * np.abs(other).max()
    np.testing.assert_allclose(one, other, 0, limit, err_msg=f'array {i}')
