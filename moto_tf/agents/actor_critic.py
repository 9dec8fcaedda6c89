"""What behaviors in a world model share: policy, critics, optimizers."""

from typing import NamedTuple

import tensorflow as tf

from moto_tf.nn import dists, nets
from moto_tf.nn.layers import Layers, Module
from moto_tf.nn.optimizer import Optimizer


class EpisodeValues(NamedTuple):
  """What critics predict along N episodes of T transitions, and of what.

  The value at s[i] is that of reward[i] - penalty[i], discounted
  reward[i + 1] - penalty[i + 1], and so on. After transition i follows, once
  more discounted, end[i] if the episode ended by itself with it, and tail[i]
  where a time limit cut it there.

  Attributes:
    predicted: [T, N], values at s[0] to s[T - 1].
    reward, penalty, end, tail: [T, N].
  """

  predicted: tf.Tensor
  reward: tf.Tensor
  penalty: tf.Tensor
  end: tf.Tensor
  tail: tf.Tensor


class ActorCritic(Module):
  """Base of the behaviors; they add `train` and the equations.

  For evaluations and studies, a behavior may have `predict_values`, as MOTO
  has; for the studies also the `penalty` of its imagined rewards: statistic of
  Eq. 2 and weight.

  Args:
    config: the run's configuration.
    world_model: gives features and rollouts; never changed here.
    action: size A of an action.
    critics: number of critics.
    critic_inputs: size of what a critic sees.
    layers: makes the weights.

  Attributes:
    remarks: what is switched off, for the terminal.
  """

  penalty: tuple[str, float] | None = None

  def __init__(
    self,
    config,
    world_model,
    action: int,
    critics: int,
    critic_inputs: int,
    layers: Layers,
  ):
    self._config = config
    self._model = world_model
    self._size = action
    self.remarks = []
    self.actor = self.make_actor(layers)
    self.critics = Critics(layers, critics, critic_inputs, config)
    self._actor_opt = Optimizer(
      'actor',
      self.actor.named_variables(),
      **config.actor_opt,
      precision=layers.precision,
    )
    self._critic_opt = Optimizer(
      'critic',
      self.critics.named_variables(),
      **config.critic_opt,
      precision=layers.precision,
    )

  def make_actor(self, layers: Layers) -> Module:
    """A new actor, which has the interface of Actor."""
    return Actor(layers, self._model.feat, self._size, self._config.actor)

  def part(self, step: int) -> str:
    """Name of the method that trains at a gradient step."""
    del step
    return 'train'

  def share(self, step: int) -> float | None:
    """Weight of the values in the actor's loss, where `train` takes one."""
    del step

  def report(
    self, post: dict, data: dict, seed: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Scalar metrics of a batch without learning; none by default.

    Args:
      post: posterior states [B, T, ...] with 'feat'.
      data: preprocessed batch [B, T, ...].
      seed: [2].
    """
    del post, data, seed
    return {}

  def state(self) -> dict[str, tf.Variable]:
    """Variables to save, by name."""
    return {
      **self.actor.named_variables('actor/'),
      **self.critics.state(),
      **self._actor_opt.named_variables('actor_opt/'),
      **self._critic_opt.named_variables('critic_opt/'),
    }


class Actor(Module):
  """MLP to a truncated normal on [-1, 1], DreamerV2's `trunc_normal`."""

  def __init__(self, layers: Layers, feat: int, action: int, config):
    self.mlp = nets.MLP(
      layers, feat, config.layers, 2 * action, config.act, config.norm
    )
    self.size = action
    self._min_std = config.min_std
    self._sample_grad = config.sample_grad

  def __call__(self, feat: tf.Tensor) -> dists.TruncNormal:
    return self.dist(self.outputs(feat))

  def outputs(self, feat: tf.Tensor) -> tf.Tensor:
    """Features [..., F] to what `dist` takes, [..., 2A]."""
    return self.mlp(feat)

  def dist(self, outputs: tf.Tensor) -> dists.TruncNormal:
    """The policy, of what `outputs` returns."""
    mean, std = tf.split(outputs, 2, -1)
    std = 2 * tf.sigmoid(std / 2) + self._min_std
    return dists.TruncNormal(tf.tanh(mean), std, self._sample_grad)


class Critics(Module):
  """Stack of critics of one input, with targets.

  The targets start equal to the critics. Every `slow_target_update` gradient
  steps, the first one included, they take over the share
  `slow_target_fraction` of the critics (DreamerV2).
  """

  def __init__(self, layers: Layers, count: int, inputs: int, config):
    head = config.critic
    args = (layers, count, inputs, head.layers, 1, head.act, head.norm)
    self.online = nets.StackedMLP(*args, precise=True)
    self._target = nets.StackedMLP(*args, precise=True)
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
    return net(x)[..., 0]
