"""DreamerV2's behavior: state-value critic and its own lambda target.

Hafner et al. 2020, Eq. 4 to 6, with the alignment of its public code: the
reward predicted at a state belongs to that state, and targets bootstrap with
the target critic. Dynamics gradients, as for its continuous control tasks.
"""

import numpy as np
import tensorflow as tf

from moto_tf.agents.actor_critic import ActorCritic, EpisodeValues
from moto_tf.agents.model_based import ModelBasedAgent
from moto_tf.nn import replicas
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import split, uniform

sg = tf.stop_gradient


def make(config, obs_space: dict, act_space) -> ModelBasedAgent:
  """The agent of this method; see moto_tf.agents.Method."""
  return ModelBasedAgent(config, obs_space, act_space, Dreamer)


def make_paper(config, obs_space: dict, act_space) -> ModelBasedAgent:
  """The agent of dreamerv2_paper; see moto_tf.agents.Method."""
  return ModelBasedAgent(config, obs_space, act_space, PaperDreamer)


class Dreamer(ActorCritic):
  """Actor and one state-value critic trained in imagination."""

  def __init__(self, config, world_model, action: int, layers: Layers):
    inputs = world_model.feat
    super().__init__(config, world_model, action, 1, inputs, layers)

  def train(self, post: dict, data: dict, seed: tf.Tensor) -> dict:
    """One gradient step; arguments as of MOTO.train."""
    start, seed = self.starts(post, data, seed)
    with tf.GradientTape() as tape:
      seq = self.imagine(start, seed)
      target, metrics = self.target(seq)
      loss, mets = self.actor_loss(seq, target)
    metrics.update(mets)
    metrics.update(self._actor_opt.minimize(tape, loss))
    seq = {k: sg(v) for k, v in seq.items()}
    with tf.GradientTape() as tape:
      loss, mets = self.critic_loss(seq, sg(target))
    metrics.update(mets)
    metrics.update(self._critic_opt.minimize(tape, loss))
    self.critics.update_target()
    return metrics

  def starts(self, post: dict, data: dict, seed: tf.Tensor) -> tuple:
    """States [N, ...] that start rollouts, and the seed of these."""
    return flatten_states(post, data), seed

  def imagine(self, start: dict, seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Rollout with reward, discount and weight of each state, [H+1, N]."""
    model, config = self._model, self._config
    seq = model.imagine(self.actor, start, config.horizon, seed)
    seq['reward'] = model.predict_reward(seq['feat'])
    discount = model.predict_discount(seq['feat'])
    if config.pred_discount:
      # Whether the first state is an end is known from the data.
      first = config.discount * (1 - start['is_terminal'])[None]
      discount = tf.concat([first, discount[1:]], 0)
    seq['discount'] = discount
    ones = tf.ones_like(discount[:1])
    seq['weight'] = tf.math.cumprod(tf.concat([ones, discount[:-1]], 0), 0)
    return seq

  def target(self, seq: dict) -> tuple[tf.Tensor, dict]:
    """Lambda targets [H, N].

    state      s[0]  s[1]  ...  s[H-1]  s[H]
    reward     r[0]  r[1]       r[H-1]            r[t] is of s[t]
    value      v[0]  v[1]       v[H-1]  v[H]      target critic
    target     t[0]  t[1]       t[H-1]
    """
    value = self.critics.target(seq['feat'])[0]
    target = lambda_return(
      seq['reward'][:-1],
      value,
      seq['discount'][:-1],
      self._config.discount_lambda,
    )
    return target, {
      'imag_reward': tf.reduce_mean(seq['reward']),
      'imag_value': tf.reduce_mean(target),
    }

  def actor_loss(self, seq: dict, target: tf.Tensor) -> tuple[tf.Tensor, dict]:
    """Negative weighted target and entropy.

    t[0] is left out: a[0] first acts on s[1], so the loss of the policy at
    s[t] takes t[t+1], for t = 0..H-2.
    """
    entropy = self.actor.dist(seq['policy'][:-2]).entropy()
    weight = sg(seq['weight'][:-2])
    objective = target[1:] + self._config.actor_ent * entropy
    loss = -tf.reduce_mean(weight * objective)
    return loss, {'actor_ent': tf.reduce_mean(entropy)}

  def critic_loss(self, seq: dict, target: tf.Tensor) -> tuple[tf.Tensor, dict]:
    """Weighted negative log-likelihood of a unit normal (DreamerV2)."""
    value = self.critics(seq['feat'][:-1])[0]
    nll = 0.5 * (target - value) ** 2 + 0.5 * np.log(2 * np.pi)
    loss = tf.reduce_mean(sg(seq['weight'][:-1]) * nll)
    return loss, {'critic_value': tf.reduce_mean(value)}

  def predict_values(
    self, post: dict, episode: dict[str, tf.Tensor], last: tf.Tensor
  ) -> EpisodeValues:
    """What the critic says of episodes; arguments as of MOTO.

    record      s[0]      s[1]      ...    s[T-1]    s[T]
    predicted   v[0]      v[1]             v[T-1]
    reward      r[0]      r[1]             r[T-1]
    end         r[1]      r[2]             r[T]
    tail        v[1]      v[2]             v[T]
    """
    del last
    value, reward = self.critics(post['feat'])[0], episode['reward']
    return EpisodeValues(
      predicted=value[:-1],
      reward=reward[:-1],
      penalty=tf.zeros_like(value[:-1]),
      end=reward[1:],
      tail=value[1:],
    )


class PaperDreamer(Dreamer):
  """The paper's baseline: MOTO's batch for the agent (C.3), and its priors."""

  def starts(self, post: dict, data: dict, seed: tf.Tensor) -> tuple:
    """As many states as `moto.start_states` says, without replacement."""
    draw_seed, seed = split(seed, 2)
    states = flatten_states(post, data)
    count = self._config.moto.start_states
    if count:
      keys = uniform(states['is_terminal'].shape, draw_seed)
      pick = tf.math.top_k(keys, replicas.share(count)).indices
      states = {k: tf.gather(v, pick) for k, v in states.items()}
    return states, seed


def lambda_return(
  reward: tf.Tensor, value: tf.Tensor, discount: tf.Tensor, lambda_: float
) -> tf.Tensor:
  """t[k] = r[k] + d[k] * ((1 - lambda) * v[k+1] + lambda * t[k+1]).

  Args:
    reward, discount: [H, N], of the state itself.
    value: [H+1, N]; the last one is t[H].

  Returns:
    [H, N].
  """
  targets, last = [], value[-1]
  for t in reversed(range(reward.shape[0])):
    mixed = (1 - lambda_) * value[t + 1] + lambda_ * last
    last = reward[t] + discount[t] * mixed
    targets.append(last)
  return tf.stack(targets[::-1])


def flatten_states(post: dict, data: dict) -> dict:
  """All posterior states of a batch, [B * T, ...], to start rollouts."""
  states = {
    'deter': post['deter'],
    'stoch': post['stoch'],
    'is_terminal': data['is_terminal'],
  }
  return {
    k: tf.reshape(v, [-1, *v.shape[2:].as_list()]) for k, v in states.items()
  }
