"""MOTO: Eq. 2 to 10 of the paper, from disagreement to the actor loss.

Eq. 2     disagreement      how much the prior heads differ
Eq. 3     imagine           penalised imagined rewards
Eq. 5     value_expansion   V and V_hat over a rollout
Eq. 6,10  actor_loss        with clone_loss for the behavior prior
Eq. 7-9   critic_loss       on the model and on real transitions
"""

import tensorflow as tf

from moto_tf.agents.actor_critic import Actor, ActorCritic, EpisodeValues
from moto_tf.agents.assessment import contrast_penalty
from moto_tf.agents.model_based import ModelBasedAgent
from moto_tf.agents.penalties import statistics
from moto_tf.agents.returns import real_returns, value_expansion
from moto_tf.nn import replicas
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import split, uniform

sg = tf.stop_gradient


def make(config, obs_space: dict, act_space) -> ModelBasedAgent:
  """The agent of this method; see moto_tf.agents.Method."""
  return ModelBasedAgent(config, obs_space, act_space, MOTO)


class MOTO(ActorCritic):
  """Actor and twin Q-critics trained by model-based value expansion."""

  def __init__(self, config, world_model, action: int, layers: Layers):
    inputs = world_model.feat + action
    super().__init__(config, world_model, action, 2, inputs, layers)
    self.penalty = config.moto.penalty, config.moto.alpha
    if not config.moto.alpha:
      self.remarks.append('moto.alpha is 0: the penalty is not computed.')
    if not config.moto.beta:
      self.remarks.append('moto.beta is 0: nothing is cloned.')

  def part(self, step: int) -> str:
    """Cloning at first, then critics too, then all of it."""
    config = self._config.moto
    if step < min(config.critic_start, config.model_start):
      return 'clone'
    return 'train_critics' if step < config.model_start else 'train'

  def share(self, step: int) -> float | None:
    """Weight of the values (Eq. 6) in the actor's loss, 0 to 1."""
    config = self._config.moto
    if not config.model_ramp or step < config.model_start:
      return None
    return min((step - config.model_start) / config.model_ramp, 1.0)

  def train(
    self,
    post: dict,
    data: dict,
    seed: tf.Tensor,
    share: tf.Tensor | float = 1.0,
  ) -> dict:
    """Lines 5 to 7 of Algorithm 1 on one batch.

    Args:
      post: posterior states [B, T, ...] with 'feat', without gradient.
      data: preprocessed batch [B, T, ...].
      seed: [2].
      share: weight of the values, of `share`.

    Returns:
      Scalar metrics.
    """
    return self._train(post, data, seed, share)

  def train_critics(self, post: dict, data: dict, seed: tf.Tensor) -> dict:
    """As `train`, but the actor only clones."""
    return self._train(post, data, seed, None)

  def _train(self, post, data, seed, share):
    draw_seed, imagine_seed = split(seed, 2)
    real = draw_transitions(
      post, data, self._config.moto.start_states, draw_seed
    )
    if self._config.moto.data_target == 'lambda':
      returns = self.data_returns(post, data, draw_seed)
      real['target'] = tf.gather(tf.reshape(returns, [-1]), real['pick'])
    if share is not None:
      with tf.GradientTape() as tape:
        seq = self.imagine(real['next'], imagine_seed)
        loss, metrics = self.actor_loss(seq, post, data, share)
      metrics.update(self._actor_opt.minimize(tape, loss))
    else:
      seq = self.imagine(real['next'], imagine_seed)
      metrics = self.clone(post, data, seed)
    seq = {k: sg(v) for k, v in seq.items()}
    with tf.GradientTape() as tape, tf.name_scope('critics'):
      loss, mets = self.critic_loss(seq, real)
    metrics.update(mets)
    metrics.update(self._critic_opt.minimize(tape, loss))
    self.critics.update_target()
    return metrics

  def clone(self, post: dict, data: dict, seed: tf.Tensor) -> dict:
    """A step of the actor on Eq. 10's cloning alone, which draws nothing."""
    del seed
    with tf.GradientTape() as tape:
      clone, metrics = self._clone_loss(post, data)
      loss = self._config.moto.beta * clone
    return metrics | self._actor_opt.minimize(tape, loss)

  def report(
    self, post: dict, data: dict, seed: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Penalty under the recorded actions and under the opposite ones."""
    if not self._config.moto.alpha:
      return {}
    penalty = lambda seq: self._config.moto.alpha * self.disagreement(seq)
    return contrast_penalty(self._model.rssm, penalty, post, data, seed)

  def imagine(self, start: dict, seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Rollouts of Eq. 4 with the penalised rewards of Eq. 3.

        state     s[0]    s[1]    ...    s[H]
        action      a[0]    a[1]            a[H]
        reward           r[0]          r[H-1]       r[t] came with s[t+1]
        discount         d[0]          d[H-1]       d[t] is of s[t+1]
        penalty     u[0]    u[1]                    u[t] is of s[t], a[t]

    Returns:
      The rollout of WorldModel.imagine, and [H, N] each of reward, raw_reward,
      discount and weight, the running product of discounts that weighs the
      losses at s[t], and disagreement unless alpha is 0.
    """
    config, model = self._config, self._model
    with tf.name_scope('rollout'):
      seq = model.imagine(self.actor, start, config.horizon, seed)
      # Of all states, since only the results are cheap to cut.
      raw = model.predict_reward(seq['feat'])[1:]
      discount = model.predict_discount(seq['feat'])[1:]
    reward = raw
    if config.moto.alpha:
      with tf.name_scope('penalty'):
        seq['disagreement'] = self.disagreement(seq)
      reward = raw - config.moto.alpha * seq['disagreement']
    weight = tf.ones_like(discount)
    if config.pred_discount:
      first = 1 - start['is_terminal'][None]
      weight = sg(tf.math.cumprod(tf.concat([first, discount[:-1]], 0), 0))
    seq['raw_reward'] = raw
    seq['reward'] = reward
    seq['discount'] = discount
    seq['weight'] = weight
    return seq

  def disagreement(self, seq: dict) -> tf.Tensor:
    """u(s[t], a[t]) of Eq. 2 from all heads at h[t+1]: [H, N]."""
    rssm = self._model.rssm
    statistic = statistics(rssm.latent)[self._config.moto.penalty]
    return statistic(rssm.prior_all(seq['deter'][1:]), seq['stoch'][1:])

  def data_returns(self, post: dict, data: dict, seed: tf.Tensor) -> tf.Tensor:
    """Lambda returns along the real sequence, for Eq. 8: [B, T - 1].

    Policy and target critics alone bootstrap; nothing is imagined.
    """
    config, feat = self._config, post['feat']
    dist = self.actor(feat)
    shape = [*data['reward'].shape, data['action'].shape[-1]]
    action = dist.sample(noise=uniform(shape, split(seed, 2)[1]))
    value = tf.reduce_min(self.critics.target(feat, action), 0)
    discount = config.discount * tf.ones_like(data['reward'])
    if config.pred_discount:
      discount *= 1 - data['is_terminal']
    return sg(
      real_returns(
        data['reward'],
        value,
        discount,
        data['is_first'],
        config.discount_lambda,
      )
    )

  def actor_loss(
    self,
    seq: dict,
    post: dict,
    data: dict,
    share: tf.Tensor | float = 1.0,
  ) -> tuple[tf.Tensor, dict]:
    """Eq. 10: -E[V_hat(s[t])] (Eq. 6) + beta * cloning, with entropy bonus.

    V_hat uses the online critics; gradients reach the actor through actions,
    dynamics, rewards, penalty and the inputs of Q.
    """
    config = self._config
    weight = seq['weight']
    with tf.name_scope('actor'):
      value = tf.reduce_min(self.critics(seq['feat'], seq['action']), 0)
      v_hat, _ = value_expansion(
        seq['reward'], value, seq['discount'], config.discount_lambda
      )
      model_loss = -tf.reduce_mean(weight * v_hat[:-1])
      entropy = self.actor.dist(seq['policy'][:-1]).entropy()
    loss, ramp = model_loss, {}
    if config.moto.model_ramp:
      share = tf.convert_to_tensor(share, tf.float32)
      loss, ramp = share * loss, {'actor_model_weight': share}
    loss -= config.actor_ent * tf.reduce_mean(weight * entropy)
    metrics = {
      'actor_model_loss': model_loss,
      'actor_ent': tf.reduce_mean(entropy),
      'imag_reward_raw': tf.reduce_mean(seq['raw_reward']),
      'imag_reward': tf.reduce_mean(seq['reward']),
      'imag_value': tf.reduce_mean(v_hat[:-1]),
      **ramp,
    }
    if config.moto.beta:
      with tf.name_scope('clone'):
        clone, mets = self._clone_loss(post, data)
      loss += config.moto.beta * clone
      metrics |= mets
    if config.moto.alpha:
      u = tf.reduce_mean(seq['disagreement'])
      metrics |= {'imag_disagreement': u, 'imag_penalty': config.moto.alpha * u}
    return loss, metrics

  def _clone_loss(self, post, data):
    loss, share = clone_loss(
      self.actor, post['feat'], data, self._config.moto.clone_mean
    )
    return loss, {
      'actor_bc_loss': loss,
      'bc_share': share,
      'bc_records': replicas.total(tf.reduce_sum(cloned(data))),
    }

  def critic_loss(self, seq: dict, real: dict) -> tuple[tf.Tensor, dict]:
    """Eq. 9: Eq. 7 on imagined states plus Eq. 8 on real transitions.

    Args:
      seq: rollouts that start at the s' of the real transitions, no gradient.
      real: transitions of `draw_transitions`.
    """
    config = self._config
    value = tf.reduce_min(self.critics.target(seq['feat'], seq['action']), 0)
    v_hat, v = value_expansion(
      seq['reward'], value, seq['discount'], config.discount_lambda
    )
    q = self.critics(seq['feat'][:-1], seq['action'][:-1])
    model_loss = tf.reduce_mean(seq['weight'] * (sg(v) - q) ** 2, [1, 2])
    discount = config.discount * tf.ones_like(real['reward'])
    if config.pred_discount:
      discount *= 1 - real['next']['is_terminal']
    if config.moto.data_target == 'lambda':
      target = sg(real['target'])
    else:
      one = config.moto.data_target == 'one_step'
      target = sg(real['reward'] + discount * (value if one else v_hat)[0])
    q_data = self.critics(real['feat'], real['action'])
    count = replicas.divisor(tf.reduce_sum(real['mask']))
    data_loss = tf.reduce_sum(real['mask'] * (target - q_data) ** 2, 1) / count
    return tf.reduce_sum(model_loss + data_loss), {
      'critic_model_loss': tf.reduce_sum(model_loss),
      'critic_data_loss': tf.reduce_sum(data_loss),
      'critic_model_q': tf.reduce_mean(q),
      'critic_model_target': tf.reduce_mean(v),
      'critic_data_q': (
        tf.reduce_sum(real['mask'] * q_data) / (q_data.shape[0] * count)
      ),
      'critic_data_target': tf.reduce_sum(real['mask'] * target) / count,
    }

  def predict_values(
    self, post: dict, episode: dict[str, tf.Tensor], last: tf.Tensor
  ) -> EpisodeValues:
    """What the critics say of episodes, of penalised rewards (Eq. 3).

        record      s[0]      s[1]      ...    s[T-1]    s[T]
        action           a[1]      a[2]             a[T]
        predicted   q[0]      q[1]             q[T-1]
        reward      r[1]      r[2]             r[T]
        penalty     u[0]      u[1]             u[T-1]    of s[i], a[i+1]
        end         0         0                0
        tail        of s[1]   of s[2]          of s[T]   and their `last`

    Args:
      post: posterior states with 'feat' of N episodes, [T + 1, N, ...].
      episode: their records, [T + 1, N, ...].
      last: [T + 1, N, A], actions that the policy takes in these states.
    """
    q = lambda *x: tf.reduce_min(self.critics(*x), 0)
    feat, reward = post['feat'], episode['reward'][1:]
    penalty = tf.zeros_like(reward)
    if self._config.moto.alpha:
      penalty = self._config.moto.alpha * self.disagreement(post)
    return EpisodeValues(
      predicted=q(feat[:-1], episode['action'][1:]),
      reward=reward,
      penalty=penalty,
      end=tf.zeros_like(reward),
      tail=q(feat[1:], last[1:]),
    )


def clone_loss(
  actor: Actor, feat: tf.Tensor, data: dict, mean: str = 'cloned'
) -> tuple[tf.Tensor, tf.Tensor]:
  """Eq. 10: - sum of f log pi(action[i+1] | s[i]), divided by a count.

      state     s[0]    s[1]    s[2]
      action       a[1]    a[2]         a[i+1] left s[i], arrived with s[i+1]

  f is 1 for transitions of successful episodes and 0 for others.

  Args:
    feat: [B, T, F] of the posterior, without gradient.
    data: batch with action [B, T, A], is_first and success [B, T].
    mean: what the sum is divided by: 'cloned', the transitions with f = 1, or
      'batch', all transitions, as the paper prints it.

  Returns:
    Scalar loss, zero without successful episodes, and the share of
    transitions that were cloned.
  """
  valid, mask = 1 - data['is_first'][:, 1:], cloned(data)
  log_prob = actor(sg(feat[:, :-1])).log_prob(data['action'][:, 1:])
  total = tf.reduce_sum(valid if mean == 'batch' else mask)
  loss = -tf.reduce_sum(mask * log_prob) / replicas.divisor(total)
  return loss, tf.reduce_mean(mask)


def cloned(data: dict) -> tf.Tensor:
  """Whether a[i+1] is cloned in s[i], 0 or 1: [B, T - 1]."""
  return (1 - data['is_first'][:, 1:]) * data['success'][:, 1:]


def draw_transitions(
  post: dict, data: dict, count: int, seed: tf.Tensor
) -> dict:
  """Draws real transitions (s[i], action[i+1], reward[i+1], s[i+1]).

  Without replacement, uniform over those that lie within one episode, that is
  where is_first[i+1] is false.

  Args:
    post: states [B, T, ...] with 'feat'.
    data: batch [B, T, ...].
    count: number drawn, by all replicas together; 0: all B * (T - 1), those
      across episodes masked.
    seed: [2].

  Returns:
    feat [N, F] of s[i], action [N, A], reward [N], mask [N] (1: valid), and
    next: deter, stoch and is_terminal [N, ...] of s[i+1].
  """
  flat = lambda x: tf.reshape(x, [-1, *x.shape[2:].as_list()])
  valid = 1 - flat(data['is_first'][:, 1:])
  pick = tf.range(valid.shape[0])
  if count:
    # Random keys, smaller than any valid one where invalid.
    keys = uniform(valid.shape, seed) + valid
    pick = tf.math.top_k(keys, replicas.share(count)).indices
  here = lambda x: tf.gather(flat(x[:, :-1]), pick)
  then = lambda x: tf.gather(flat(x[:, 1:]), pick)
  return {
    'pick': pick,
    'feat': here(post['feat']),
    'action': then(data['action']),
    'reward': then(data['reward']),
    'mask': tf.gather(valid, pick),
    'next': {
      'deter': then(post['deter']),
      'stoch': then(post['stoch']),
      'is_terminal': then(data['is_terminal']),
    },
  }
