"""A deterministic policy, with noise where it is to try something."""

import tensorflow as tf

from moto_tf.nn import dists, nets
from moto_tf.nn.layers import Layers, Module
from moto_tf.nn.tfutils import uniform


class NoisyActor(Module):
  """MLP to tanh(x), and normal noise around it (LOMPO's public code).

  Args:
    layers: makes the weights.
    feat, action: sizes of states and actions.
    config: settings `actor`.
    noise: standard deviation.
  """

  def __init__(
    self, layers: Layers, feat: int, action: int, config, noise: float
  ):
    self.mlp = nets.MLP(
      layers, feat, config.layers, action, config.act, config.norm
    )
    self.size = action
    self._noise = noise

  def __call__(self, feat: tf.Tensor) -> tf.Tensor:
    """Actions [..., A] without noise."""
    return tf.tanh(self.outputs(feat))

  def outputs(self, feat: tf.Tensor) -> tf.Tensor:
    """Features [..., F] to what `dist` takes, [..., A]."""
    return self.mlp(feat)

  def dist(self, outputs: tf.Tensor) -> 'ClippedNormal':
    """The policy, of what `outputs` returns."""
    mean = tf.tanh(outputs)
    return ClippedNormal(mean, self._noise * tf.ones_like(mean))


class ClippedNormal(dists.DiagNormal):
  """Normals whose samples are clipped to [-1, 1].

  Mean and mode are the location, which lies within. Densities are those before
  clipping. `sample(noise=...)` takes uniform noise in (0, 1).
  """

  def _draw(self, shape, seed):
    return uniform(shape, seed)

  def _make(self, noise):
    value = super()._make(tf.math.ndtri(noise))
    return tf.clip_by_value(value, -1.0, 1.0)
