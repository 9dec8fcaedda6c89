"""Behavior cloning from transitions, without a world model (paper C.4).

Every step of the replay is cloned, by the likelihood under a normal of
deviation 1 whose mean is a tanh:

  L = - mean of ln N(a; tanh(m(s)), 1)

Source of the form: JAXRL2, agents/pixel_bc.
"""

import tensorflow as tf

from moto_tf.agents.model_free import Transitions, UnitPolicyAgent


def make(config, obs_space: dict, act_space) -> 'BC':
  """The agent of this method; see moto_tf.agents.Method."""
  return BC(config, obs_space, act_space)


class BC(UnitPolicyAgent):
  """One network, from observations to the mean of the actions."""

  next_seen = False

  def __init__(self, config, obs_space: dict, act_space):
    super().__init__(config, obs_space, act_space)
    self.decays = config.bc.cosine_decay
    self.actor = self.net(self.size)
    self.learn(actor=self.actor)

  def update(
    self, batch: Transitions, seed: tf.Tensor, rate: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """See ModelFreeAgent.update; draws nothing."""
    del seed
    with tf.GradientTape() as tape, tf.name_scope('actor'):
      dist = self.dist(batch.obs)
      loss = -batch.mean(dist.log_prob(batch.action))
    error = tf.reduce_mean(tf.abs(dist.mean() - batch.action), -1)
    return {
      'actor_error': batch.mean(error),
      **self.optimizers['actor'].minimize(tape, loss, rate),
    }

  def mean(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
    """See UnitPolicyAgent.mean."""
    return tf.tanh(self.actor(obs))
