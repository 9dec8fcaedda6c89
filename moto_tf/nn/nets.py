"""Networks: MLPs, stacks of MLPs, image encoder and decoder."""

import numpy as np
import tensorflow as tf

from moto_tf.nn import dists
from moto_tf.nn.kernels import (
  decoder_kernels,
  encoder_kernels,
  grow,
  shrink,
)
from moto_tf.nn.layers import Layers, Module, layer_norm
from moto_tf.nn.tfutils import ACTIVATIONS
from moto_tf.rules import ConfigError, select_keys


class MLP(Module):
  """Hidden layers of equal activation and an optional linear output.

  The output is in float32, whatever the compute precision.
  """

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
      layers.dense(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    self.norm = [
      layers.norm(size) if norm == 'layer' else None for size in units
    ]
    self.out = layers.dense(sizes[-1], outputs, last=True) if outputs else None
    self._act = layers.activation(act)
    self.size = outputs or sizes[-1]

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    for dense, norm in zip(self.dense, self.norm, strict=True):
      x = dense(x)
      x = self._act(norm(x) if norm else x)
    return self.out(x) if self.out else x


class StackedMLP(Module):
  """Several MLPs of one shape, their weights stacked on a leading axis.

  Args:
    precise: whether the last layer computes in float32, as that of `MLP`.
  """

  def __init__(
    self,
    layers: Layers,
    members: int,
    inputs: int,
    units: list[int],
    outputs: int,
    act: str,
    norm: str,
    precise: bool = False,
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
      # As DreamerV2's, layers have a bias before the norm too.
      self.offset, self.gain = (
        [
          layers.weight(f'{name}{i}', [members, b], value)
          for i, b in enumerate(units)
        ]
        for name, value in (('offset', 0.0), ('gain', 1.0))
      )
    self.members = members
    self._norm = norm
    self._act = layers.activation(act)
    self._dtype = layers.dtype
    self._last = tf.float32 if precise else layers.dtype
    self._cpu = layers.cpu

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """All members at once on the same inputs: [..., D] to [M, ..., O]."""
    shape = x.shape[:-1].as_list()
    x = self._apply(tf.reshape(x, [1, -1, x.shape[-1]]), self._weights())
    return tf.reshape(x, [self.members, *shape, x.shape[-1]])

  def select(self, x: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """One member per row at single-model cost: [T, N, D] to [T, N, O].

    Args:
      x: [T, N, D].
      members: [T] int32; row t is given to member members[t] alone.
    """
    weights = self._weights()
    if self.members == 1:
      flat = tf.reshape(x, [1, -1, x.shape[-1]])
      return tf.reshape(self._apply(flat, weights), [*x.shape[:-1], -1])
    if x.shape[0] == 1 or not self._cpu:
      pick = lambda w: tf.gather(w, members)
      return self._apply(x, tf.nest.map_structure(pick, weights))
    return self._by_member(x, members, weights)

  def _by_member(self, x, members, weights):
    """Each member once on all its rows, whose number is known when run.

    On CPU several times faster than a gathered matrix for every row.
    """
    order = tf.argsort(members, stable=True)
    counts = tf.math.bincount(
      members, minlength=self.members, maxlength=self.members
    )
    groups = tf.split(tf.gather(x, order), counts, num=self.members)
    separate = [tf.unstack(w) for w in tf.nest.flatten(weights)]
    outputs = []
    for group, parts in zip(groups, zip(*separate, strict=True), strict=True):
      own = tf.nest.pack_sequence_as(weights, parts)
      group = tf.reshape(group, [-1, x.shape[-1]])
      outputs.append(self._apply(group, own))
    shape = [*x.shape[:-1], self.bias[-1].shape[-1]]
    outputs = tf.reshape(tf.concat(outputs, 0), shape)
    return tf.gather(outputs, tf.argsort(order))

  def _weights(self):
    """Per layer the kernel [M, I, O] and [M, 1, O] each of the others."""
    cast = lambda w: tf.cast(w, self._dtype)
    dtypes = [self._dtype] * (len(self.kernel) - 1) + [self._last]
    layers = [
      {'kernel': tf.cast(kernel, dtype), 'bias': tf.cast(bias, dtype)[:, None]}
      for kernel, bias, dtype in zip(
        self.kernel, self.bias, dtypes, strict=True
      )
    ]
    if self._norm == 'layer':
      for layer, offset, gain in zip(layers, self.offset, self.gain):
        layer['offset'] = cast(offset)[:, None]
        layer['gain'] = cast(gain)[:, None]
    return layers

  def _apply(self, x, weights):
    x = tf.cast(x, self._dtype)
    for i, layer in enumerate(weights):
      x = tf.matmul(tf.cast(x, layer['kernel'].dtype), layer['kernel'])
      if 'gain' in layer:
        x = layer_norm(x + layer['offset'], layer['gain'], layer['bias'])
      else:
        x = x + layer['bias']
      x = self._act(x) if i < len(weights) - 1 else x
    return x


class Encoder(Module):
  """Embeds the observations whose keys match, by modality, concatenated.

  Images: stride-2 convolutions, then dense layers where `cnn_layers` has some,
  as the paper prints them (C.3). DreamerV2 has none.
  """

  def __init__(self, layers: Layers, shapes: dict[str, tuple], config):
    self.cnn_keys, self.mlp_keys = select_keys(shapes, config, 'encoder')
    self._dtype = layers.dtype
    # Not that of `layers`, since it runs within the convolution.
    self._act = ACTIVATIONS[config.act]
    self.size, self.head = 0, None
    if self.cnn_keys:
      size, _, channels = _stack_images(shapes, self.cnn_keys, 'encoder')
      if shrink(size, config.cnn_kernels) < 1:
        advice = _advice('encoder', encoder_kernels(size))
        raise ConfigError(
          f'encoder.cnn_kernels: images of {shapes[self.cnn_keys[0]]} are '
          f'too small for {len(config.cnn_kernels)} stride-2 convolutions '
          f'with kernels {list(config.cnn_kernels)}; use larger images '
          f'(env.image_size){advice}.'
        )
      self.conv, self.norm = [], []
      for i, kernel in enumerate(config.cnn_kernels):
        depth = config.cnn_depth * 2**i
        self.conv.append(layers.conv(channels, depth, kernel))
        self.norm.append(layers.norm(depth) if config.norm == 'layer' else None)
        channels, size = depth, (size - kernel) // 2 + 1
      size = size * size * channels
      if config.cnn_layers:
        self.head = MLP(
          layers, size, config.cnn_layers, None, config.act, config.norm
        )
        size = self.head.size
      self.size += size
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
      x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
      x = self.head(x) if self.head else x
      outputs.append(tf.reshape(x, [*lead, x.shape[-1]]))
    if self.mlp_keys:
      x = tf.concat([tf.cast(obs[k], self._dtype) for k in self.mlp_keys], -1)
      outputs.append(self.mlp(x))
    return tf.concat(outputs, -1)


class Decoder(Module):
  """Predicts the observations whose keys match from features.

  Images: dense layers where `cnn_layers` has some, as the paper prints them
  (C.3), one to a single pixel, then stride-2 transposed convolutions.
  """

  def __init__(self, layers: Layers, inputs: int, shapes: dict, config):
    self.cnn_keys, self.mlp_keys = select_keys(shapes, config, 'decoder')
    self._dtype = layers.dtype
    self._act = layers.activation(config.act)
    self._shapes = shapes
    self.head = None
    if self.cnn_keys:
      size, _, channels = _stack_images(shapes, self.cnn_keys, 'decoder')
      kernels = config.cnn_kernels
      if (pixels := grow(kernels)) != size:
        advice = _advice('decoder', decoder_kernels(size))
        raise ConfigError(
          f'decoder.cnn_kernels: {list(kernels)} make images of {pixels} '
          f'pixels, but the environment gives {size}; set env.image_size to '
          f'{pixels}{advice}.'
        )
      depths = [
        config.cnn_depth * 2 ** (len(kernels) - 2 - i)
        for i in range(len(kernels) - 1)
      ] + [channels]
      if config.cnn_layers:
        self.head = MLP(
          layers, inputs, config.cnn_layers, None, config.act, config.norm
        )
      units = self.head.size if self.head else inputs
      self.dense = layers.dense(units, 32 * config.cnn_depth)
      self.deconv, self.norm = [], []
      before = 32 * config.cnn_depth
      for i, (depth, kernel) in enumerate(zip(depths, kernels, strict=True)):
        self.deconv.append(layers.deconv(before, depth, kernel))
        normed = config.norm == 'layer' and i < len(kernels) - 1
        self.norm.append(layers.norm(depth) if normed else None)
        before = depth
    if self.mlp_keys:
      self.mlp = MLP(
        layers, inputs, config.mlp_layers, None, config.act, config.norm
      )
      self.out = {
        key: layers.dense(self.mlp.size, int(np.prod(shapes[key])), last=True)
        for key in self.mlp_keys
      }

  def __call__(self, feat: tf.Tensor) -> dict:
    """Features [..., F] to one distribution per key over [..., *shape]."""
    outputs = {}
    lead = feat.shape[:-1].as_list()
    if self.cnn_keys:
      x = tf.reshape(feat, [-1, feat.shape[-1]])
      x = self.dense(self.head(x) if self.head else x)[:, None, None]
      last = len(self.deconv) - 1
      for i, deconv in enumerate(self.deconv):
        x = deconv(x)
        x = self.norm[i](x) if self.norm[i] else x
        x = self._act(x) if i < last else x
      x = tf.reshape(x, [*lead, *x.shape[1:].as_list()])
      depths = [self._shapes[key][-1] for key in self.cnn_keys]
      for key, mean in zip(self.cnn_keys, tf.split(x, depths, -1), strict=True):
        outputs[key] = dists.UnitNormal(mean, 3)
    if self.mlp_keys:
      x = self.mlp(feat)
      for key, out in self.out.items():
        outputs[key] = dists.UnitNormal(out(x), 1)
    return outputs


def _advice(name, kernels):
  """The end of a sentence: which kernels would fit."""
  if not kernels:
    return ''
  return f', or --{name}.cnn_kernels {",".join(map(str, kernels))}'


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
