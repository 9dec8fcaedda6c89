"""COMBO: conservative offline model-based policy optimization.

Yu et al. 2021, in latent space, as LOMPO's public code has it, which the paper
ran (C.3): critics are kept small on rollouts, and large on the data.
"""

import tensorflow as tf

from moto_tf.agents.conservative import soft_maximum
from moto_tf.agents.latent_agent import LatentActorCritic, LatentAgent, mean
from moto_tf.nn.tfutils import uniform

sg = tf.stop_gradient


def make(config, obs_space: dict, act_space) -> LatentAgent:
  """The agent of this method; see moto_tf.agents.Method."""
  return LatentAgent(config, obs_space, act_space, COMBO)


class COMBO(LatentActorCritic):
  """Rewards are not penalised; critics have a loss beyond their error."""

  def conservative_loss(
    self, batch: dict, q: tf.Tensor, seed: tf.Tensor
  ) -> tuple[tf.Tensor, dict]:
    """alpha * (mean of log sum_k exp(Q(s, a_k)) - mean of Q on the data).

    The actions a_k are uniform ones and that of the policy. The first mean is
    over the states that `combo.states` says; summed over both critics.
    """
    config, mask = self._config.combo, batch['mask']
    skip = 0 if config.states == 'all' else mask.shape[0] // 2
    states = batch['feat'][skip:]
    actions = self.candidates(states, seed)
    tiled = tf.tile(states[None], [actions.shape[0], 1, 1])
    high = soft_maximum(self.critics(tiled, actions))
    # Means are over both critics, too.
    real, _ = self.halves(mask)
    gap = 2 * (mean(high, mask[skip:]) - mean(q, real))
    loss = config.conservatism * gap
    return loss, {'critic_gap': gap, 'critic_conservative_loss': loss}

  def candidates(self, feat: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Actions [K + 1, N, A]: K uniform ones, and the policy's own."""
    policy = sg(self.actor(feat))
    drawn = uniform([self._config.combo.actions, *policy.shape], seed)
    return tf.concat([2 * drawn - 1, policy[None]], 0)
