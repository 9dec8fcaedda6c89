"""The RSSM with Gaussian latents against numpy, and what differs by it."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import make_agent, make_batch, randomize, tiny_config
from plain import normal

from moto_tf.agents import penalties
from moto_tf.model.latents import MIN_STD, Gaussian
from moto_tf.model.rssm import EnsembleRSSM, kl_loss
from moto_tf.nn.dists import DiagNormal
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import make_seed, split
from moto_tf.nn.tfutils import normal as draw_normal
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

tfd = tfp.distributions
BATCH, STEPS, EMBED, ACTION, STOCH, DETER = 3, 5, 7, 2, 4, 6
SEED = tf.constant(make_seed(11))


def make_rssm(ensemble=3):
  config = tiny_config(
    rssm__ensemble=ensemble,
    rssm__hidden=9,
    rssm__deter=DETER,
    rssm__stoch=STOCH,
    rssm__discrete=0,
    moto__penalty='log_prob_std',
  )
  rssm = EnsembleRSSM(Layers(0), EMBED, ACTION, config.rssm)
  for i, var in enumerate(rssm.variables):
    var.assign(normal(var.shape, [7, i]) * 0.4 + 0.1)
  return rssm


@pytest.fixture(scope='module')
def rssm():
  return make_rssm()


def elu(x):
  return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def moments(x):
  """Of one state: mean and deviation by the printed formula."""
  mean, std = x[:STOCH], x[STOCH:]
  return mean, np.log1p(np.exp(std)) + 0.1


def step(w, stoch, deter, action):
  """One GRU step of one state, h' of z, h and a."""
  x = elu(np.r_[stoch, action] @ w['inp_kernel'] + w['inp_bias'])
  x = np.r_[x, deter] @ w['gru_kernel'] + w['gru_offset']
  x = (x - x.mean()) / np.sqrt(x.var() + 1e-3) * w['gru_gain'] + w['gru_bias']
  reset, cand, update = np.split(x, 3)
  update = sigmoid(update - 1)
  return update * np.tanh(sigmoid(reset) * cand) + (1 - update) * deter


def naive_prior(w, deter, member):
  x = deter @ w['prior/kernel/0'][member] + w['prior/bias/0'][member]
  return moments(
    elu(x) @ w['prior/kernel/1'][member] + w['prior/bias/1'][member]
  )


def weights(rssm):
  return {k: v.numpy() for k, v in rssm.named_variables().items()}


def test_posterior(rssm):
  """Along sequences, with an episode start inside one of them."""
  embed, action = normal([BATCH, STEPS, EMBED], 1), normal([BATCH, STEPS, 2], 2)
  is_first = np.zeros([BATCH, STEPS], np.float32)
  is_first[:, 0] = is_first[1, 3] = 1
  post = rssm.observe(*map(tf.constant, (embed, action, is_first)), SEED)
  noise, w = draw_normal([STEPS, BATCH, STOCH], SEED).numpy(), weights(rssm)
  for b in range(BATCH):
    stoch, deter = np.zeros(STOCH), np.zeros(DETER)
    for t in range(STEPS):
      keep = 1 - is_first[b, t]
      deter = step(w, keep * stoch, keep * deter, keep * action[b, t])
      x = np.r_[deter, embed[b, t]] @ w['post_kernel'] + w['post_bias']
      mean, std = moments(elu(x) @ w['out_kernel'] + w['out_bias'])
      stoch = mean + std * noise[t, b]
      for key, true in (('deter', deter), ('stoch', stoch)):
        np.testing.assert_allclose(post[key][b, t], true, 1e-4, 1e-5)
      found = post['moments'][b, t]
      np.testing.assert_allclose(found, np.stack([mean, std], -1), 1e-4, 1e-5)
  feat = rssm.get_feat(post)
  assert feat.shape == [BATCH, STEPS, STOCH + DETER] == [3, 5, rssm.feat]
  np.testing.assert_array_equal(feat[..., :STOCH], post['stoch'])


def test_rollout_takes_one_member_per_step(rssm):
  start = {'deter': normal([BATCH, DETER], 3), 'stoch': normal([BATCH, STOCH])}
  action, noise = normal([3, BATCH, ACTION], 5), normal([3, BATCH, STOCH], 6)
  members, w = [2, 0, 1], weights(rssm)
  states = rssm.imagine(
    {k: tf.constant(v) for k, v in start.items()},
    lambda t, _: tf.constant(action[t]),
    tf.constant(members),
    tf.constant(noise),
  )
  for b in range(BATCH):
    stoch, deter = start['stoch'][b], start['deter'][b]
    for t, member in enumerate(members):
      deter = step(w, stoch, deter, action[t, b])
      mean, std = naive_prior(w, deter, member)
      stoch = mean + std * noise[t, b]
      np.testing.assert_allclose(states[t + 1]['deter'][b], deter, 1e-4, 1e-5)
      np.testing.assert_allclose(states[t + 1]['stoch'][b], stoch, 1e-4, 1e-5)


def test_heads_are_those_of_the_members(rssm):
  deter = normal([2, BATCH, DETER], 8)
  every = rssm.prior_all(tf.constant(deter))
  assert every.shape == [3, 2, BATCH, STOCH, 2]
  some = rssm.prior_one(tf.constant(deter), tf.constant([2, 0]))
  np.testing.assert_allclose(some[0], every[2, 0], 1e-5)
  np.testing.assert_allclose(some[1], every[0, 1], 1e-5)
  mean, std = naive_prior(weights(rssm), deter[0, 1], 2)
  np.testing.assert_allclose(every[2, 0, 1, :, 0], mean, 1e-4, 1e-5)
  np.testing.assert_allclose(every[2, 0, 1, :, 1], std, 1e-4)
  assert every[..., 1].numpy().min() > MIN_STD


def random_moments(shape, seed):
  std = 0.1 + np.exp(normal(shape, seed + 50))
  return np.stack([normal(shape, seed), std], -1).astype(np.float32)


def naive_kl(post, prior):
  """Of one state [S, 2] each, the printed formula."""
  total = 0.0
  for (m, s), (n, r) in zip(post.tolist(), prior.tolist(), strict=True):
    total += np.log(r / s) + (s * s + (m - n) ** 2) / (2 * r * r) - 0.5
  return total


@pytest.mark.parametrize('balance', [0.5, 0.8])
def test_kl(balance):
  """Plain, without free nats, its gradient reaches both sides whole."""
  latent = Gaussian(STOCH)
  post, prior = (tf.constant(random_moments([2, 3, STOCH], i)) for i in (0, 1))
  with tf.GradientTape(persistent=True) as tape:
    tape.watch([post, prior])
    loss, value = kl_loss(post, prior, 0.0, balance, dist=latent.dist)
    plain = tfd.kl_divergence(
      *(tfd.MultivariateNormalDiag(x[..., 0], x[..., 1]) for x in (post, prior))
    )
    plain = tf.reduce_mean(plain)
  true = [
    [naive_kl(post[i, j].numpy(), prior[i, j].numpy()) for j in range(3)]
    for i in range(2)
  ]
  np.testing.assert_allclose(value, true, 1e-4)
  np.testing.assert_allclose(loss, np.mean(true), 1e-4)
  found, expected = (tape.gradient(x, [post, prior]) for x in (loss, plain))
  shares = (1.0, 1.0) if balance == 0.5 else (1 - balance, balance)
  for grad, whole, share in zip(found, expected, shares, strict=True):
    np.testing.assert_allclose(grad, share * whole, 1e-4, 1e-6)


def test_penalty_is_the_deviation_of_log_densities():
  latent = Gaussian(STOCH)
  stats, stoch = random_moments([7, 2, 3, STOCH], 2), normal([2, 3, STOCH], 9)
  found = penalties.statistics(latent)
  assert list(found) == ['log_prob_std']
  u = found['log_prob_std'](tf.constant(stats), tf.constant(stoch))
  for t in range(2):
    for n in range(3):
      logs = []
      for mean, std in np.moveaxis(stats[:, t, n], -1, 1).astype(np.float64):
        z = (stoch[t, n] - mean) / std
        logs.append(np.sum(-0.5 * z**2 - np.log(std * np.sqrt(2 * np.pi))))
      center = sum(logs) / 7
      true = np.sqrt(sum((x - center) ** 2 for x in logs) / 7)
      np.testing.assert_allclose(u[t, n], true, rtol=1e-4)


def test_distribution():
  """Samples of noise, and by TFP's contract."""
  loc, scale = normal([2, 3]), 0.2 + np.exp(normal([2, 3], 1))
  dist = DiagNormal(loc, scale)
  plain = tfd.MultivariateNormalDiag(loc, scale)
  value, noise = normal([5, 2, 3], 2), normal([5, 2, 3], 3)
  np.testing.assert_allclose(dist.log_prob(value), plain.log_prob(value), 1e-4)
  np.testing.assert_allclose(dist.entropy(), plain.entropy(), 1e-5)
  np.testing.assert_array_equal(dist.mode(), loc)
  found = dist.sample(noise=noise)
  np.testing.assert_allclose(found, loc + scale * noise, 1e-6)
  sample = dist.sample(20_000, seed=[1, 2]).numpy()
  error = (sample.mean(0) - loc) / scale * np.sqrt(20_000)
  assert np.abs(error).max() < 4.5
  np.testing.assert_allclose(sample.std(0), scale, rtol=0.04)
  assert (sample == dist.sample(20_000, seed=[1, 2])).numpy().all()


def test_noise_of_lanes_is_normal():
  latent = Gaussian(2)
  uniform = np.linspace(0, 1, 1002, dtype=np.float32)[1:-1, None].repeat(2, 1)
  noise = latent.noise_of(uniform)
  assert noise.shape == (1000, 2)
  assert abs(noise.mean()) < 1e-3 and abs(noise.std() - 1) < 0.01
  first, second = split(SEED, 2)
  drawn = latent.noise([50, 100], first).numpy()
  assert drawn.shape == (50, 100, 2)
  assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.03
  assert (drawn != latent.noise([50, 100], second).numpy()).all()


@pytest.mark.parametrize(
  'method, settings',
  [
    ('moto', {'moto__penalty': 'log_prob_std'}),
    ('dreamerv2', {'rssm__ensemble': 1}),
  ],
)
def test_other_methods_have_the_choice(method, settings):
  agent = make_agent(tiny_config(method=method, rssm__discrete=0, **settings))
  randomize(agent, scale=0.1)
  batch = make_batch(tiny_config(), firsts=((0, 3),))
  metrics = agent.train(batch, 0)
  assert np.isfinite(list(metrics.values())).all()
  metrics, videos = agent.report([batch], 0)
  assert metrics['kl'] > 0 and videos['image'].dtype == np.uint8
  if method == 'moto':
    assert metrics['penalty_recorded'] > 0


def test_statistics_of_categories_are_refused():
  with pytest.raises(ConfigError, match='--moto.penalty log_prob_std'):
    make_config({'rssm.discrete': 0})
  make_config({'rssm.discrete': 0, 'moto.alpha': 0})
  with pytest.raises(ConfigError, match='rssm.discrete.*0, or at least 2'):
    make_config({'rssm.discrete': 1})
