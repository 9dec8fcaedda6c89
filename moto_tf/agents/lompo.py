"""LOMPO: offline reinforcement learning from images with latent space models.

Rafailov et al. 2021, as their public code has it, which the paper ran (C.3):
rollouts of a frozen Gaussian RSSM are penalised where its priors disagree.
"""

import tensorflow as tf

from moto_tf.agents.assessment import contrast_penalty
from moto_tf.agents.latent_agent import LatentActorCritic, LatentAgent
from moto_tf.agents.penalties import statistics
from moto_tf.nn.layers import Layers


def make(config, obs_space: dict, act_space) -> LatentAgent:
  """The agent of this method; see moto_tf.agents.Method."""
  return LatentAgent(config, obs_space, act_space, LOMPO)


class LOMPO(LatentActorCritic):
  """Rollouts are rewarded with r - lambda * u."""

  def __init__(self, config, world_model, action: int, layers: Layers):
    super().__init__(config, world_model, action, layers)
    self.penalty = 'log_prob_std', config.lompo.lmbd

  def rewards(self, seq: dict) -> tuple[tf.Tensor, dict]:
    """Penalised rewards [H, N] of a rollout, and metrics."""
    raw, metrics = super().rewards(seq)
    with tf.name_scope('penalty'):
      disagreement = self.disagreement(seq)
    penalty = self._config.lompo.lmbd * disagreement
    reward = raw - penalty
    return reward, metrics | {
      'imag_reward': tf.reduce_mean(reward),
      'imag_disagreement': tf.reduce_mean(disagreement),
      'imag_penalty': tf.reduce_mean(penalty),
    }

  def disagreement(self, seq: dict) -> tf.Tensor:
    """u(s[t], a[t]): std over members i of log p_i(s[t+1]), [H, N]."""
    rssm = self._model.rssm
    statistic = statistics(rssm.latent)['log_prob_std']
    return statistic(rssm.prior_all(seq['deter'][1:]), seq['stoch'][1:])

  def report(
    self, post: dict, data: dict, seed: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Penalty under the recorded actions and under the opposite ones."""
    penalty = lambda seq: self._config.lompo.lmbd * self.disagreement(seq)
    return contrast_penalty(self._model.rssm, penalty, post, data, seed)
