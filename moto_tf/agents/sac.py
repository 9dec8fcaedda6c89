"""Soft actor-critic from transitions (paper C.4).

Haarnoja et al. 2018, *Soft Actor-Critic Algorithms and Applications*, of which
the equation numbers are, with the shared encoder and the random crops of DrQ
(Kostrikov et al. 2020), in the form of JAXRL2's agents/drq.

  Eq. 5, 6   critic_loss        with the target of `target`
  Eq. 7, 9   actor_loss
  Eq. 18     temperature_loss
"""

import math

import tensorflow as tf

from moto_tf.agents.model_free import ModelFreeAgent, Transitions
from moto_tf.agents.pixel_nets import Head, copy_weights
from moto_tf.nn.dists import TanhNormal
from moto_tf.nn.layers import Module
from moto_tf.nn.tfutils import normal, split

sg = tf.stop_gradient
LOG_STD = -20.0, 2.0  # Bounds, as in JAXRL2.


def make(config, obs_space: dict, act_space) -> 'SAC':
  """The agent of this method; see moto_tf.agents.Method."""
  return SAC(config, obs_space, act_space)


class Temperature(Module):
  """A positive number that is learned by its logarithm."""

  def __init__(self, value: float):
    self.log = tf.Variable(math.log(value), dtype=tf.float32, name='log')

  def __call__(self) -> tf.Tensor:
    return tf.exp(self.log)


class SAC(ModelFreeAgent):
  """Twin critics on one encoder, which the actor sees without gradient.

  All losses of a step are of the weights before it.

  Attributes:
    critic, target: encoder and twin Q-values, and their slow copy.
    actor: head on the features of the critic's encoder.
    temperature: weight of the entropy.
  """

  def __init__(self, config, obs_space: dict, act_space):
    super().__init__(config, obs_space, act_space)
    self.critic = self.net(1, self.size, members=2)
    self.target = self.net(1, self.size, members=2)
    copy_weights(self.critic, self.target)
    self.actor = Head(
      self.layers,
      self.critic.encoder.size,
      self.inputs,
      self.free,
      2 * self.size,
    )
    self.temperature = Temperature(config.sac.temperature)
    self.learn(
      critic=self.critic, actor=self.actor, temperature=self.temperature
    )
    self.modules['target'] = self.target

  def update(
    self, batch: Transitions, seed: tf.Tensor, rate: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """See ModelFreeAgent.update."""
    del rate
    target_seed, actor_seed, critic_seed = split(seed, 3)
    target, mets = self.target_q(batch, target_seed)
    metrics = dict(mets)
    with tf.GradientTape() as critic_tape:
      with tf.name_scope('encoder'):
        features = self.critic.encoder(batch.obs)
      with tf.name_scope('critics'):
        critic_loss, mets = self.critic_loss(
          features, target, batch, critic_seed
        )
    metrics |= mets
    features = {k: sg(v) for k, v in features.items()}
    with tf.GradientTape() as actor_tape, tf.name_scope('actor'):
      actor_loss, log_prob = self.actor_loss(features, batch, actor_seed)
    with tf.GradientTape() as tape:
      loss = self.temperature_loss(log_prob, batch)
    metrics['actor_ent'] = -batch.mean(log_prob)
    metrics['temperature'] = self.temperature()
    minimize = lambda name, *args: self.optimizers[name].minimize(*args)
    # The actor before the critic, through whose weights its gradient passes.
    metrics |= minimize('actor', actor_tape, actor_loss)
    metrics |= minimize('temperature', tape, loss)
    metrics |= minimize('critic', critic_tape, critic_loss)
    with tf.name_scope('targets'):
      copy_weights(self.critic, self.target, self.free.tau)
    return metrics

  def target_q(
    self, batch: Transitions, seed: tf.Tensor
  ) -> tuple[tf.Tensor, dict]:
    """y = r + gamma (Q'(s', a') - temperature ln pi(a'|s')), a' ~ pi, [N].

    Q' is the mean or minimum of both targets; at the end of a task y = r.
    """
    config = self._config.sac
    with tf.name_scope('actor'):
      features = self.critic.encoder(batch.next)
      noise = normal(batch.action.shape, seed)
      action, log_prob = self.dist(features).sample_and_log_prob(noise)
    with tf.name_scope('critics'):
      values = self.target(batch.next, action)[..., 0]
    reduce = {'mean': tf.reduce_mean, 'min': tf.reduce_min}
    value = reduce[config.target_q](values, 0)
    if config.backup_entropy:
      value -= self.temperature() * log_prob
    target = sg(batch.reward + batch.discount * value)
    return target, {'critic_data_target': batch.mean(target)}

  def critic_loss(
    self, features: dict, target: tf.Tensor, batch: Transitions, seed: tf.Tensor
  ) -> tuple[tf.Tensor, dict]:
    """Mean of (Q_i(s, a) - y)^2 over steps and both critics.

    Args:
      features: of the critic's encoder at s, with gradient.
      target: y, [N].
      batch: steps of the data.
      seed: [2]; not used here.
    """
    del seed
    value = self.critic.head(features, batch.action)[..., 0]
    loss = batch.mean((value - target) ** 2)
    return loss, {'critic_data_q': batch.mean(value)}

  def actor_loss(
    self, features: dict, batch: Transitions, seed: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean of temperature ln pi(a|s) - Q(s, a), a ~ pi, Q of both critics.

    Args:
      features: of the critic's encoder at s, without gradient.
      batch: steps of the data.
      seed: [2].

    Returns:
      The loss, and ln pi [N].
    """
    noise = normal(batch.action.shape, seed)
    action, log_prob = self.dist(features).sample_and_log_prob(noise)
    value = tf.reduce_mean(self.critic.head(features, action)[..., 0], 0)
    loss = batch.mean(sg(self.temperature()) * log_prob - value)
    return loss, log_prob

  def temperature_loss(
    self, log_prob: tf.Tensor, batch: Transitions
  ) -> tf.Tensor:
    """temperature (entropy - target entropy), of the actor's own samples."""
    wanted = self._config.sac.target_entropy * self.size
    return self.temperature() * (-sg(batch.mean(log_prob)) - wanted)

  def dist(
    self, features: dict[str, tf.Tensor], scale: float = 1.0
  ) -> TanhNormal:
    """The policy, with `scale` times the deviation before tanh."""
    mean, log_std = tf.split(self.actor(features), 2, -1)
    log_std = tf.clip_by_value(log_std, *LOG_STD)
    return TanhNormal(mean, scale * tf.exp(log_std))

  def act(
    self, obs: dict[str, tf.Tensor], noise: tf.Tensor, scale: float, how: str
  ) -> tf.Tensor:
    """See ModelFreeAgent.act; mean and mode are tanh of the normal's mean."""
    dist = self.dist(self.critic.encoder(obs), scale)
    return dist.sample(noise=noise) if how == 'sample' else dist.mode()

  def policy_variables(self) -> dict[str, tf.Variable]:
    """Those of the critic's encoder too, by which the actor sees."""
    encoder = {
      k: v
      for k, v in self.variables().items()
      if k.startswith('critic/encoder/')
    }
    return {**super().policy_variables(), **encoder}
