"""Recurrent state-space model with an ensemble of priors (Eq. 1)."""

from collections.abc import Callable

import tensorflow as tf

from moto_tf.model.latents import make_latent
from moto_tf.nn import dists, replicas
from moto_tf.nn.layers import Layers, Module, layer_norm
from moto_tf.nn.nets import StackedMLP
from moto_tf.nn.tfutils import (
  ACTIVATIONS,
  frozen_product,
  product,
  swap,
  uniform_int,
  unroll,
)


class EnsembleRSSM(Module):
  """DreamerV2's RSSM whose prior p_i(z | h) has M heads.

  A state is a dict of deter h [..., D], stoch z [..., S, C] (one-hot) and
  logit [..., S, C]; with `discrete` 0 of stoch z [..., S] and moments
  [..., S, 2], mean and deviation of Gaussians. Input layer, GRU and posterior
  are shared; only the prior is an ensemble (paper section 3).

      z[t-1] --\\
      h[t-1] ---> GRU --> h[t] --> p_i(z[t] | h[t])            prior, i = i[t]
      a[t-1] --/           \\----> q(z[t] | h[t], x[t])         posterior

  action[t] of a batch is the action that led into image[t], that is a[t-1].
  """

  def __init__(self, layers: Layers, embed: int, action: int, config):
    self.ensemble = config.ensemble
    self.latent = make_latent(config)
    self.shape = self.latent.shape
    self.deter = config.deter
    self.feat = config.deter + self.latent.size
    self._act = ACTIVATIONS[config.act]
    self._norm = config.norm
    self._dtype = layers.dtype
    stoch, outputs = self.latent.size, self.latent.outputs
    hidden, deter = config.hidden, config.deter
    w = layers.weight
    self.inp_kernel = w('inp_kernel', [stoch + action, hidden])
    self.inp_bias = w('inp_bias', [hidden], 0.0)
    self.gru_kernel = w('gru_kernel', [hidden + deter, 3 * deter])
    self.gru_offset = w('gru_offset', [3 * deter], 0.0)
    self.gru_gain = w('gru_gain', [3 * deter], 1.0)
    self.gru_bias = w('gru_bias', [3 * deter], 0.0)
    self.post_kernel = w('post_kernel', [deter + embed, hidden])
    self.post_bias = w('post_bias', [hidden], 0.0)
    self.out_kernel = w('out_kernel', [hidden, outputs])
    self.out_bias = w('out_bias', [outputs], 0.0)
    if config.norm == 'layer':
      # As DreamerV2's, layers have a bias before the norm too.
      self.inp_offset = w('inp_offset', [hidden], 0.0)
      self.inp_gain = w('inp_gain', [hidden], 1.0)
      self.post_offset = w('post_offset', [hidden], 0.0)
      self.post_gain = w('post_gain', [hidden], 1.0)
    self.prior = StackedMLP(
      layers, self.ensemble, deter, [hidden], outputs, config.act, config.norm
    )

  def initial(self, batch: int) -> dict[str, tf.Tensor]:
    return {
      'deter': tf.zeros([batch, self.deter], self._dtype),
      'stoch': tf.zeros([batch, *self.shape], self._dtype),
      self.latent.stats: self.latent.initial(batch),
    }

  def get_feat(self, state: dict[str, tf.Tensor]) -> tf.Tensor:
    """State s = [z, h] as one vector [..., F]."""
    return tf.concat([self._flat(state['stoch']), state['deter']], -1)

  def draw_members(self, steps: int, seed: tf.Tensor) -> tf.Tensor:
    """One prior index per time step, uniform and independent: [steps]."""
    return uniform_int([steps], seed, self.ensemble)

  def observe(
    self,
    embed: tf.Tensor,
    action: tf.Tensor,
    is_first: tf.Tensor,
    seed: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """Posterior states of a batch of sequences.

    Args:
      embed: [B, T, E] of image[t].
      action: [B, T, A]; action[t] led into image[t].
      is_first: [B, T]; there the state starts anew and action is ignored.
      seed: [2].

    Returns:
      State of shape [B, T, ...].
    """
    batch, steps = action.shape[:2]
    kernels, rest = self.weights()
    noise = tf.unstack(self.latent.noise([steps, batch], seed))
    keep = 1 - tf.cast(tf.transpose(is_first), self._dtype)[..., None]
    # The shares of action and image are the same for the whole sequence at
    # once, so only what depends on the state stays in the loop.
    action = swap(tf.cast(action, self._dtype)) * keep
    inputs = {
      **rest,
      'action': tf.matmul(action, kernels.pop('action')),
      'embed': tf.matmul(
        swap(tf.cast(embed, self._dtype)), kernels.pop('embed')
      ),
    }

    keep = tf.unstack(keep)

    def loop(dot, inputs):
      action = tf.unstack(inputs['action'])
      embed = tf.unstack(inputs['embed'])
      state = self.initial(batch)
      states = []
      for t in range(steps):
        stoch = self._flat(state['stoch']) * keep[t]
        deter = state['deter'] * keep[t]
        deter = self._gru(dot, inputs, stoch, deter, action[t])
        state = self._posterior(dot, inputs, deter, embed[t], noise[t])
        states.append(state)
      return {k: tf.stack([s[k] for s in states]) for k in states[0]}

    post = unroll(loop, kernels, inputs)
    return {k: swap(v) for k, v in post.items()}

  def obs_step(
    self,
    state: dict[str, tf.Tensor],
    action: tf.Tensor,
    embed: tf.Tensor,
    is_first: tf.Tensor,
    noise: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """One posterior step for acting; needs no prior head.

    Args:
      state: previous state of shape [B, ...].
      action: [B, A], taken in that state.
      embed: [B, E] of the image it led to.
      is_first: [B].
      noise: [B, ...] of `latent.noise`.
    """
    kernels, rest = self.weights()
    dot = lambda name, x: product(x, kernels[name])
    keep = 1 - tf.cast(is_first, self._dtype)[:, None]
    stoch, deter = self._flat(state['stoch']) * keep, state['deter'] * keep
    action = dot('action', tf.cast(action, self._dtype) * keep)
    deter = self._gru(dot, rest, stoch, deter, action)
    embed = dot('embed', tf.cast(embed, self._dtype))
    return self._posterior(dot, rest, deter, embed, noise)

  def imagine(
    self,
    start: dict[str, tf.Tensor],
    act: Callable[[int, dict], tf.Tensor],
    members: tf.Tensor,
    noise: tf.Tensor,
  ) -> list[dict[str, tf.Tensor]]:
    """Rolls actions out in the prior, one member per time step (Eq. 4).

        state    s[0] ----> s[1] ----> ...  s[H-1] ----> s[H]
        action       a[0]       a[1]            a[H-1]
        member       i[0]       i[1]            i[H-1]      led into s[t+1]

    Args:
      start: deter and stoch of s[0], [B, ...].
      act: act(t, s[t]) is a[t], [B, A]; called once for each t = 0..H-1, in
        order.
      members: of `draw_members`, [H].
      noise: [H, B, ...] of `latent.noise`.

    Returns:
      s[0] to s[H], each deter and stoch, [B, ...]. Its kernels get no gradient,
      as of `img_step`; what else has weights is not meant to be trained by it.
    """
    weights = self.weights()
    states = [{k: start[k] for k in ('deter', 'stoch')}]
    for t, eps in enumerate(tf.unstack(noise)):
      action = act(t, states[-1])
      state = self.img_step(states[-1], action, members[t], eps, weights)
      state.pop(self.latent.stats)
      states.append(state)
    return states

  def img_step(
    self,
    state: dict[str, tf.Tensor],
    action: tf.Tensor,
    member: tf.Tensor,
    noise: tf.Tensor,
    weights: tuple[dict, dict],
  ) -> dict[str, tf.Tensor]:
    """One prior step: z' ~ p_member(. | h'), the dynamics of Eq. 4.

    Args:
      state: state of shape [B, ...].
      action: [B, A], taken in it.
      member: scalar index of the prior head.
      noise: [B, ...] of `latent.noise`.
      weights: of `weights`, made once for all steps of a rollout. Its kernels
        get no gradient, since rollouts train the policy only.
    """
    kernels, rest = weights
    dot = lambda name, x: frozen_product(x, kernels[name])
    action = dot('action', tf.cast(action, self._dtype))
    stoch = self._flat(state['stoch'])
    deter = self._gru(dot, rest, stoch, state['deter'], action)
    stats = self.prior_one(deter[None], member[None])[0]
    return self._state(deter, stats, noise)

  def prior_one(self, deter: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """Parameters of z by one head per time step: [T, B, D] to [T, B, ...]."""
    return self.latent.parameters(self.prior.select(deter, members))

  def prior_all(self, deter: tf.Tensor) -> tf.Tensor:
    """Parameters of z by all heads: [..., D] to [M, ..., S, C or 2]."""
    return self.latent.parameters(self.prior(deter))

  def _state(self, deter, stats, noise):
    stoch = tf.cast(self.latent.dist(stats).sample(noise=noise), self._dtype)
    return {'deter': deter, 'stoch': stoch, self.latent.stats: stats}

  def _flat(self, stoch):
    lead = stoch.shape[: -len(self.shape)]
    return tf.reshape(stoch, [*lead, self.latent.size])

  def weights(self) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Kernels by what they multiply, and the rest, in compute precision."""
    rest = {
      k: tf.cast(v, self._dtype)
      for k, v in vars(self).items()
      if isinstance(v, tf.Variable)
    }
    stoch = self.feat - self.deter
    inp, post = rest.pop('inp_kernel'), rest.pop('post_kernel')
    kernels = {
      'stoch': inp[:stoch],
      'action': inp[stoch:],
      'gru': rest.pop('gru_kernel'),
      'deter': post[: self.deter],
      'embed': post[self.deter :],
      'out': rest.pop('out_kernel'),
    }
    return kernels, rest

  def _gru(self, dot, w, stoch, deter, action):
    """h' = GRU(h, [z, a]), with layer norm and update bias -1 (DreamerV2)."""
    x = self._hidden(dot('stoch', stoch) + action, w, 'inp')
    parts = dot('gru', tf.concat([x, deter], -1)) + w['gru_offset']
    parts = layer_norm(parts, w['gru_gain'], w['gru_bias'])
    reset, cand, update = tf.split(parts, 3, -1)
    cand = tf.tanh(tf.sigmoid(reset) * cand)
    return deter + tf.sigmoid(update - 1) * (cand - deter)

  def _posterior(self, dot, w, deter, embed, noise):
    """State with z ~ q(z | h, x)."""
    x = self._hidden(dot('deter', deter) + embed, w, 'post')
    stats = self.latent.parameters(dot('out', x) + w['out_bias'])
    return self._state(deter, stats, noise)

  def _hidden(self, x, w, name):
    if self._norm == 'layer':
      x = x + w[f'{name}_offset']
      x = layer_norm(x, w[f'{name}_gain'], w[f'{name}_bias'])
    else:
      x = x + w[f'{name}_bias']
    return self._act(x)


def kl_loss(
  post: tf.Tensor,
  prior: tf.Tensor,
  free: float,
  balance: float,
  forward: bool = False,
  free_avg: bool = True,
  dist: Callable = dists.OneHot,
) -> tuple[tf.Tensor, tf.Tensor]:
  """DreamerV2's balanced KL of Eq. 1.

  balance * KL(sg(post) || prior) + (1 - balance) * KL(post || sg(prior)),
  or with `forward` the same of KL(prior || post). A balance of 0.5 is the plain
  KL, whose gradient reaches both sides whole, with free nats per state.

  Args:
    post, prior: parameters of `dist`, such as logits [..., S, C].
    free: free nats, below which a KL is not pushed.
    balance: share of the loss that trains the prior.
    forward: whether the prior is the first argument of the KL.
    free_avg: whether free nats apply to the mean of the KL, or to each state.
    dist: from parameters to a distribution.

  Returns:
    Scalar loss, and the KL per state [...].
  """
  sg = tf.stop_gradient

  def kl(post, prior):
    pair = (prior, post) if forward else (post, prior)
    return dist(pair[0]).kl_divergence(dist(pair[1]))

  def mean(value):
    if free_avg and balance != 0.5:
      return replicas.at_least(tf.reduce_mean(value), free)
    return tf.reduce_mean(tf.maximum(value, free))

  if balance == 0.5:
    value = kl(post, prior)
    return mean(value), value
  value = kl(sg(post), prior)
  loss = balance * mean(value) + (1 - balance) * mean(kl(post, sg(prior)))
  return loss, value
