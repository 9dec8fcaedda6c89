"""TensorFlow plumbing: set-up, seeds, noise, products in loops."""

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from moto_tf.errors import warn

# Left to choose, TensorFlow takes another one when it compiles with XLA.
ALGORITHM = 'philox'
# XLA reads negative seeds in another way than TensorFlow.
LARGEST = 2**31 - 1
# There with a driver of NVIDIA.
DRIVER = Path('/dev/nvidiactl')

ACTIVATIONS = {
  'elu': tf.nn.elu,
  'relu': tf.nn.relu,
  'gelu': tf.nn.gelu,
  'silu': tf.nn.silu,
  'tanh': tf.nn.tanh,
}


def setup(precision: str = 'auto', eager: bool = False) -> str:
  """Prepares the devices of this process and resolves the precision.

  Lets GPU memory grow instead of taking it all, and warns of a GPU that
  cannot be used.

  Returns:
    float32, mixed_float16 or mixed_bfloat16.
  """
  gpus = tf.config.list_physical_devices('GPU')
  for gpu in gpus:
    try:
      tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
      pass  # The device is in use already, and keeps the setting it has.
  hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
  if not gpus and DRIVER.exists() and not hidden:
    # TensorFlow's own notice is held back with all others.
    warn(
      'There is an NVIDIA GPU, and TensorFlow does not find it: everything '
      "runs on the CPU. Install its libraries, pip install 'moto_tf[gpu]'; "
      'with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow tells what it misses.'
    )
  tf.config.run_functions_eagerly(eager)
  if precision == 'auto':
    return 'mixed_float16' if gpus else 'float32'
  return precision


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
  """Derives `count` independent stateless seeds of shape [2] from one."""
  seeds = tf.random.split(seed, count, ALGORITHM)
  return tf.unstack(tf.bitwise.bitwise_and(seeds, LARGEST))


def make_seed(*numbers: int) -> np.ndarray:
  """Stateless seed of shape [2] from a seed and counters, such as a step."""
  # With the length, since trailing zeros alone would make no difference.
  state = np.random.SeedSequence([len(numbers), *numbers]).generate_state(2)
  return (state & LARGEST).astype(np.int32)


def uniform(shape: list[int], seed: tf.Tensor) -> tf.Tensor:
  """Noise strictly between 0 and 1, the same with and without XLA.

  Made from integers, because XLA draws floats in its own way.
  """
  bits = tf.random.stateless_uniform(
    shape, seed, None, None, tf.uint32, ALGORITHM
  )
  bits = tf.cast(tf.bitwise.right_shift(bits, 9), tf.float32)
  return (bits + 0.5) * 2**-23


def uniform_int(shape: list[int], seed: tf.Tensor, count: int) -> tf.Tensor:
  """Independent whole numbers from 0 to count - 1, int32."""
  return tf.random.stateless_uniform(shape, seed, 0, count, tf.int32, ALGORITHM)


def gumbel(shape: list[int], seed: tf.Tensor) -> tf.Tensor:
  """Standard Gumbel noise: argmax(logits + noise) samples a categorical."""
  return -tf.math.log(-tf.math.log(uniform(shape, seed)))


def normal(shape: list[int], seed: tf.Tensor) -> tf.Tensor:
  """Standard normal noise, of `uniform`."""
  return tf.math.ndtri(uniform(shape, seed))


def swap(x: tf.Tensor) -> tf.Tensor:
  """Exchanges the first two axes, batch and time."""
  return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def custom_gradient(function: Callable) -> Callable:
  """tf.custom_gradient whose gradient keeps the name scope, for profiles."""

  @functools.wraps(function)
  def scoped(*args):
    name = tf.get_current_name_scope()
    result, grad = function(*args)

    def scoped_grad(*grads):
      scope = tf.name_scope(f'{name}/') if name else contextlib.nullcontext()
      with scope:
        return grad(*grads)

    return result, scoped_grad

  return tf.custom_gradient(scoped)


@custom_gradient
def product(x: tf.Tensor, kernel: tf.Tensor) -> tuple:
  """x @ kernel, [N, I] by [I, O], for the few rows N of a recurrent step.

  The gradient of x multiplies by the transposed kernel, which TensorFlow does
  up to five times slower on CPU than the same as a batch of one.
  """

  def grad(dy):
    return _transposed(dy, kernel), tf.matmul(x, dy, transpose_a=True)

  return tf.matmul(x, kernel), grad


@custom_gradient
def frozen_product(x: tf.Tensor, kernel: tf.Tensor) -> tuple:
  """`product` without a gradient of the kernel."""
  return tf.matmul(x, kernel), lambda dy: (_transposed(dy, kernel), None)


def _transposed(dy, kernel):
  dy, kernel = tf.expand_dims(dy, 0), tf.expand_dims(kernel, 0)
  return tf.squeeze(tf.matmul(dy, kernel, transpose_b=True), 0)


def unroll(
  loop: Callable, kernels: dict[str, tf.Tensor], inputs: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Runs a loop over time whose kernels get their gradients at the end.

  Left alone, backpropagation makes a gradient as large as the kernel at every
  time step and adds them up. Here the steps keep what they multiplied, and one
  product over all of them makes the gradient:

      y[t] = x[t] @ K     dK = sum_t x[t]^T dy[t] = [x[0]; ..]^T [dy[0]; ..]

  Args:
    loop: loop(dot, inputs) to a dict of tensors; dot(name, x) is
      x @ kernels[name]. Each kernel is used.
    kernels: matrices by name.
    inputs: all else that gets a gradient.

  Returns:
    What `loop` returns.
  """
  names, keys = list(kernels), list(inputs)

  @custom_gradient
  def run(*args):
    kernels = dict(zip(names, args[: len(names)], strict=True))
    inputs = dict(zip(keys, args[len(names) :], strict=True))
    seen = {name: ([], []) for name in names}

    def dot(name, x):
      y = frozen_product(x, kernels[name])
      tape.watch(y)  # Also where x depends on no input.
      seen[name][0].append(x)
      seen[name][1].append(y)
      return y

    with tf.GradientTape() as tape:
      tape.watch(inputs)
      outputs = loop(dot, dict(inputs))
    order.extend(outputs)

    def grad(*grads):
      sources = inputs, [y for _, y in seen.values()]
      inputs_grad, ys = tape.gradient(
        list(outputs.values()), sources, grads, tf.UnconnectedGradients.ZERO
      )
      kernel_grads = [
        tf.matmul(tf.concat(x, 0), tf.concat(dy, 0), transpose_a=True)
        for (x, _), dy in zip(seen.values(), ys, strict=True)
      ]
      return *kernel_grads, *(inputs_grad[key] for key in keys)

    return list(outputs.values()), grad

  order = []
  outputs = run(*kernels.values(), *inputs.values())
  return dict(zip(order, outputs, strict=True))
