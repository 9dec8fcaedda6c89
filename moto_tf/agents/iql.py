"""Implicit Q-learning from transitions (paper C.4).

Kostrikov, Nair, Levine 2021, *Offline Reinforcement Learning with Implicit
Q-Learning*, in the order and form of JAXRL2's agents/pixel_iql.

  Eq. 5   value_loss     expectile of the target critics over the data's actions
  Eq. 7   actor_loss     cloning, weighted by the advantage
  Eq. 6   critic_loss
"""

import tensorflow as tf

from moto_tf.agents.model_free import Transitions, UnitPolicyAgent
from moto_tf.agents.pixel_nets import copy_weights

sg = tf.stop_gradient


def make(config, obs_space: dict, act_space) -> 'IQL':
  """The agent of this method; see moto_tf.agents.Method."""
  return IQL(config, obs_space, act_space)


class IQL(UnitPolicyAgent):
  """State value, then actor, then twin critics, each with its own encoder.

  Attributes:
    value, actor, critic: networks of V(s), the policy's mean, and Q(s, a).
    target: slow copy of the critics.
  """

  def __init__(self, config, obs_space: dict, act_space):
    super().__init__(config, obs_space, act_space)
    self.decays = config.iql.cosine_decay
    self.actor = self.net(self.size)
    self.critic = self.net(1, self.size, members=2)
    self.target = self.net(1, self.size, members=2)
    copy_weights(self.critic, self.target)
    self.value = self.net(1)
    self.learn(actor=self.actor, critic=self.critic, value=self.value)
    self.modules['target'] = self.target

  def update(
    self, batch: Transitions, seed: tf.Tensor, rate: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """See ModelFreeAgent.update; draws nothing."""
    del seed
    minimize = lambda name, *args: self.optimizers[name].minimize(*args)
    with tf.name_scope('targets'):
      slow = tf.reduce_min(self.target(batch.obs, batch.action)[..., 0], 0)
    with tf.GradientTape() as tape, tf.name_scope('value'):
      loss, metrics = self.value_loss(slow, batch)
    metrics |= minimize('value', tape, loss)
    with tf.name_scope('value'):
      # Of the value that has just learned.
      advantage = slow - self.value(batch.obs)[:, 0]
    with tf.GradientTape() as tape, tf.name_scope('actor'):
      loss, mets = self.actor_loss(sg(advantage), batch)
    metrics |= mets | minimize('actor', tape, loss, rate)
    with tf.name_scope('value'):
      after = self.value(batch.next)[:, 0]
    target = sg(batch.reward + batch.discount * after)
    with tf.GradientTape() as tape, tf.name_scope('critics'):
      loss, mets = self.critic_loss(target, batch)
    metrics |= mets | minimize('critic', tape, loss)
    with tf.name_scope('targets'):
      copy_weights(self.critic, self.target, self.free.tau)
    return metrics

  def value_loss(
    self, slow: tf.Tensor, batch: Transitions
  ) -> tuple[tf.Tensor, dict]:
    """Mean of |tau - 1(u < 0)| u^2, u = min Q'(s, a) - V(s) (Eq. 5).

    Args:
      slow: min Q'(s, a) of the target critics, [N].
      batch: steps of the data.
    """
    value = self.value(batch.obs)[:, 0]
    expectile, error = self._config.iql.expectile, slow - value
    weight = tf.where(error > 0, expectile, 1 - expectile)
    return batch.mean(weight * error**2), {'value_data_v': batch.mean(value)}

  def actor_loss(
    self, advantage: tf.Tensor, batch: Transitions
  ) -> tuple[tf.Tensor, dict]:
    """- mean of min(exp(beta A), limit) ln N(a; m(s), 1) (Eq. 7).

    Args:
      advantage: A = min Q'(s, a) - V(s), [N].
      batch: steps of the data.
    """
    config = self._config.iql
    weight = tf.exp(config.temperature * advantage)
    clipped = weight > config.clip
    weight = tf.minimum(weight, config.clip)
    log_prob = self.dist(batch.obs).log_prob(batch.action)
    return -batch.mean(weight * log_prob), {
      'advantage': batch.mean(advantage),
      'actor_weight': batch.mean(weight),
      'actor_clipped': batch.mean(tf.cast(clipped, tf.float32)),
    }

  def critic_loss(
    self, target: tf.Tensor, batch: Transitions
  ) -> tuple[tf.Tensor, dict]:
    """Mean of (Q_i(s, a) - y)^2, y = r + gamma V(s') (Eq. 6).

    Args:
      target: y, [N].
      batch: steps of the data.
    """
    value = self.critic(batch.obs, batch.action)[..., 0]
    return batch.mean((value - target) ** 2), {
      'critic_data_q': batch.mean(value),
      'critic_data_target': batch.mean(target),
    }

  def mean(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
    """See UnitPolicyAgent.mean."""
    return self.actor(obs)
