"""Networks: MLPs, stacks of MLPs, image encoder and decoder."""

import re

import numpy as np
import tensorflow as tf

from . import dists
from .rules import ConfigError
from .tfutils import ACTIVATIONS, Layers, Module


class MLP(Module):
  """Hidden layers of equal activation and an optional linear output."""

  def __init__(
    self,
    layers: Layers,
    inputs: int,
    units: list[int],
    outputs: int | None,
    act: str,
    norm: str,
  ):
    sizes = [inputs, *units]
    self.dense = [
      layers.dense(a, b, f'dense{i}')
      for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
    ]
    self.norm = [
      layers.norm(size, f'norm{i}') if norm == 'layer' else None
      for i, size in enumerate(units)
    ]
    self.out = layers.dense(sizes[-1], outputs, 'out') if outputs else None
    self._act = ACTIVATIONS[act]
    self.size = outputs or sizes[-1]

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    for dense, norm in zip(self.dense, self.norm, strict=True):
      x = dense(x)
      x = self._act(norm(x) if norm else x)
    return self.out(x) if self.out else x


class StackedMLP(Module):
  """Several MLPs of one shape, their weights stacked on a leading axis."""

  def __init__(
    self,
    layers: Layers,
    members: int,
    inputs: int,
    units: list[int],
    outputs: int,
    act: str,
    norm: str,
  ):
    sizes = [inputs, *units, outputs]
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    self.kernel = [
      layers.weight(f'kernel{i}', [members, a, b])
      for i, (a, b) in enumerate(pairs)
    ]
    self.bias = [
      layers.weight(f'bias{i}', [members, b], 0.0)
      for i, (_, b) in enumerate(pairs)
    ]
    if norm == 'layer':
      self.gain = [
        layers.weight(f'gain{i}', [members, b], 1.0)
        for i, b in enumerate(units)
      ]
    self.members = members
    self._norm = norm
    self._act = ACTIVATIONS[act]
    self._dtype = layers.dtype

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """All members at once on the same inputs: [..., D] to [M, ..., O]."""
    shape = x.shape[:-1].as_list()
    x = tf.reshape(x, [1, -1, x.shape[-1]])
    x = self._apply(x, lambda w: w)
    return tf.reshape(x, [self.members, *shape, x.shape[-1]])

  def select(self, x: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """One member per row at single-model cost: [T, N, D] to [T, N, O].

    Args:
      x: [T, N, D].
      members: [T] int32; row t is given to member members[t] alone, whose
        weights are gathered, so the other members are not evaluated.
    """
    if self.members == 1:
      shape = x.shape.as_list()
      x = self._apply(tf.reshape(x, [1, -1, shape[-1]]), lambda w: w)
      return tf.reshape(x, [*shape[:-1], x.shape[-1]])
    return self._apply(x, lambda w: tf.gather(w, members))

  def _apply(self, x, pick):
    last = len(self.kernel) - 1
    x = tf.cast(x, self._dtype)
    for i, (kernel, bias) in enumerate(
      zip(self.kernel, self.bias, strict=True)
    ):
      kernel = pick(tf.cast(kernel, self._dtype))
      bias = tf.cast(pick(bias), self._dtype)[:, None]
      x = tf.matmul(x, kernel)
      if i < last and self._norm == 'layer':
        gain = tf.cast(pick(self.gain[i]), self._dtype)[:, None]
        x = self._act(layer_norm(x, gain, bias))
      else:
        x = x + bias
        x = self._act(x) if i < last else x
    return x


def layer_norm(x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
  """Normalises the last axis in float32 (epsilon as in Keras, 1e-3)."""
  dtype = x.dtype
  x = tf.cast(x, tf.float32)
  mean, var = tf.nn.moments(x, [-1], keepdims=True)
  x = (x - mean) * tf.math.rsqrt(var + 1e-3)
  return tf.cast(x, dtype) * gain + bias


class Encoder(Module):
  """Embeds the observations whose keys match, by modality, concatenated."""

  def __init__(self, layers: Layers, shapes: dict[str, tuple], config):
    self.cnn_keys, self.mlp_keys = select_keys(shapes, config, 'encoder')
    self._dtype = layers.dtype
    self._act = ACTIVATIONS[config.act]
    self.size = 0
    if self.cnn_keys:
      size, _, channels = _stack_images(shapes, self.cnn_keys, 'encoder')
      self.conv, self.norm = [], []
      for i, kernel in enumerate(config.cnn_kernels):
        depth = config.cnn_depth * 2**i
        self.conv.append(layers.conv(channels, depth, kernel, f'conv{i}'))
        self.norm.append(
          layers.norm(depth, f'norm{i}') if config.norm == 'layer' else None
        )
        channels, size = depth, (size - kernel) // 2 + 1
        if size < 1:
          raise ConfigError(
            f'encoder.cnn_kernels: images of {shapes[self.cnn_keys[0]]} are '
            f'too small for {len(config.cnn_kernels)} stride-2 convolutions '
            f'with kernels {list(config.cnn_kernels)}; use larger images '
            '(env.image_size) or fewer, smaller kernels.'
          )
      self.size += size * size * channels
    if self.mlp_keys:
      inputs = sum(int(np.prod(shapes[k])) for k in self.mlp_keys)
      self.mlp = MLP(
        layers, inputs, config.mlp_layers, None, config.act, config.norm
      )
      self.size += self.mlp.size

  def __call__(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Preprocessed observations [..., *shape] to [..., size]."""
    outputs = []
    if self.cnn_keys:
      x = tf.concat([tf.cast(obs[k], self._dtype) for k in self.cnn_keys], -1)
      lead = x.shape[:-3].as_list()
      x = tf.reshape(x, [-1, *x.shape[-3:].as_list()])
      for conv, norm in zip(self.conv, self.norm, strict=True):
        x = conv(x)
        x = self._act(norm(x) if norm else x)
      outputs.append(tf.reshape(x, [*lead, int(np.prod(x.shape[1:]))]))
    if self.mlp_keys:
      x = tf.concat([tf.cast(obs[k], self._dtype) for k in self.mlp_keys], -1)
      outputs.append(self.mlp(x))
    return tf.concat(outputs, -1)


class Decoder(Module):
  """Predicts the observations whose keys match from features.

  Images: a dense layer to one pixel, then stride-2 transposed convolutions.
  """

  def __init__(self, layers: Layers, inputs: int, shapes: dict, config):
    self.cnn_keys, self.mlp_keys = select_keys(shapes, config, 'decoder')
    self._dtype = layers.dtype
    self._act = ACTIVATIONS[config.act]
    self._shapes = shapes
    if self.cnn_keys:
      size, _, channels = _stack_images(shapes, self.cnn_keys, 'decoder')
      kernels = config.cnn_kernels
      depths = [
        config.cnn_depth * 2 ** (len(kernels) - 2 - i)
        for i in range(len(kernels) - 1)
      ] + [channels]
      self.dense = layers.dense(inputs, 32 * config.cnn_depth, 'dense')
      self.deconv, self.norm = [], []
      before, pixels = 32 * config.cnn_depth, 1
      for i, (depth, kernel) in enumerate(zip(depths, kernels, strict=True)):
        self.deconv.append(layers.deconv(before, depth, kernel, f'deconv{i}'))
        normed = config.norm == 'layer' and i < len(kernels) - 1
        self.norm.append(layers.norm(depth, f'norm{i}') if normed else None)
        before, pixels = depth, (pixels - 1) * 2 + kernel
      if pixels != size:
        raise ConfigError(
          f'decoder.cnn_kernels: {list(kernels)} make images of {pixels} '
          f'pixels, but the environment gives {size}; set env.image_size to '
          f'{pixels} or choose other kernels ([5, 5, 6, 6] makes 64).'
        )
    if self.mlp_keys:
      self.mlp = MLP(
        layers, inputs, config.mlp_layers, None, config.act, config.norm
      )
      self.out = {
        key: layers.dense(self.mlp.size, int(np.prod(shapes[key])), 'out')
        for key in self.mlp_keys
      }

  def __call__(self, feat: tf.Tensor) -> dict:
    """Features [..., F] to one distribution per key over [..., *shape]."""
    outputs = {}
    lead = feat.shape[:-1].as_list()
    if self.cnn_keys:
      x = self.dense(tf.reshape(feat, [-1, feat.shape[-1]]))
      x = self._first(x)
      for deconv, norm in zip(self.deconv[1:], self.norm[:-1], strict=True):
        x = deconv(self._act(norm(x) if norm else x))
      x = tf.reshape(x, [*lead, *x.shape[1:].as_list()])
      depths = [self._shapes[key][-1] for key in self.cnn_keys]
      for key, mean in zip(self.cnn_keys, tf.split(x, depths, -1), strict=True):
        outputs[key] = dists.normal(mean, 3)
    if self.mlp_keys:
      x = self.mlp(feat)
      for key, out in self.out.items():
        outputs[key] = dists.normal(out(x), 1)
    return outputs

  def _first(self, x):
    """The first transposed convolution, [N, C] to [N, k, k, D].

    From a single pixel it is a matrix product, many times faster on CPU.
    """
    kernel = tf.cast(self.deconv[0].kernel, self._dtype)
    rows, cols, depth, inputs = kernel.shape
    kernel = tf.reshape(kernel, [-1, inputs])
    x = tf.matmul(x, kernel, transpose_b=True)
    x = tf.reshape(x, [-1, rows, cols, depth])
    return x + tf.cast(self.deconv[0].bias, self._dtype)


def select_keys(
  shapes: dict[str, tuple], config, name: str
) -> tuple[list[str], list[str]]:
  """Image and vector keys that match the regular expressions of `config`."""
  cnn = [
    k
    for k, s in sorted(shapes.items())
    if len(s) == 3 and re.fullmatch(config.cnn_keys, k)
  ]
  mlp = [
    k
    for k, s in sorted(shapes.items())
    if len(s) == 1 and re.fullmatch(config.mlp_keys, k)
  ]
  if not cnn and not mlp:
    raise ConfigError(
      f'{name}.cnn_keys {config.cnn_keys!r} and {name}.mlp_keys '
      f'{config.mlp_keys!r} match none of the observations '
      f'{ {k: tuple(s) for k, s in shapes.items()} }; images have three '
      f'dimensions, vectors one. Set --{name}.cnn_keys or --{name}.mlp_keys.'
    )
  return cnn, mlp


def _stack_images(shapes, keys, name):
  sizes = {tuple(shapes[k][:2]) for k in keys}
  rows, cols = next(iter(sizes))
  if len(sizes) > 1 or rows != cols:
    raise ConfigError(
      f'{name}.cnn_keys: the images {keys} are stacked along channels and '
      f'must be square and of one size, but have sizes {sorted(sizes)}; '
      'narrow the regular expression or set env.image_size.'
    )
  return rows, cols, sum(shapes[k][2] for k in keys)
