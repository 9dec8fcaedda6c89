"""Networks of agents without a world model, as the paper's C.4 has them.

The convolutions of D4PG, a latent of 50 with layer norm and tanh, two layers of
256.
"""

from typing import NamedTuple

import tensorflow as tf

from moto_tf.nn.kernels import shrink
from moto_tf.nn.layers import Layers, Module
from moto_tf.nn.nets import MLP, StackedMLP
from moto_tf.rules import ConfigError

KERNEL = 3  # Of every convolution, with stride 2 and no padding (paper C.4).


class Inputs(NamedTuple):
  """Sizes of what the networks see: a stack of images, vectors; 0 without.

  Attributes:
    rows, columns: of the images.
    channels: of a stack of all images.
    vector: numbers of all vectors.
  """

  rows: int
  columns: int
  channels: int
  vector: int


class PixelEncoder(Module):
  """Convolutions over stacked images; vectors pass by as they are."""

  def __init__(self, layers: Layers, inputs: Inputs, channels: list[int]):
    self.conv, before = [], inputs.channels
    for units in channels if before else ():
      self.conv.append(layers.conv(before, units, KERNEL))
      before = units
    kernels = [KERNEL] * len(channels)
    sides = [shrink(size, kernels) for size in (inputs.rows, inputs.columns)]
    if before and min(sides) < 1:
      raise ConfigError(
        f'model_free.channels: images of {inputs.rows} x {inputs.columns} '
        f'pixels are too small for {len(channels)} stride-2 convolutions with '
        f'kernels of {KERNEL}; use larger images (env.image_size), or fewer '
        'channels, such as --model_free.channels 32,64.'
      )
    self.size = sides[0] * sides[1] * before if before else 0
    self._dtype = layers.dtype

  def __call__(self, obs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Observations to features, 'pixels' [N, size] and 'vector' [N, V]."""
    features = dict(obs)
    if self.conv:
      x = tf.cast(obs['pixels'], self._dtype)
      for conv in self.conv:
        x = tf.nn.relu(conv(x))
      features['pixels'] = tf.reshape(x, [x.shape[0], self.size])
    return features


class Head(Module):
  """Latent of the features, vectors and actions beside it, then an MLP.

  Args:
    layers: makes the weights.
    pixels: size of the features of images, 0 without.
    inputs: sizes of the observations.
    config: the settings model_free.
    outputs: numbers of the result.
    action: size A of an action that is seen, 0 without.
    members: MLPs on the same latent; 0: one, and no axis for it.
  """

  def __init__(
    self,
    layers: Layers,
    pixels: int,
    inputs: Inputs,
    config,
    outputs: int,
    action: int = 0,
    members: int = 0,
  ):
    self.latent = layers.dense(pixels, config.latent) if pixels else None
    self.norm = layers.norm(config.latent) if pixels else None
    size = (config.latent if pixels else 0) + inputs.vector + action
    shape = size, config.layers, outputs, 'relu', 'none'
    self.mlp = (
      StackedMLP(layers, members, *shape, precise=True)
      if members
      else MLP(layers, *shape)
    )
    self._dtype = layers.dtype

  def __call__(
    self, features: dict[str, tf.Tensor], action: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Numbers of the head in float32.

    Args:
      features: of `PixelEncoder`, [N, ...].
      action: [..., N, A] where actions are seen, several for the same features.

    Returns:
      [..., N, outputs], with members [members, ..., N, outputs].
    """
    parts = []
    if self.latent:
      parts.append(tf.tanh(self.norm(self.latent(features['pixels']))))
    if 'vector' in features:
      parts.append(features['vector'])
    x = tf.concat([tf.cast(part, self._dtype) for part in parts], -1)
    if action is not None:
      x = tf.broadcast_to(x, [*action.shape[:-1], x.shape[-1]])
      x = tf.concat([x, tf.cast(action, self._dtype)], -1)
    return self.mlp(x)


class Net(Module):
  """Encoder and head in one; their arguments are those of `Head`."""

  def __init__(self, layers: Layers, inputs: Inputs, config, *args, **kwargs):
    self.encoder = PixelEncoder(layers, inputs, config.channels)
    self.head = Head(layers, self.encoder.size, inputs, config, *args, **kwargs)

  def __call__(
    self, obs: dict[str, tf.Tensor], action: tf.Tensor | None = None
  ) -> tf.Tensor:
    """As of `Head`, from observations."""
    return self.head(self.encoder(obs), action)


def measure(
  shapes: dict[str, tuple], images: list[str], vectors: list[str], config
) -> Inputs:
  """Sizes of the observations of these keys.

  Args:
    shapes: by key.
    images, vectors: keys of both kinds.
    config: the settings model_free.

  Raises:
    ConfigError: images differ in size, or are smaller than what is cropped.
  """
  sides = {shapes[k][:2] for k in images}
  if len(sides) > 1:
    raise ConfigError(
      f'encoder.cnn_keys: the images {images} are stacked along channels and '
      f'must be of one size, but have sizes {sorted(sides)}; narrow the '
      'regular expression.'
    )
  rows, columns = sides.pop() if sides else (0, 0)
  if images and config.pad >= min(rows, columns):
    raise ConfigError(
      f'model_free.pad: {config.pad} is not possible for images of {rows} x '
      f'{columns} pixels; give less, such as --model_free.pad 4.'
    )
  channels = config.frames * sum(shapes[k][2] for k in images)
  return Inputs(rows, columns, channels, sum(shapes[k][0] for k in vectors))


def copy_weights(source: Module, target: Module, share: float = 1.0) -> None:
  """Moves the target by a share of the way to the source."""
  pairs = zip(source.variables, target.variables, strict=True)
  for source, target in pairs:
    target.assign((1 - share) * target + share * source)
