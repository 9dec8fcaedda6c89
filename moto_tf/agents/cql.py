"""Conservative Q-learning from transitions (paper C.4).

Kumar et al. 2020, Eq. 4: soft actor-critic whose critics are also pushed down
on actions that the policy or chance would take, and up on those of the data. In
the form that D5RL's fork of JAXRL2 gives it.
"""

import math

import tensorflow as tf

from moto_tf.agents.conservative import soft_maximum
from moto_tf.agents.model_free import Transitions
from moto_tf.agents.sac import SAC, sg
from moto_tf.nn.tfutils import normal, split, uniform


def make(config, obs_space: dict, act_space) -> 'CQL':
  """The agent of this method; see moto_tf.agents.Method."""
  return CQL(config, obs_space, act_space)


class CQL(SAC):
  """SAC with a conservative term in the critics' loss."""

  def critic_loss(
    self, features: dict, target: tf.Tensor, batch: Transitions, seed: tf.Tensor
  ) -> tuple[tf.Tensor, dict]:
    """SAC's, plus cql.alpha times the conservative term.

        mean of ln sum_j exp(Q_i(s, a_j) - ln mu(a_j)) - Q_i(s, a)

    over steps and both critics. The a_j are cql.actions of the policy, of
    density mu = pi(a_j|s), and as many uniform ones, mu = 2^-A. The weights
    1 / mu make the sum an estimate of the integral over all actions
    (importance sampling, Kumar et al., appendix F); the number of actions would
    add a constant.

    Args:
      features, target, batch, seed: as of SAC.critic_loss.
    """
    loss, metrics = super().critic_loss(features, target, batch, seed)
    actions, log_mu = self.other_actions(features, batch, seed)
    value = self.critic.head(features, actions)[..., 0]
    data = self.critic.head(features, batch.action)[..., 0]
    gap = soft_maximum(value, log_mu) - data
    conservative = batch.mean(gap)
    ours, chance = tf.split(value, 2, 1)
    metrics |= {
      'cql_loss': conservative,
      'critic_policy_q': batch.mean(ours),
      'critic_uniform_q': batch.mean(chance),
    }
    return loss + self._config.cql.alpha * conservative, metrics

  def other_actions(
    self, features: dict, batch: Transitions, seed: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Actions [2 n, N, A], first the policy's, and their ln mu [2 n, N]."""
    count, (size, width) = self._config.cql.actions, batch.action.shape
    policy_seed, uniform_seed = split(seed, 2)
    shape = [count, size, width]
    dist = self.dist({k: sg(v) for k, v in features.items()})
    ours, log_pi = dist.sample_and_log_prob(normal(shape, policy_seed))
    chance = 2 * uniform(shape, uniform_seed) - 1
    log_chance = tf.fill([count, size], -width * math.log(2))
    return (
      tf.concat([sg(ours), chance], 0),
      tf.concat([sg(log_pi), log_chance], 0),
    )
