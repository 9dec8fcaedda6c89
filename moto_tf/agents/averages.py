"""Running averages of the weights that act."""

from collections.abc import Callable

import tensorflow as tf

from moto_tf.model.rssm import EnsembleRSSM
from moto_tf.nn import nets
from moto_tf.nn.layers import Layers, Module


class AveragedPolicy(Module):
  """Copies of encoder, RSSM and actor that follow the trained ones slowly.

  After n updates the copies are averages over about the last
  min(n / 9, 1 / (1 - decay)) of them, so that they start quickly.
  """

  def __init__(
    self,
    config,
    shapes: dict,
    action: int,
    layers: Layers,
    sources: tuple[Module, Module, Module],
    make_actor: Callable[[Layers], Module],
  ):
    """Starts equal to `sources`: encoder, RSSM and actor.

    `make_actor` makes another one of the actor's kind.
    """
    self.encoder = nets.Encoder(layers, shapes, config.encoder)
    self.rssm = EnsembleRSSM(layers, self.encoder.size, action, config.rssm)
    self.actor = make_actor(layers)
    self._decay = config.policy_average
    self._updates = tf.Variable(0, dtype=tf.int64, name='updates')
    copies = self.encoder, self.rssm, self.actor
    self._pairs = [
      pair
      for source, copy in zip(sources, copies, strict=True)
      for pair in zip(source.variables, copy.variables, strict=True)
    ]
    for source, copy in self._pairs:
      copy.assign(source)

  def update(self) -> None:
    """Takes over a share of the trained weights; once per gradient step."""
    count = tf.cast(self._updates, tf.float32)
    share = tf.maximum(1 - self._decay, 9 / (10 + count))
    for source, copy in self._pairs:
      copy.assign_add(tf.cast(share, copy.dtype) * (source - copy))
    self._updates.assign_add(1)

  def state(self) -> dict[str, tf.Variable]:
    """Everything to save, by name."""
    names = self.named_variables('average/')
    return {**names, 'average/updates': self._updates}
