"""MOTO: Eq. 2 to 10 against loops written from the paper's equations.

The naive versions are NumPy, in float64, one rollout, state or transition at a
time. Indices follow the paper; where code and paper count differently, a
comment says how.
"""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  make_agent,
  make_batch,
  naive_mlp,
  naive_policy,
  naive_stack,
  randomize,
  tiny_config,
)

from moto_tf.behaviors import moto
from moto_tf.tfutils import Layers

GAMMA, LAMBDA = 0.99, 0.95
SEED = tf.constant([3, 5])


@pytest.fixture(scope='module')
def agent():
  """Weights are random throughout and the target critics differ."""
  agent = make_agent(tiny_config())
  randomize(agent)
  return agent


@pytest.fixture(scope='module')
def learned(agent):
  """Posterior states and preprocessed data with an episode start inside."""
  return posterior(agent, make_batch(tiny_config(), firsts=((0, 3), (1, 2))))


def fresh(seed=0, **overrides):
  agent = make_agent(tiny_config(**overrides))
  randomize(agent, seed)
  return agent


def posterior(agent, batch):
  data = agent.model.preprocess({k: tf.constant(v) for k, v in batch.items()})
  _, post, _ = agent.model.loss(data, SEED)
  return tf.nest.map_structure(tf.stop_gradient, post), data


def starts(post, data):
  flat = lambda x: tf.reshape(x, [-1, *x.shape[2:]])
  return {
    'deter': flat(post['deter']),
    'stoch': flat(post['stoch']),
    'is_terminal': flat(data['is_terminal']),
  }


def rollout(agent, horizon=3, count=4, seed=0):
  """A rollout of random numbers, as MOTO.imagine returns one."""
  rng = np.random.default_rng(seed)
  feat, size = agent.model.rssm.feat, agent.behavior.actor.size
  seq = {
    'feat': rng.normal(size=(horizon + 1, count, feat)),
    'action': rng.uniform(-0.9, 0.9, (horizon + 1, count, size)),
    'raw_reward': rng.normal(size=(horizon, count)),
    'disagreement': rng.uniform(size=(horizon, count)),
    'reward': rng.normal(size=(horizon, count)),
    'discount': rng.uniform(0.5, 1, (horizon, count)),
    'weight': rng.uniform(0.2, 1, (horizon, count)),
  }
  return {k: tf.constant(v, tf.float32) for k, v in seq.items()}


def transitions(agent, count=5, seed=0):
  """Random real transitions, as draw_transitions returns them."""
  rng = np.random.default_rng(seed)
  real = {
    'feat': rng.normal(size=(count, agent.model.rssm.feat)),
    'action': rng.uniform(-0.9, 0.9, (count, agent.behavior.actor.size)),
    'reward': rng.uniform(size=count),
    'mask': np.ones(count),
    'next': {'is_terminal': np.zeros(count)},
  }
  return tf.nest.map_structure(lambda x: tf.constant(x, tf.float32), real)


def naive_q(agent, which, feat, action):
  """[2, ...] values of the 'online' or 'target' critics."""
  inputs = np.concatenate([feat, action], -1).astype(np.float64)
  return naive_stack(agent.save(), f'critics/{which}', inputs)[..., 0]


def eq5(reward, value, discount, lambda_):
  """V_hat [H+1] and V [H] of one rollout, literally as Eq. 5 has them.

  reward[t] is the paper's r^{t+1}, discount[t] stands for what follows
  s^{t+1}; with a constant discount the products are powers of gamma.
  """
  horizon = len(reward)

  def v_k(t, k):
    total, factor = 0.0, 1.0
    for j in range(1, k + 1):
      total += factor * reward[t + j - 1]
      factor *= discount[t + j - 1]
    return total + factor * value[t + k]

  v = []
  for t in range(horizon):
    total = 0.0
    for k in range(1, horizon - t):
      total += (1 - lambda_) * lambda_ ** (k - 1) * v_k(t, k)
    v.append(total + lambda_ ** (horizon - t - 1) * v_k(t, horizon - t))
  v_hat = [lambda_ * v[t] + (1 - lambda_) * value[t] for t in range(horizon)]
  return np.array([*v_hat, value[horizon]]), np.array(v)


def eq5_batch(reward, value, discount, lambda_=LAMBDA):
  args = [np.asarray(x, np.float64) for x in (reward, value, discount)]
  pairs = [
    eq5(*(x[:, n] for x in args), lambda_) for n in range(len(args[0].T))
  ]
  return tuple(np.stack(x, 1) for x in zip(*pairs, strict=True))


# Eq. 5


@pytest.mark.parametrize('horizon', [1, 2, 3, 7, 15])
@pytest.mark.parametrize('lambda_', [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize('varying', [False, True])
def test_value_expansion(horizon, lambda_, varying):
  rng = np.random.default_rng(horizon)
  reward = rng.normal(size=(horizon, 3))
  value = rng.normal(size=(horizon + 1, 3))
  discount = np.full((horizon, 3), GAMMA)
  if varying:
    discount = rng.uniform(0, 1, (horizon, 3))
  v_hat, v = moto.value_expansion(
    *(tf.constant(x, tf.float32) for x in (reward, value, discount)), lambda_
  )
  true_v_hat, true_v = eq5_batch(reward, value, discount, lambda_)
  assert v_hat.shape == (horizon + 1, 3) and v.shape == (horizon, 3)
  np.testing.assert_allclose(v_hat, true_v_hat, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(v, true_v, rtol=1e-4, atol=1e-5)


def test_value_expansion_by_hand():
  """H = 2, gamma = 0.5, lambda = 0.5, worked out on paper."""
  reward = tf.constant([[1.0], [2.0]])
  value = tf.constant([[8.0], [4.0], [16.0]])
  v_hat, v = moto.value_expansion(reward, value, tf.fill([2, 1], 0.5), 0.5)
  # V_1(s0) = 1 + .5 * 4 = 3, V_2(s0) = 1 + .5 * 2 + .25 * 16 = 6,
  # V(s0) = .5 * 3 + .5 * 6, V(s1) = V_1(s1) = 2 + .5 * 16 = 10.
  np.testing.assert_allclose(v[:, 0], [4.5, 10])
  np.testing.assert_allclose(v_hat[:, 0], [6.25, 7, 16])


# Eq. 2


def naive_penalty(name, logits, stoch):
  """Eq. 2 of one state; logits [M, S, C], stoch [S, C]."""
  members, variables, classes = logits.shape
  logits = np.asarray(logits, np.float64)
  log_probs = np.stack(
    [
      [row - np.log(np.sum(np.exp(row))) for row in logits[m]]
      for m in range(members)
    ]
  )
  if name == 'logit_std':
    stds = [
      np.sqrt(np.mean((column - np.mean(column)) ** 2))
      for column in log_probs.reshape(members, -1).T
    ]
    return sum(stds) / (variables * classes)
  if name == 'log_prob_std':
    total = [
      sum(log_probs[m, s, np.argmax(stoch[s])] for s in range(variables))
      for m in range(members)
    ]
    return np.std(total)
  probs = np.exp(log_probs)
  center = sum(probs) / members
  return np.mean([np.sqrt(np.sum((p - center) ** 2)) for p in probs])


@pytest.mark.parametrize('name', moto.PENALTIES)
def test_penalty(name):
  rng = np.random.default_rng(1)
  logits = rng.normal(0, 2, (7, 2, 3, 4, 5)).astype(np.float32)
  stoch = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (2, 3, 4))]
  u = moto.PENALTIES[name](tf.constant(logits), tf.constant(stoch))
  assert u.shape == (2, 3)
  for t in range(2):
    for n in range(3):
      true = naive_penalty(name, logits[:, t, n], stoch[t, n])
      np.testing.assert_allclose(u[t, n], true, rtol=1e-4)


@pytest.mark.parametrize('name', moto.PENALTIES)
def test_penalty_of_unnormalised_logits(name):
  """Adding a constant to a member's logits leaves its distribution alone."""
  rng = np.random.default_rng(2)
  logits = rng.normal(size=(3, 2, 4, 5)).astype(np.float32)
  shift = rng.normal(0, 3, (3, 2, 4, 1)).astype(np.float32)
  stoch = tf.one_hot(rng.integers(0, 5, (2, 4)), 5)
  penalty = moto.PENALTIES[name]
  u, moved = penalty(logits, stoch), penalty(logits + shift, stoch)
  np.testing.assert_allclose(u, moved, rtol=1e-4)


@pytest.mark.parametrize('name', moto.PENALTIES)
def test_penalty_when_members_agree(name):
  rng = np.random.default_rng(3)
  one = rng.normal(size=(1, 2, 4, 5)).astype(np.float32)
  logits = tf.constant(np.repeat(one, 7, 0))
  stoch = tf.one_hot(rng.integers(0, 5, (2, 4)), 5)
  with tf.GradientTape() as tape:
    tape.watch(logits)
    u = moto.PENALTIES[name](logits, stoch)
  assert np.all(u >= 0) and np.max(u) <= 1e-5
  assert np.all(np.isfinite(tape.gradient(u, logits)))


# Eq. 3 and 4


def naive_gru(arrays, stoch, action, deter):
  """h' of DreamerV2's GRU from one state [Z], action [A] and h [D]."""
  w = {
    k.removeprefix('model/rssm/'): v.astype(np.float64)
    for k, v in arrays.items()
    if k.startswith('model/rssm/')
  }
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  x = np.concatenate([stoch, action]) @ w['inp_kernel'] + w['inp_bias']
  x = np.where(x > 0, x, np.expm1(x))
  parts = np.concatenate([x, deter]) @ w['gru_kernel']
  parts = (parts - parts.mean()) / np.sqrt(parts.var() + 1e-3)
  reset, cand, update = np.split(parts * w['gru_gain'] + w['gru_bias'], 3)
  update = sigmoid(update - 1)
  return update * np.tanh(sigmoid(reset) * cand) + (1 - update) * deter


@pytest.mark.parametrize('penalty', moto.PENALTIES)
def test_imagine(penalty):
  """r[t] is of s[t+1]; u[t] of h[t+1], which (s[t], a[t]) determine."""
  agent = fresh(penalty=penalty, horizon=4, alpha=3)
  post, data = posterior(agent, make_batch(tiny_config()))
  start = starts(post, data)
  seq = agent.behavior.imagine(start, SEED)
  seq = {k: v.numpy() for k, v in seq.items()}
  arrays, count = agent.save(), len(start['deter'])
  assert seq['feat'].shape[:2] == seq['action'].shape[:2] == (5, count)
  np.testing.assert_array_equal(seq['deter'][0], start['deter'])
  np.testing.assert_array_equal(seq['stoch'][0], start['stoch'])
  np.testing.assert_allclose(np.sort(seq['stoch'], -1)[..., -1], 1, rtol=1e-6)
  assert np.all(np.abs(seq['action']) <= 1)
  for t in range(4):
    for n in range(count):
      stoch = seq['stoch'][t, n].reshape(-1)
      deter = naive_gru(arrays, stoch, seq['action'][t, n], seq['deter'][t, n])
      np.testing.assert_allclose(seq['deter'][t + 1, n], deter, atol=1e-4)
      after = seq['stoch'][t + 1, n]
      feat = np.concatenate([after.reshape(-1), deter])
      np.testing.assert_allclose(seq['feat'][t + 1, n], feat, atol=1e-4)
      raw = naive_mlp(arrays, 'model/reward', feat)[0]
      np.testing.assert_allclose(seq['raw_reward'][t, n], raw, atol=1e-3)
      logits = naive_stack(arrays, 'model/rssm/prior', deter)
      u = naive_penalty(penalty, logits.reshape(-1, 4, 4), after)
      np.testing.assert_allclose(seq['disagreement'][t, n], u, rtol=1e-2)
      np.testing.assert_allclose(
        seq['reward'][t, n], raw - 3 * u, rtol=1e-2, atol=1e-3
      )
  np.testing.assert_allclose(seq['discount'], GAMMA)
  np.testing.assert_array_equal(seq['weight'], 1)


def test_imagine_samples_the_ensemble():
  """Next states come from a single member, not always the same."""
  agent = fresh(horizon=12, rssm__discrete=2)
  # Member 1 always takes class 1, the others class 0.
  rows = np.array([[40.0, -40], [-40, 40], [40, -40]])
  state = agent.state()
  state['model/rssm/prior/kernel/1'].assign(np.zeros((3, 16, 8)))
  state['model/rssm/prior/bias/1'].assign(np.tile(rows, (1, 4)))
  post, data = posterior(agent, make_batch(tiny_config(rssm__discrete=2)))
  seen = agent.behavior.imagine(starts(post, data), SEED)['stoch'][1:, ..., 1]
  steps = seen.numpy().reshape(12, -1)
  assert np.all(steps == steps[:, :1])
  assert 0 < steps[:, 0].sum() < 12


def test_imagine_policy():
  """a[t] follows the policy at s[t]: a nearly deterministic one shows it."""
  agent = fresh(actor__min_std=1e-4, horizon=4)
  bias = agent.state()['actor/mlp/out/bias']
  bias.assign(tf.concat([bias[:2], [-60.0, -60.0]], 0))
  kernel = agent.state()['actor/mlp/out/kernel']
  kernel.assign(tf.concat([kernel[:, :2], tf.zeros([16, 2])], -1))
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = agent.behavior.imagine(starts(post, data), SEED)
  mean = naive_mlp(agent.save(), 'actor/mlp', seq['feat'].numpy())[..., :2]
  assert np.std(np.tanh(mean), 0).max() > 0.05
  np.testing.assert_allclose(seq['action'], np.tanh(mean), atol=2e-3)


def test_imagine_without_penalty():
  agent = fresh(alpha=0)
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = agent.behavior.imagine(starts(post, data), SEED)
  np.testing.assert_array_equal(seq['reward'], seq['raw_reward'])
  assert np.min(seq['disagreement']) > 0


def test_imagine_discount():
  """With a discount head: weights are the chance that s[t] is reached."""
  agent = fresh(pred_discount=True)
  batch = make_batch(tiny_config())
  batch['is_terminal'][0, 5] = True
  post, data = posterior(agent, batch)
  start = starts(post, data)
  seq = agent.behavior.imagine(start, SEED)
  logit = naive_mlp(agent.save(), 'model/discount', seq['feat'].numpy())[..., 0]
  discount = 1 / (1 + np.exp(-logit))
  np.testing.assert_allclose(seq['discount'], discount[1:], rtol=1e-3)
  assert start['is_terminal'][5] == 1 and np.sum(start['is_terminal']) == 1
  for n, terminal in enumerate(start['is_terminal'].numpy()):
    weight = 1 - terminal
    for t in range(3):
      np.testing.assert_allclose(seq['weight'][t, n], weight, rtol=1e-3)
      weight *= discount[t + 1, n]


# Start states and real transitions


def numbered(batch=3, length=6, firsts=((0, 3), (1, 2), (1, 4))):
  """Sequences whose record (b, t) holds the number 1 + 10 * b + t."""
  number = 1 + 10 * np.arange(batch)[:, None] + np.arange(length)
  number = tf.constant(number, tf.float32)
  is_first = np.zeros((batch, length), np.float32)
  is_first[:, 0] = 1
  for b, t in firsts:
    is_first[b, t] = 1
  post = {
    'feat': tf.stack([number, -number], -1),
    'deter': number[..., None],
    'stoch': tf.tile(number[..., None, None], [1, 1, 2, 2]),
  }
  data = {
    'action': tf.stack([number, 2 * number], -1),
    'reward': number,
    'is_first': tf.constant(is_first),
    'is_terminal': tf.cast(number % 2 == 0, tf.float32),
  }
  valid = {
    int(number[b, t])
    for b in range(batch)
    for t in range(length - 1)
    if not is_first[b, t + 1]
  }
  return post, data, valid


def check_aligned(real):
  here = real['feat'].numpy()[:, 0]
  np.testing.assert_array_equal(real['feat'][:, 1], -here)
  np.testing.assert_array_equal(real['action'][:, 0], here + 1)
  np.testing.assert_array_equal(real['action'][:, 1], 2 * (here + 1))
  np.testing.assert_array_equal(real['reward'], here + 1)
  np.testing.assert_array_equal(real['next']['deter'][:, 0], here + 1)
  np.testing.assert_array_equal(real['next']['stoch'][:, 1, 1], here + 1)
  terminal = (here + 1) % 2 == 0
  np.testing.assert_array_equal(real['next']['is_terminal'], terminal)
  return here.astype(int)


@pytest.mark.parametrize('seed', range(20))
def test_draw_transitions(seed):
  post, data, valid = numbered()
  real = moto.draw_transitions(post, data, 8, tf.constant([seed, 0]))
  drawn = check_aligned(real)
  assert len(drawn) == len(set(drawn)) == 8
  assert set(drawn) <= valid
  np.testing.assert_array_equal(real['mask'], 1)


def test_draw_transitions_uniform():
  post, data, valid = numbered()
  counts, trials, size = dict.fromkeys(valid, 0), 500, 4
  for seed in range(trials):
    real = moto.draw_transitions(post, data, size, tf.constant([seed, 1]))
    for i in real['feat'].numpy()[:, 0].astype(int):
      counts[i] += 1
  share = size / len(valid)
  slack = 5 * np.sqrt(trials * share * (1 - share))
  assert max(abs(n - trials * share) for n in counts.values()) < slack, counts


def test_draw_transitions_exhausted():
  """More than there are: every valid one, and the rest masked."""
  post, data, valid = numbered()
  real = moto.draw_transitions(post, data, len(valid) + 2, SEED)
  drawn, mask = check_aligned(real), real['mask'].numpy()
  assert sorted(drawn[mask == 1]) == sorted(valid)
  assert list(np.unique(mask)) == [0, 1] and mask.sum() == len(valid)


def test_draw_transitions_all():
  post, data, valid = numbered()
  real = moto.draw_transitions(post, data, 0, SEED)
  drawn, mask = check_aligned(real), real['mask'].numpy()
  assert len(drawn) == len(set(drawn)) == 15
  assert {i for i, m in zip(drawn, mask, strict=True) if m} == valid


# Cloning


def successes():
  """Lane 0: failed, then successful; lane 1 the other way; lane 2 failed."""
  batch = make_batch(tiny_config(), firsts=((0, 3), (1, 2)), success=0.0)
  batch['success'][0, 3:] = 1
  batch['success'][1, :2] = 1
  return batch


def clone(agent, post, batch):
  data = agent.model.preprocess({k: tf.constant(v) for k, v in batch.items()})
  return moto.clone_loss(agent.behavior.actor, post['feat'], data)


def test_clone_loss(agent, learned):
  batch, feat = successes(), learned[0]['feat'].numpy()
  loss, share = clone(agent, learned[0], batch)
  terms = []
  for b in range(3):
    for i in range(5):
      if batch['success'][b, i + 1] and not batch['is_first'][b, i + 1]:
        dist = naive_policy(agent.save(), feat[b, i])
        terms.append(dist.logpdf(batch['action'][b, i + 1]).sum())
  assert len(terms) == 3
  np.testing.assert_allclose(loss, -np.mean(terms), rtol=1e-3)
  np.testing.assert_allclose(share, 3 / 15)


def test_clone_loss_alignment(agent, learned):
  """One term, (s[3], a[4]) of lane 0, depends on no other state or action."""
  batch = make_batch(tiny_config(), success=0.0)
  batch['success'][0, 4] = 1
  post = learned[0]
  loss = clone(agent, post, batch)[0]
  moved = lambda post, batch: abs(clone(agent, post, batch)[0] - loss) > 1e-4
  for b in range(3):
    for i in range(6):
      feat = post['feat'].numpy()
      feat[b, i] += 0.5
      assert moved({'feat': tf.constant(feat)}, batch) == ((b, i) == (0, 3))
      action = batch['action'].copy()
      action[b, i] *= -0.5
      assert moved(post, {**batch, 'action': action}) == ((b, i) == (0, 4))


def test_clone_loss_without_success(agent, learned):
  batch = make_batch(tiny_config(), success=0.0)
  with tf.GradientTape() as tape:
    loss, share = clone(agent, learned[0], batch)
  assert loss == 0 and share == 0
  for grad in tape.gradient(loss, agent.behavior.actor.variables):
    assert np.all(grad.numpy() == 0)


# Eq. 6 and 10


@pytest.mark.parametrize('beta', [0.0, 10.0])
@pytest.mark.parametrize('ent', [0.0, 0.3])
def test_actor_loss(beta, ent):
  agent = fresh(beta=beta, actor_ent=ent)
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = rollout(agent)
  loss, metrics = agent.behavior.actor_loss(seq, post, data)
  seq = {k: v.numpy() for k, v in seq.items()}
  value = naive_q(agent, 'online', seq['feat'], seq['action'])
  assert len(set(np.argmin(value, 0).ravel())) == 2
  v_hat, _ = eq5_batch(seq['reward'], value.min(0), seq['discount'])
  entropy = naive_policy(agent.save(), seq['feat']).entropy().sum(-1)
  total = 0.0
  for t in range(3):
    for n in range(4):
      total -= seq['weight'][t, n] * (v_hat[t, n] + ent * entropy[t, n]) / 12
  cloning, _ = moto.clone_loss(agent.behavior.actor, post['feat'], data)
  np.testing.assert_allclose(loss, total + beta * cloning.numpy(), rtol=1e-3)
  np.testing.assert_allclose(metrics['actor_bc_loss'], cloning)
  np.testing.assert_allclose(
    metrics['actor_ent'], entropy[:3].mean(), rtol=1e-3
  )
  np.testing.assert_allclose(
    metrics['imag_reward_raw'], seq['raw_reward'].mean(), rtol=1e-4
  )
  np.testing.assert_allclose(
    metrics['imag_penalty'], 10 * seq['disagreement'].mean(), rtol=1e-5
  )


def actor_gradient(agent, post, data):
  """Gradient of the actor loss over a rollout."""
  behavior = agent.behavior
  with tf.GradientTape() as tape:
    seq = behavior.imagine(starts(post, data), SEED)
    loss, _ = behavior.actor_loss(seq, post, data)
  return [g.numpy() for g in tape.gradient(loss, behavior.actor.variables)]


def norm_of(grads):
  return np.sqrt(sum(np.sum(g**2) for g in grads))


def zero(agent, *prefixes):
  for name, var in agent.state().items():
    if name.startswith(prefixes) and '_opt/' not in name:
      var.assign(tf.zeros_like(var))


@pytest.mark.parametrize(
  'path, zeroed, settings',
  [
    ('penalty', ('model/reward', 'critics'), {'alpha': 10}),
    ('reward', ('critics',), {'alpha': 0}),
    ('critic', ('model/reward',), {'alpha': 0}),
    ('nothing', ('model/reward', 'critics'), {'alpha': 0}),
  ],
)
def test_gradient_paths(path, zeroed, settings):
  """The actor learns through penalty, reward and critics, each alone."""
  agent = fresh(beta=0, actor_ent=0, discount_lambda=1, **settings)
  zero(agent, *zeroed)
  post, data = posterior(agent, make_batch(tiny_config()))
  norm = norm_of(actor_gradient(agent, post, data))
  assert np.isfinite(norm)
  assert norm == 0 if path == 'nothing' else norm > 1e-6


def test_gradient_through_dynamics():
  """lambda = 0, H = 1: the value is Q(s0, a0) alone; with lambda = 1 it is
  gamma * Q(s1, a1), which reaches a0 only through the model."""
  norms = []
  for lambda_ in (0, 1):
    agent = fresh(
      beta=0, actor_ent=0, alpha=0, horizon=1, discount_lambda=lambda_
    )
    zero(agent, 'model/reward')
    # Blind critics to the action itself: only states are worth anything.
    kernel = agent.state()['critics/online/kernel/0']
    kernel.assign(tf.concat([kernel[:, :-2], 0 * kernel[:, -2:]], 1))
    post, data = posterior(agent, make_batch(tiny_config()))
    norms.append(norm_of(actor_gradient(agent, post, data)))
  assert norms[0] == 0 and norms[1] > 1e-6


class Linear:
  """Deterministic policy tanh(feat W)."""

  size = 2

  def __init__(self, weight):
    self.weight = weight

  def __call__(self, feat):
    return Fixed(tf.tanh(feat @ self.weight))


class Fixed:
  """A 'distribution' with one value."""

  def __init__(self, value):
    self.value = value

  def sample(self, noise):
    return self.value


class Replayed:
  """Plays given actions one after the other."""

  size = 2

  def __init__(self, actions):
    self.actions = iter(actions)

  def __call__(self, feat):
    return Fixed(next(self.actions))


def test_policy_input_has_no_gradient(agent, learned):
  """Against rollouts of given actions, whose states cannot see the policy.

  With them dL/dW is the sum over t of dL/da[t] da[t]/dW at fixed states.
  """
  start = starts(*learned)
  rng = np.random.default_rng(0)
  size = agent.model.rssm.feat
  weight = tf.Variable(rng.normal(0, 0.3, (size, 2)), dtype=tf.float32)
  worth = tf.constant(rng.normal(size=size), tf.float32)
  worth_of = lambda seq: (
    tf.reduce_sum(seq['feat'] @ worth[:, None]) + tf.reduce_sum(seq['action'])
  )
  with tf.GradientTape() as tape:
    seq = agent.model.imagine(Linear(weight), start, 4, SEED)
    loss = worth_of(seq)
  grad = tape.gradient(loss, weight)
  actions = tf.unstack(tf.constant(seq['action'].numpy()))
  with tf.GradientTape() as tape:
    tape.watch(actions)
    again = agent.model.imagine(Replayed(actions), start, 4, SEED)
    loss = worth_of(again)
  np.testing.assert_allclose(again['feat'], seq['feat'], atol=1e-5)
  true = np.zeros((size, 2))
  for t, outer in enumerate(tape.gradient(loss, actions)):
    for n in range(outer.shape[0]):
      slope = outer[n] * (1 - actions[t][n] ** 2)
      true += np.outer(seq['feat'][t, n], slope)
  np.testing.assert_allclose(grad, true, rtol=1e-3, atol=1e-3)


# Eq. 7 to 9


def naive_critic_loss(agent, seq, real, gamma):
  """The data and model losses of both critics; gamma is of s' [N]."""
  arrays = [np.asarray(seq[k], np.float64) for k in ('feat', 'action')]
  value = naive_q(agent, 'target', *arrays)
  assert len(set(np.argmin(value, 0).ravel())) == 2
  reward, discount, weight = (
    np.asarray(seq[k], np.float64) for k in ('reward', 'discount', 'weight')
  )
  v_hat, v = eq5_batch(reward, value.min(0), discount)
  q = naive_q(agent, 'online', *arrays)
  q_real = naive_q(agent, 'online', real['feat'], real['action'])
  horizon, count = reward.shape
  model = data = 0.0
  for i in range(2):
    for t in range(horizon):
      for n in range(count):
        error = v[t, n] - q[i, t, n]
        model += weight[t, n] * error**2 / (horizon * count)
    used = [n for n in range(count) if real['mask'][n]]
    for n in used:
      target = real['reward'][n] + gamma[n] * v_hat[0, n]
      data += (target - q_real[i, n]) ** 2 / len(used)
  return model, data


@pytest.mark.parametrize('masked', [(), (1, 3)])
def test_critic_loss(agent, masked):
  seq, real = rollout(agent, count=5), transitions(agent)
  mask = [float(n not in masked) for n in range(5)]
  real['mask'] = tf.constant(mask)
  loss, metrics = agent.behavior.critic_loss(seq, real)
  model, data = naive_critic_loss(agent, seq, real, [GAMMA] * 5)
  np.testing.assert_allclose(metrics['critic_model_loss'], model, rtol=1e-3)
  np.testing.assert_allclose(metrics['critic_data_loss'], data, rtol=1e-3)
  np.testing.assert_allclose(loss, model + data, rtol=1e-3)


def test_critic_loss_at_ends():
  """With a discount head nothing is worth anything after a true end."""
  agent = fresh(pred_discount=True)
  seq, real = rollout(agent, count=5), transitions(agent)
  real['next']['is_terminal'] = tf.constant([0.0, 1, 0, 0, 1])
  gamma = [GAMMA, 0, GAMMA, GAMMA, 0]
  loss, _ = agent.behavior.critic_loss(seq, real)
  np.testing.assert_allclose(
    loss, sum(naive_critic_loss(agent, seq, real, gamma)), rtol=1e-3
  )


def test_critic_loss_without_transitions(agent):
  """A batch of nothing but episode starts has no data term."""
  seq, real = rollout(agent, count=5), transitions(agent)
  real['mask'] = tf.zeros(5)
  _, metrics = agent.behavior.critic_loss(seq, real)
  assert metrics['critic_data_loss'] == 0
  assert np.isfinite(metrics['critic_model_loss'])


def test_critic_loss_real_reward():
  """The first reward of the data term is the real one, unpenalised.

  With lambda = 0 V_hat is the critic and no imagined reward enters.
  """
  agent = fresh(discount_lambda=0, alpha=1000)
  seq, real = rollout(agent, count=5), transitions(agent)
  data_loss = lambda **changes: agent.behavior.critic_loss(
    {**seq, 'reward': changes.get('imagined', seq['reward'])},
    {**real, 'reward': changes.get('real', real['reward'])},
  )[1]
  base, other = data_loss(), data_loss(imagined=seq['reward'] - 7)
  assert base['critic_data_loss'] == other['critic_data_loss']
  assert base['critic_model_loss'] != other['critic_model_loss']
  other = data_loss(real=real['reward'] + 7)
  assert base['critic_data_loss'] != other['critic_data_loss']
  assert base['critic_model_loss'] == other['critic_model_loss']
  target = lambda x: x['critic_data_target'].numpy()
  np.testing.assert_allclose(target(other) - target(base), 7, rtol=1e-4)


def test_critic_gradient(agent):
  """Only the critics' own values are differentiated, never the targets."""
  critics, seq = agent.behavior.critics, rollout(agent, count=5)
  real = transitions(agent)
  targets = [
    v for k, v in agent.state().items() if k.startswith('critics/target')
  ]
  with tf.GradientTape(persistent=True) as tape:
    tape.watch((seq, real))
    agent_loss, _ = agent.behavior.critic_loss(seq, real)
  assert targets and tape.gradient(agent_loss, targets) == [None] * len(targets)
  for x in (seq['reward'], seq['discount'], real['reward']):
    assert tape.gradient(agent_loss, x) is None
  arrays = [seq[k].numpy() for k in ('feat', 'action')]
  value = naive_q(agent, 'target', *arrays).min(0)
  v_hat, v = eq5_batch(seq['reward'], value, seq['discount'])
  with tf.GradientTape() as naive_tape:
    q = critics(seq['feat'][:-1], seq['action'][:-1])
    loss = tf.reduce_mean(seq['weight'] * (v.astype(np.float32) - q) ** 2) * 2
    target = (real['reward'] + GAMMA * v_hat[0]).numpy().astype(np.float32)
    q = critics(real['feat'], real['action'])
    loss += tf.reduce_mean((target - q) ** 2) * 2
  grads = tape.gradient(agent_loss, critics.variables)
  true = naive_tape.gradient(loss, critics.variables)
  np.testing.assert_allclose(agent_loss, loss, rtol=1e-3)
  for grad, other in zip(grads, true, strict=True):
    np.testing.assert_allclose(grad, other, rtol=1e-3, atol=1e-3)


# Whole gradient steps


class Spy(moto.MOTO):
  """Keeps what the parts of a gradient step are given."""

  def imagine(self, start, seed):
    self.start = start
    return super().imagine(start, seed)

  def actor_loss(self, seq, post, data):
    self.post = post
    return super().actor_loss(seq, post, data)

  def critic_loss(self, seq, real):
    self.seq, self.real = seq, real
    return super().critic_loss(seq, real)


def test_train_starts():
  """Rollouts start at s' of the transitions that L_data uses, unpenalised."""
  agent = fresh(alpha=1000, start_states=7)
  batch = make_batch(tiny_config(), firsts=((0, 3),))
  post, data = posterior(agent, batch)
  spy = Spy(tiny_config(alpha=1000, start_states=7), agent.model, 2, Layers(0))
  spy.train(post, data, SEED)
  assert spy.start is spy.real['next'] and spy.post is post
  assert spy.real['mask'].shape == 7
  feats = {
    tuple(post['feat'][b, i].numpy()): (b, i)
    for b in range(3)
    for i in range(6)
  }
  for n in range(7):
    b, i = feats[tuple(spy.real['feat'][n].numpy())]
    assert not batch['is_first'][b, i + 1]
    assert spy.real['reward'][n] == batch['reward'][b, i + 1]
    np.testing.assert_array_equal(spy.seq['feat'][0, n], post['feat'][b, i + 1])
  assert np.mean(spy.seq['reward']) < -10  # Imagined ones are penalised.


def test_all_start_states():
  agent = fresh(start_states=0)
  post, data = posterior(agent, make_batch(tiny_config()))
  spy = Spy(tiny_config(start_states=0), agent.model, 2, Layers(0))
  metrics = spy.train(post, data, SEED)
  assert spy.seq['feat'].shape[:2] == (4, 15)
  assert all(np.isfinite(x) for x in metrics.values())


def snapshot(agent):
  return {k: v for k, v in agent.save().items() if '_opt/' not in k}


def changed(agent, before):
  """First parts of the names of changed arrays, such as critics/online."""
  return {
    '/'.join(k.split('/')[:2]) if k.startswith('critics') else k.split('/')[0]
    for k, v in snapshot(agent).items()
    if np.any(v != before[k])
  }


STILL = 1e-30  # A learning rate that moves nothing in float32.


@pytest.mark.parametrize(
  'settings, moved',
  [
    ({'critic_opt__lr': STILL, 'critic_opt__wd': 0.0}, {'actor'}),
    ({'actor_opt__lr': STILL, 'actor_opt__wd': 0.0}, {'critics/online'}),
    ({}, {'actor', 'critics/online'}),
  ],
)
def test_train_moves(settings, moved):
  """Each loss moves its own network; neither moves the world model."""
  agent = fresh(slow_target_update=100, **settings)
  post, data = posterior(agent, make_batch(tiny_config()))
  agent.behavior.train(post, data, SEED)  # The first one copies the targets.
  before = snapshot(agent)
  agent.behavior.train(post, data, SEED)
  assert changed(agent, before) == moved | {'critics/updates'}


def test_model_train_moves():
  agent = fresh()
  _, data = posterior(agent, make_batch(tiny_config()))
  before = snapshot(agent)
  post, _ = agent.model.train(data, SEED)
  assert changed(agent, before) == {'model'}
  for value in post.values():
    assert not value.dtype.is_floating or value.shape[:2] == (3, 6)


def test_train_actor_gradient():
  """The applied gradient is that of the actor loss and nothing else."""
  agent = fresh(start_states=0)
  post, data = posterior(agent, make_batch(tiny_config()))
  config = tiny_config(start_states=0)
  spy = Spy(config, agent.model, 2, Layers(0))
  for mine, other in zip(
    spy.actor.variables + spy.critics.variables,
    agent.behavior.actor.variables + agent.behavior.critics.variables,
    strict=True,
  ):
    mine.assign(other)
  before = [v.numpy() for v in spy.actor.variables]
  metrics = spy.train(post, data, SEED)
  seq = {k: tf.constant(v.numpy()) for k, v in spy.seq.items()}
  # The same rollout again, with the actor and critics of before.
  _, imagine_seed = moto.split(SEED, 2)
  behavior = agent.behavior
  with tf.GradientTape() as tape:
    again = behavior.imagine(spy.start, imagine_seed)
    loss, _ = behavior.actor_loss(again, post, data)
  grads = tape.gradient(loss, behavior.actor.variables)
  np.testing.assert_allclose(again['feat'], seq['feat'], atol=1e-5)
  np.testing.assert_allclose(metrics['actor_loss'], loss, rtol=1e-4)
  norm = norm_of([g.numpy() for g in grads])
  np.testing.assert_allclose(metrics['actor_grad_norm'], norm, rtol=1e-3)
  for var, old, grad in zip(spy.actor.variables, before, grads, strict=True):
    step = var.numpy() - old * (1 - config.actor_opt.wd)
    large = np.abs(grad) > 1e-3
    assert large.any()
    np.testing.assert_array_equal(
      np.sign(step[large]), -np.sign(grad.numpy()[large])
    )


@pytest.mark.parametrize('share', [1.0, 0.25])
def test_target_update(share):
  """Targets copy the critics at steps 0, 3, 6; a share of them after 0."""
  agent = fresh(
    horizon=1,
    start_states=2,
    slow_target_update=3,
    slow_target_fraction=share,
    critic_opt__lr=1e-2,
  )
  post, data = posterior(agent, make_batch(tiny_config()))
  part = lambda name: {
    k.removeprefix(f'critics/{name}/'): v
    for k, v in agent.save().items()
    if k.startswith(f'critics/{name}/')
  }
  for step in range(7):
    before = part('target')
    agent.behavior.train(post, data, SEED)
    online, target = part('online'), part('target')
    mix = 1.0 if step == 0 else share if step % 3 == 0 else 0.0
    for key in target:
      assert np.any(online[key] != before[key])
      np.testing.assert_allclose(
        target[key], mix * online[key] + (1 - mix) * before[key], rtol=1e-5,
        atol=1e-7,
      )  # fmt: skip


def test_targets_start_equal():
  state = make_agent(tiny_config()).save()
  for key, value in state.items():
    if key.startswith('critics/online/'):
      other = state[key.replace('online', 'target')]
      np.testing.assert_array_equal(value, other)
      assert 'kernel' not in key or np.any(value[0] != value[1])


def test_all_members_learn():
  """Over some steps the KL reaches every prior head."""
  agent = fresh(model_opt__wd=0.0)
  _, data = posterior(agent, make_batch(tiny_config()))
  kernel = agent.state()['model/rssm/prior/kernel/1']
  before = kernel.numpy()
  for step in range(4):
    agent.model.train(data, tf.constant([step, 9]))
  assert np.all(np.any(kernel.numpy() != before, (1, 2)))


@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_mixed_precision(precision):
  """Losses in half precision are those of float32, to its accuracy."""
  results = []
  for setting in ('float32', precision):
    agent = make_agent(tiny_config(precision=setting))
    results.append(agent.train(make_batch(tiny_config()), 0))
  single, half = results
  for key, value in single.items():
    if key.endswith('_loss'):
      np.testing.assert_allclose(half[key], value, rtol=0.05, err_msg=key)


def test_no_cloning():
  """With beta = 0 demonstrations do not reach the actor."""
  grads = []
  for success in (0.0, 1.0):
    agent = fresh(beta=0)
    batch = make_batch(tiny_config(), success=success)
    grads.append(actor_gradient(agent, *posterior(agent, batch)))
  assert norm_of(grads[0]) > 0
  for a, b in zip(*grads, strict=True):
    np.testing.assert_array_equal(a, b)
