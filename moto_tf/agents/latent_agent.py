"""What LOMPO and COMBO share: a model first, then critics on latent buffers.

gradient step   0 .. M-1         M .. offline_steps-1   online
model           learns           stands still           learns
buffers                          every `add_every` steps: the batch,
                                 encoded, and rollouts that start there
critics, actor                   learn from both buffers, half and half
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from moto_tf.agents.actor_critic import ActorCritic, EpisodeValues
from moto_tf.agents.base import to_tensors
from moto_tf.agents.dreamer import flatten_states
from moto_tf.agents.latent_buffer import LatentBuffer, without_broken
from moto_tf.agents.model_based import ModelBasedAgent
from moto_tf.agents.noisy_actor import NoisyActor
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import split, swap, uniform

sg = tf.stop_gradient
# An imagined state is an end where this share of its discount is missing.
END = 0.5


class LatentAgent(ModelBasedAgent):
  """World model and a behavior that learns from latent buffers.

  Args:
    config, obs_space, act_space, behavior: as of ModelBasedAgent, with a
      subclass of LatentActorCritic.
  """

  def __init__(self, config, obs_space: dict, act_space, behavior: Callable):
    super().__init__(config, obs_space, act_space, behavior)
    self._first = round(config.latent.model_share * config.offline_steps)
    self._filled = False  # Whether the buffers were seen to hold something.
    self.functions = {
      'model': self.functions['model'],
      'encode': self.compile(self._encode_step, jit=True),
      # XLA can neither read nor write some rows of a variable.
      'buffer': self.compile(self._buffer_step),
      'sample': self.compile(self.behavior.sample),
      'behavior': self.compile(self.behavior.train, jit=True),
    }
    if config.offline_steps:
      self.remarks.append(
        f'Of {config.offline_steps:,} offline steps, the first '
        f'{self._first:,} train the model alone, the others the policy alone.'
      )

  def traces(self, batch: dict[str, np.ndarray]) -> Iterator[tuple]:
    """Of an online step; the buffers are filled too seldom to count."""
    data, seed = to_tensors(batch), self._seed(1, 0)
    records = batch['reward'].size / self._config.rssm.ensemble
    model = self.functions['model'].get_concrete_function(data, seed)
    yield 'model', model.graph, records
    now = tf.constant(0, tf.int64)
    sample = self.functions['sample'].get_concrete_function(seed, now)
    drawn, _ = sample.structured_outputs
    behavior = self.functions['behavior'].get_concrete_function(drawn, seed)
    yield 'behavior', behavior.graph, None

  def _train(self, batch, step):
    post, metrics = None, {}
    now, seed = tf.constant(step, tf.int64), self._seed(1, step)
    if step < self._first or step >= self._config.offline_steps:
      post, metrics = self.functions['model'](batch, seed)
    since = step - self._first
    due = since >= 0 and since % self._config.latent.add_every == 0
    if since >= 0 and not self._filled:
      # Empty, too, where offline_steps was lowered in the middle.
      due, self._filled = due or not int(self.behavior.buffer.real.held), True
    if due:
      post = post or self.functions['encode'](batch, seed)
      add = self.functions['buffer']
      metrics = metrics | add(post, batch, self._seed(5, step), now)
    if since >= 0:
      seed = self._seed(2, step)
      drawn, ages = self.functions['sample'](seed, now)
      metrics = metrics | ages | self.functions['behavior'](drawn, seed)
    if self._average:
      self._follow()
    return metrics

  def _encode_step(self, data, seed):
    """Posterior states of a batch, with 'feat'."""
    data, rssm = self.model.preprocess(data), self.model.rssm
    embed = self.model.encoder(data)
    post = rssm.observe(embed, data['action'], data['is_first'], seed)
    return {**post, 'feat': rssm.get_feat(post)}

  def _buffer_step(self, post, data, seed, step):
    data = {k: v for k, v in data.items() if k not in self.obs_keys}
    return self.behavior.add(post, self.model.preprocess(data), seed, step)


class LatentActorCritic(ActorCritic):
  """Deterministic actor and twin critics, one step at a time.

  Subclasses say what rollouts are rewarded with (`rewards`), and what the
  critics lose beyond their error (`conservative_loss`).
  """

  def __init__(self, config, world_model, action: int, layers: Layers):
    inputs = world_model.feat + action
    super().__init__(config, world_model, action, 2, inputs, layers)
    self.buffer = LatentBuffer(config, world_model.feat, action)

  def make_actor(self, layers: Layers) -> NoisyActor:
    config = self._config
    noise = config.latent.noise
    return NoisyActor(layers, self._model.feat, self._size, config.actor, noise)

  def state(self) -> dict[str, tf.Variable]:
    return super().state() | self.buffer.state()

  def rewards(self, seq: dict) -> tuple[tf.Tensor, dict]:
    """Rewards [H, N] of a rollout, reward[t] came with s[t+1], and metrics."""
    reward = self._model.predict_reward(seq['feat'])[1:]
    return reward, {'imag_reward_raw': tf.reduce_mean(reward)}

  def conservative_loss(
    self, batch: dict, q: tf.Tensor, seed: tf.Tensor
  ) -> tuple[tf.Tensor | float, dict]:
    """What is added to the critics' loss, and metrics; nothing here.

    Args:
      batch: as of `critic_loss`.
      q: [2, N] values of both critics at the recorded actions.
      seed: [2].
    """
    del batch, q, seed
    return 0.0, {}

  def add(
    self, post: dict, data: dict, seed: tf.Tensor, step: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Puts a batch and rollouts from its states into the buffers.

    Args:
      post: posterior states [B, T, ...] with 'feat'.
      data: preprocessed batch [B, T, ...].
      seed: [2].
      step: int64, the gradient step.

    Returns:
      Scalar metrics.
    """
    real, lost = without_broken(self.windows(post, data))
    self.buffer.real.add(real, step)
    rollouts, metrics = self.rollouts(post, data, seed)
    rollouts, more = without_broken(rollouts)
    self.buffer.latent.add(rollouts, step)
    return metrics | {'buffer_broken': lost + more}

  def windows(self, post: dict, data: dict) -> dict[str, tf.Tensor]:
    """Real sequences as rows of a Ring, [B, ...], unpenalised.

    state     s[0]    s[1]    s[2]
    action       a[1]    a[2]         a[i+1] left s[i], arrived with s[i+1]
    """
    reward = data['reward'][:, 1:]
    discount = self._config.discount * tf.ones_like(reward)
    if self._config.pred_discount:
      discount *= 1 - data['is_terminal'][:, 1:]
    return {
      'feat': post['feat'],
      'action': data['action'][:, 1:],
      'reward': reward,
      'discount': discount,
      'mask': 1 - data['is_first'][:, 1:],
    }

  def rollouts(
    self, post: dict, data: dict, seed: tf.Tensor
  ) -> tuple[dict[str, tf.Tensor], dict]:
    """Imagined sequences as rows of a Ring, [N, ...], and metrics.

    They start at all states of the batch, or at as many as
    `latent.start_states` says, drawn without replacement.
    """
    config, model = self._config, self._model
    draw_seed, imagine_seed = split(seed, 2)
    start = flatten_states(post, data)
    if count := config.latent.start_states:
      keys = uniform(start['is_terminal'].shape, draw_seed)
      pick = tf.math.top_k(keys, count).indices
      start = {k: tf.gather(v, pick) for k, v in start.items()}
    with tf.name_scope('rollout'):
      seq = model.imagine(self.actor, start, config.horizon, imagine_seed)
      reward, metrics = self.rewards(seq)
      discount = config.discount * tf.ones_like(reward)
      mask = tf.ones_like(reward)
      if config.pred_discount:
        left = model.predict_discount(seq['feat'])[1:] / config.discount
        goes_on = tf.cast(left > END, tf.float32)
        discount *= goes_on
        first = 1 - start['is_terminal'][None]
        mask = tf.math.cumprod(tf.concat([first, goes_on[:-1]], 0), 0)
    rows = {
      'feat': seq['feat'],
      'action': seq['action'][:-1],
      'reward': reward,
      'discount': discount,
      'mask': mask,
    }
    return {k: swap(v) for k, v in rows.items()}, metrics

  def sample(self, seed: tf.Tensor, step: tf.Tensor) -> tuple[dict, dict]:
    """What `train` learns from, of both buffers, and metrics.

    Args:
      seed: [2].
      step: int64, the gradient step.
    """
    return self.buffer.sample(split(seed, 2)[0], step)

  def train(self, batch: dict, seed: tf.Tensor) -> dict:
    """One gradient step of critics and actor.

    Both gradients are taken before either changes weights.

    Args:
      batch: of `sample`.
      seed: [2], the one that `sample` had.

    Returns:
      Scalar metrics.
    """
    critic_seed = split(seed, 2)[1]
    with tf.GradientTape() as actor_tape, tf.name_scope('actor'):
      actor_loss = self.actor_loss(batch)
    with tf.GradientTape() as tape, tf.name_scope('critics'):
      loss, metrics = self.critic_loss(batch, critic_seed)
    metrics |= self._critic_opt.minimize(tape, loss)
    metrics |= self._actor_opt.minimize(actor_tape, actor_loss)
    self.critics.update_target()
    return metrics

  def critic_loss(self, batch: dict, seed: tf.Tensor) -> tuple[tf.Tensor, dict]:
    """Mean squared error to r + d * min over targets of Q(s', pi(s')).

    The policy acts without noise. Summed over both critics.

    Args:
      batch: transitions of LatentBuffer.sample, [N, ...].
      seed: [2].
    """
    mask = batch['mask']
    value = self.critics.target(batch['next'], self.actor(batch['next']))
    target = batch['reward'] + batch['discount'] * tf.reduce_min(value, 0)
    target = sg(target)
    q = self.critics(batch['feat'], batch['action'])
    error = tf.reduce_sum((q - target) ** 2, 0)
    more, metrics = self.conservative_loss(batch, q, seed)
    for name, half in zip(('data', 'model'), self.halves(mask), strict=True):
      metrics |= {
        f'critic_{name}_loss': mean(error, half),
        f'critic_{name}_q': mean(tf.reduce_mean(q, 0), half),
        f'critic_{name}_target': mean(target, half),
      }
    return mean(error, mask) + more, metrics

  def actor_loss(self, batch: dict) -> tf.Tensor:
    """- mean of min over critics of Q(s, pi(s)), without noise."""
    q = self.critics(batch['feat'], self.actor(batch['feat']))
    return -mean(tf.reduce_min(q, 0), batch['mask'])

  def predict_values(
    self, post: dict, episode: dict[str, tf.Tensor], last: tf.Tensor
  ) -> EpisodeValues:
    """What the critics say of episodes; arguments as of MOTO.

        record      s[0]      s[1]      ...    s[T-1]    s[T]
        action           a[1]      a[2]             a[T]
        predicted   q[0]      q[1]             q[T-1]
        reward      r[1]      r[2]             r[T]
        tail        of s[1]   of s[2]          of s[T]   and their `last`

    Real transitions are not penalised, so there is no penalty.
    """
    q = lambda *x: tf.reduce_min(self.critics(*x), 0)
    feat, reward = post['feat'], episode['reward'][1:]
    return EpisodeValues(
      predicted=q(feat[:-1], episode['action'][1:]),
      reward=reward,
      penalty=tf.zeros_like(reward),
      end=tf.zeros_like(reward),
      tail=q(feat[1:], last[1:]),
    )

  def halves(self, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The mask [N] of real transitions alone, and of imagined ones."""
    real = tf.cast(tf.range(mask.shape[0]) < mask.shape[0] // 2, tf.float32)
    return mask * real, mask * (1 - real)


def mean(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  """Mean of x [..., N] where mask [N] is 1, over all axes; 0 without any."""
  count = tf.reduce_sum(mask) * (x.shape.num_elements() / mask.shape[0])
  return tf.reduce_sum(mask * x) / tf.maximum(count, 1)
