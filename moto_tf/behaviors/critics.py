"""Critics with slowly updated target copies."""

import tensorflow as tf

from .. import nets
from ..tfutils import Layers, Module


class Critics(Module):
  """Stack of critics of one input, with targets.

  The targets start equal to the critics. Every `slow_target_update` gradient
  steps, the first one included, they take over the share
  `slow_target_fraction` of the critics (DreamerV2).
  """

  def __init__(self, layers: Layers, count: int, inputs: int, config):
    head = config.critic
    args = (layers, count, inputs, head.layers, 1, head.act, head.norm)
    self.online = nets.StackedMLP(*args)
    self._target = nets.StackedMLP(*args)
    for source, target in self._pairs():
      target.assign(source)
    self._updates = tf.Variable(0, dtype=tf.int64, name='updates')
    self._every = config.slow_target_update
    self._share = config.slow_target_fraction

  def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
    """Values of every critic: inputs [..., D] to [count, ...]."""
    return self._value(self.online, inputs)

  def target(self, *inputs: tf.Tensor) -> tf.Tensor:
    """Values of every target critic: inputs [..., D] to [count, ...]."""
    return self._value(self._target, inputs)

  def update_target(self) -> None:
    """Counts one gradient step and updates the targets when it is time."""
    due = tf.equal(self._updates % self._every, 0)
    first = tf.equal(self._updates, 0)
    share = tf.where(first, 1.0, tf.where(due, self._share, 0.0))
    for source, target in self._pairs():
      target.assign(share * source + (1 - share) * target)
    self._updates.assign_add(1)

  def state(self) -> dict[str, tf.Variable]:
    """Everything to save: critics, targets, and the update counter."""
    return {
      **self.named_variables('critics/'),
      **self._target.named_variables('critics/target/'),
      'critics/updates': self._updates,
    }

  def _pairs(self):
    return zip(self.online.variables, self._target.variables, strict=True)

  @staticmethod
  def _value(net, inputs):
    dtype = inputs[0].dtype
    x = tf.concat([tf.cast(x, dtype) for x in inputs], -1)
    return tf.cast(net(x)[..., 0], tf.float32)
