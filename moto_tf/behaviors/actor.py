"""The policy network, shared by the behaviors."""

import tensorflow as tf

from .. import dists, nets
from ..tfutils import Layers, Module


class Actor(Module):
  """MLP to a truncated normal on [-1, 1], DreamerV2's `trunc_normal`."""

  def __init__(self, layers: Layers, feat: int, action: int, config):
    self.mlp = nets.MLP(
      layers, feat, config.layers, 2 * action, config.act, config.norm
    )
    self.size = action
    self._min_std = config.min_std

  def __call__(self, feat: tf.Tensor) -> dists.TruncNormal:
    mean, std = tf.split(tf.cast(self.mlp(feat), tf.float32), 2, -1)
    return dists.TruncNormal(
      tf.tanh(mean), 2 * tf.sigmoid(std / 2) + self._min_std
    )
