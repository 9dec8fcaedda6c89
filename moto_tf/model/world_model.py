"""World model: Eq. 1 (learning) and Eq. 4 (imagined rollouts)."""

import tensorflow as tf

from moto_tf.model.rssm import EnsembleRSSM, kl_loss
from moto_tf.nn import dists, nets
from moto_tf.nn.layers import Layers, Module
from moto_tf.nn.optimizer import Optimizer
from moto_tf.nn.standardize import Standardize
from moto_tf.nn.tfutils import normal, split, swap, uniform


class WorldModel(Module):
  """RSSM, encoder, decoder, reward head and optional discount head."""

  def __init__(self, config, shapes: dict, action: int, layers: Layers):
    self._config = config
    self._dtype = layers.dtype
    self.encoder = nets.Encoder(layers, shapes, config.encoder)
    self.rssm = EnsembleRSSM(layers, self.encoder.size, action, config.rssm)
    feat = self.rssm.feat
    self.decoder = nets.Decoder(layers, feat, shapes, config.decoder)
    vectors = {*self.encoder.mlp_keys, *self.decoder.mlp_keys}
    self.standardize = Standardize({k: shapes[k] for k in sorted(vectors)})
    head = config.reward_head
    self.reward = nets.MLP(layers, feat, head.layers, 1, head.act, head.norm)
    if config.pred_discount:
      head = config.discount_head
      self.discount = nets.MLP(
        layers, feat, head.layers, 1, head.act, head.norm
      )
    self._opt = Optimizer(
      'model',
      self.named_variables(),
      **config.model_opt,
      precision=layers.precision,
    )

  @property
  def feat(self) -> int:
    """Size F of the features of a state."""
    return self.rssm.feat

  @property
  def input_keys(self) -> list[str]:
    """Observations that the encoder sees."""
    return [*self.encoder.cnn_keys, *self.encoder.mlp_keys]

  @property
  def obs_keys(self) -> list[str]:
    """Observations that encoder or decoder use."""
    decoded = [*self.decoder.cnn_keys, *self.decoder.mlp_keys]
    return sorted({*self.input_keys, *decoded})

  @property
  def optimizer(self) -> Optimizer:
    return self._opt

  def preprocess(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Images to [-0.5, 0.5], observed vectors standardised, all as floats."""
    return {
      k: tf.cast(v, self._dtype) / 255 - 0.5
      if v.dtype == tf.uint8
      else self.standardize(k, v)
      for k, v in data.items()
    }

  def train(
    self, data: dict[str, tf.Tensor], seed: tf.Tensor
  ) -> tuple[dict, dict]:
    """One gradient step on Eq. 1.

    Args:
      data: preprocessed batch [B, T, ...].
      seed: [2].

    Returns:
      Posterior states [B, T, ...] with their features under 'feat', without
      gradient, and metrics.
    """
    with tf.GradientTape() as tape:
      loss, post, metrics = self.loss(data, seed, self._config.encoder.noise)
    metrics.update(self._opt.minimize(tape, loss))
    return tf.nest.map_structure(tf.stop_gradient, post), metrics

  def _noisy(self, data, deviation, seed):
    """The data with noise on the encoder's vectors."""
    keys, noisy = self.encoder.mlp_keys, dict(data)
    seeds = split(seed, 2 + len(keys))[2:]  # Behind the two of `loss`.
    for key, own in zip(keys, seeds, strict=True):
      noise = deviation * normal(data[key].shape.as_list(), own)
      noisy[key] += tf.cast(noise, data[key].dtype)
    return noisy

  def loss(
    self, data: dict[str, tf.Tensor], seed: tf.Tensor, noise: float = 0.0
  ) -> tuple[tf.Tensor, dict, dict]:
    """Eq. 1: reconstruction, reward, discount and KL to one random prior.

    At every time step t one member i[t] enters the KL. `noise` is the deviation
    of what is added to the vectors that the encoder sees, and the decoder does
    not.
    """
    config, latent = self._config, self.rssm.latent
    post_seed, member_seed = split(seed, 2)
    with tf.name_scope('encoder'):
      embed = self.encoder(self._noisy(data, noise, seed) if noise else data)
    with tf.name_scope('posterior'):
      post = self.rssm.observe(
        embed, data['action'], data['is_first'], post_seed
      )
      feat = self.rssm.get_feat(post)
    with tf.name_scope('prior'):
      members = self.rssm.draw_members(data['action'].shape[1], member_seed)
      prior = self.rssm.prior_one(swap(post['deter']), members)
    with tf.name_scope('decoder'):
      likes = {
        f'{"image" if len(data[k].shape) == 5 else "vector"}_loss/{k}': (
          -dist.log_prob(tf.cast(data[k], tf.float32))
        )
        for k, dist in self.decoder(feat).items()
      }
    with tf.name_scope('heads'):
      reward = dists.UnitNormal(self.predict_reward(feat), 0)
      likes['reward_loss'] = -reward.log_prob(data['reward'])
      if config.pred_discount:
        target = config.discount * (1 - data['is_terminal'])
        likes['discount_loss'] = -self._discount_dist(feat).log_prob(target)
    for name, like in likes.items():
      assert like.shape == data['reward'].shape, (name, like.shape)
    losses = {k: tf.reduce_mean(v) for k, v in likes.items()}
    with tf.name_scope('prior'):
      losses['kl_loss'], kl = kl_loss(
        swap(post[latent.stats]), prior, **config.kl, dist=latent.dist
      )
    loss = sum(
      config.loss_scales[k.split('_loss')[0]] * v for k, v in losses.items()
    )
    metrics = {
      **_merge(losses),
      'kl': tf.reduce_mean(kl),
      'prior_ent': tf.reduce_mean(latent.dist(prior).entropy()),
      'post_ent': tf.reduce_mean(latent.dist(post[latent.stats]).entropy()),
    }
    return loss, {**post, 'feat': feat}, metrics

  def imagine(
    self, actor, start: dict[str, tf.Tensor], horizon: int, seed: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Rolls the policy out in the model (Eq. 4), by EnsembleRSSM.imagine.

        state   s[0] ----> s[1] ----> ...  s[H-1] ----> s[H]
        action      a[0]       a[1]            a[H-1]        a[H]

    a[t] is taken in s[t]; a[H] serves only Q(s[H], a[H]). The policy sees
    its input without gradient, as in DreamerV2; gradients reach actions
    through the states that follow them.

    Args:
      actor: the policy, as agents.actor_critic.Actor.
      start: states [N, ...] without gradient.

    Returns:
      feat [H+1, N, F], deter [H+1, N, D], stoch [H+1, N, ...], action
      [H+1, N, A], and policy [H+1, N, ...], the actor's outputs.
    """
    count = start['deter'].shape[0]
    member_seed, stoch_seed, action_seed = split(seed, 3)
    members = self.rssm.draw_members(horizon, member_seed)
    noise = self.rssm.latent.noise([horizon, count], stoch_seed)
    action_noise = uniform([horizon + 1, count, actor.size], action_seed)
    action_noise = tf.unstack(action_noise)
    seq = []

    def act(t, state):
      feat = self.rssm.get_feat(state)
      policy = actor.outputs(tf.stop_gradient(feat))
      action = actor.dist(policy).sample(noise=action_noise[t])
      seq.append({**state, 'feat': feat, 'policy': policy, 'action': action})
      return action

    states = self.rssm.imagine(start, act, members, noise)
    act(horizon, states[-1])
    return {k: tf.stack([s[k] for s in seq]) for k in seq[0]}

  def predict_reward(self, feat: tf.Tensor) -> tf.Tensor:
    """Expected reward received on arriving in the state, [...]."""
    return self.reward(feat)[..., 0]

  def predict_discount(self, feat: tf.Tensor) -> tf.Tensor:
    """Discount of what follows the state: gamma, or gamma * P(it goes on)."""
    if self._config.pred_discount:
      return self._discount_dist(feat).mean()
    return tf.fill(feat.shape[:-1], tf.constant(self._config.discount))

  def video(self, data: dict[str, tf.Tensor], seed: tf.Tensor) -> dict:
    """Open-loop prediction: truth above model above error.

    The posterior sees the first five images; from its last state the recorded
    actions are rolled out by EnsembleRSSM.imagine. Where a window holds an
    episode start, the open loop runs across it.

    Args:
      data: preprocessed batch [B, T, ...]; four sequences are shown at most.

    Returns:
      Videos [T, 3 * H, B * W, C] in [0, 1] by image key; the number of
      conditioning frames is `CONTEXT`.
    """
    data = {k: v[:4] for k, v in data.items()}
    steps = data['action'].shape[1]
    context = min(CONTEXT, steps - 1)
    post_seed, member_seed, noise_seed = split(seed, 3)
    first = {k: v[:, :context] for k, v in data.items()}
    post = self.rssm.observe(
      self.encoder(first), first['action'], first['is_first'], post_seed
    )
    start = {k: v[:, -1] for k, v in post.items()}
    members = self.rssm.draw_members(steps, member_seed)
    noise = self.rssm.latent.noise([steps, data['action'].shape[0]], noise_seed)
    states = self.rssm.imagine(
      start,
      lambda t, _: data['action'][:, context + t],
      members[context:],
      noise[context:],
    )
    feats = [self.rssm.get_feat(state)[:, None] for state in states[1:]]
    decoded = self.decoder(tf.concat([self.rssm.get_feat(post), *feats], 1))
    videos = {}
    for key in self.decoder.cnn_keys:
      truth = tf.cast(data[key], tf.float32) + 0.5
      model = tf.clip_by_value(decoded[key].mean() + 0.5, 0, 1)
      rows = tf.concat([truth, model, (model - truth + 1) / 2], 2)
      b, t, h, w, c = rows.shape
      rows = tf.transpose(rows, [1, 2, 0, 3, 4])
      videos[key] = tf.reshape(rows, [t, h, b * w, c])
    return videos

  def _discount_dist(self, feat):
    return dists.Bernoulli(self.discount(feat)[..., 0])


CONTEXT = 5


def success_metrics(
  predicted: tf.Tensor, reward: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Precision and recall of a reward above 0.5, as counts to be summed."""
  hit, true = predicted > 0.5, reward > 0.5
  count = lambda x: tf.reduce_sum(tf.cast(x, tf.float32))
  return {
    'reward_tp': count(hit & true),
    'reward_fp': count(hit & ~true),
    'reward_fn': count(~hit & true),
  }


def _merge(losses):
  """Adds losses of several keys of one kind: image_loss, vector_loss, ..."""
  merged = {}
  for key, value in losses.items():
    name = key.split('/')[0]
    merged[name] = merged.get(name, 0.0) + value
  return merged
