"""TensorFlow plumbing: set-up, seeds, variables, optimizers."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

# Left to choose, TensorFlow takes another one when it compiles with XLA.
ALGORITHM = 'philox'
# XLA reads negative seeds in another way than TensorFlow.
LARGEST = 2**31 - 1

ACTIVATIONS = {
  'elu': tf.nn.elu,
  'relu': tf.nn.relu,
  'gelu': tf.nn.gelu,
  'silu': tf.nn.silu,
  'tanh': tf.nn.tanh,
}


def setup(precision: str = 'auto', eager: bool = False) -> str:
  """Prepares the devices of this process and resolves the precision.

  Lets GPU memory grow instead of taking it all.

  Returns:
    float32, mixed_float16 or mixed_bfloat16.
  """
  gpus = tf.config.list_physical_devices('GPU')
  for gpu in gpus:
    try:
      tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
      pass  # The device is in use already, and keeps the setting it has.
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


def swap(x: tf.Tensor) -> tf.Tensor:
  """Exchanges the first two axes, batch and time."""
  return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


class Layers:
  """Makes built layers and weights, all seeded and of one precision.

  Every weight is initialised from (seed, how many came before), so equal
  configurations give equal networks in any process.
  """

  def __init__(self, seed: int, precision: str = 'float32'):
    self.precision = precision
    self.dtype = tf.as_dtype(keras.DTypePolicy(precision).compute_dtype)
    self._seed = seed
    self._count = 0

  def init(self) -> keras.initializers.Initializer:
    self._count += 1
    seed = int(make_seed(self._seed, self._count)[0])
    return keras.initializers.GlorotUniform(seed=seed)

  def weight(self, name: str, shape: list[int], value=None) -> tf.Variable:
    """Float32 weight; `value` fills it, else Glorot over the last two axes.

    Leading axes of a matrix stack are independent members.
    """
    if value is not None:
      return tf.Variable(tf.fill(shape, float(value)), name=name)
    *lead, rows, cols = shape
    parts = [self.init()([rows, cols]) for _ in range(int(np.prod(lead)))]
    return tf.Variable(tf.reshape(tf.stack(parts), shape), name=name)

  def dense(self, inputs: int, units: int, name: str) -> keras.layers.Layer:
    return self._built(keras.layers.Dense, (None, inputs), name, units)

  def conv(
    self, inputs: int, units: int, kernel: int, name: str
  ) -> keras.layers.Layer:
    shape = (None, None, None, inputs)
    return self._built(keras.layers.Conv2D, shape, name, units, kernel, 2)

  def deconv(
    self, inputs: int, units: int, kernel: int, name: str
  ) -> keras.layers.Layer:
    shape = (None, None, None, inputs)
    kind = keras.layers.Conv2DTranspose
    return self._built(kind, shape, name, units, kernel, 2)

  def norm(self, units: int, name: str) -> keras.layers.Layer:
    layer = keras.layers.LayerNormalization(dtype=self.precision, name=name)
    layer.build((None, units))
    return layer

  def _built(self, kind, shape, name, *args):
    layer = kind(
      *args, kernel_initializer=self.init(), dtype=self.precision, name=name
    )
    layer.build(shape)
    return layer


class Module:
  """Holds weights, Keras layers and other modules as public attributes.

  What a name with a leading underscore holds is not the module's own.
  """

  def named_variables(self, prefix: str = '') -> dict[str, tf.Variable]:
    """Trainable variables by path, such as rssm/prior/kernel0."""
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
  if isinstance(value, keras.layers.Layer):
    return {
      f'{path}/{v.name}': v.value if hasattr(v, 'value') else v
      for v in value.trainable_variables
    }
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


class Optimizer(Module):
  """Adam with global norm clipping, DreamerV2's weight decay, loss scaling.

  Weight decay multiplies every weight by 1 - wd once per step, unscaled by
  the learning rate. With mixed_float16 the loss is scaled dynamically. A step
  with non-finite gradients changes no weight.
  """

  def __init__(
    self,
    name: str,
    variables: list[tf.Variable],
    lr: float,
    eps: float,
    clip: float,
    wd: float,
    precision: str = 'float32',
  ):
    self._name = name
    self._targets = variables
    self._wd = wd
    self._adam = keras.optimizers.Adam(
      lr, epsilon=eps, global_clipnorm=clip, name=name
    )
    self._opt = self._adam
    self._scaled = precision == 'mixed_float16'
    if self._scaled:
      self._opt = keras.optimizers.LossScaleOptimizer(
        self._adam, dynamic_growth_steps=1000
      )
    self._opt.build(variables)

  def named_variables(self, prefix: str = '') -> dict[str, tf.Variable]:
    """Slots, step counter and loss scale by name.

    Not the learning rate, which is the configuration's. Only the names with
    `loss_scale` depend on the precision.
    """
    slots = {
      f'{prefix}{i:04d}_{v.name}': v.value
      for i, v in enumerate(self._adam.variables)
      if v.name != 'learning_rate'
    }
    if not self._scaled:
      return slots
    inner = {id(v) for v in self._adam.variables}
    return slots | {
      f'{prefix}loss_scale/{v.name}': v.value
      for v in self._opt.variables
      if id(v) not in inner
    }

  def minimize(
    self, tape: tf.GradientTape, loss: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Takes one step on the scalar `loss` recorded by `tape`."""
    scale = tf.ones([])
    scaled = loss
    if self._scaled:
      with tape:
        scaled = self._opt.scale_loss(loss)
      scale = tf.identity(self._opt.dynamic_scale.value)
    grads = tape.gradient(scaled, self._targets)
    missing = [
      v.name for v, g in zip(self._targets, grads, strict=True) if g is None
    ]
    if missing:
      raise ValueError(f'{self._name}_loss does not depend on {missing}.')
    # Gathered weights have sparse gradients, whose repeated rows must add up
    # before they are measured and clipped.
    grads = [tf.convert_to_tensor(g) for g in grads]
    norm = tf.linalg.global_norm(grads) / scale
    finite = tf.math.is_finite(norm)
    decay = 1 - tf.where(finite, self._wd, 0.0)
    for var in self._targets:
      var.assign(var * decay)
    if self._scaled:
      self._opt.apply(grads, self._targets)  # Skips, and adapts the scale.
    else:
      tf.cond(finite, lambda: self._apply(grads), lambda: None)
    metrics = {f'{self._name}_loss': loss, f'{self._name}_grad_norm': norm}
    if self._scaled:
      # A skipped step must not spoil the mean over the logging interval.
      metrics[f'{self._name}_grad_norm'] = tf.where(finite, norm, 0.0)
      metrics[f'{self._name}_skipped'] = 1 - tf.cast(finite, tf.float32)
      metrics[f'{self._name}_loss_scale'] = scale
    return metrics

  def _apply(self, grads):
    self._adam.apply(grads, self._targets)
