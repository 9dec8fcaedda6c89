"""MOTO: Eq. 2 to 10 against loops written from the paper's equations.

The naive versions are NumPy, in float64, one rollout, state or transition at a
time. Indices follow the paper; where code and paper count differently, a
comment says how.
"""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  make_batch,
  naive_mlp,
  naive_policy,
  naive_stack,
  tiny_config,
)
from moto_naive import (
  GAMMA,
  SEED,
  eq5_batch,
  fresh,
  naive_penalty,
  posterior,
  starts,
)

from moto_tf.agents import moto, returns
from moto_tf.agents.penalties import PENALTIES

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
  v_hat, v = returns.value_expansion(
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
  v_hat, v = returns.value_expansion(reward, value, tf.fill([2, 1], 0.5), 0.5)
  # V_1(s0) = 1 + .5 * 4 = 3, V_2(s0) = 1 + .5 * 2 + .25 * 16 = 6,
  # V(s0) = .5 * 3 + .5 * 6, V(s1) = V_1(s1) = 2 + .5 * 16 = 10.
  np.testing.assert_allclose(v[:, 0], [4.5, 10])
  np.testing.assert_allclose(v_hat[:, 0], [6.25, 7, 16])


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
  parts = np.concatenate([x, deter]) @ w['gru_kernel'] + w['gru_offset']
  parts = (parts - parts.mean()) / np.sqrt(parts.var() + 1e-3)
  reset, cand, update = np.split(parts * w['gru_gain'] + w['gru_bias'], 3)
  update = sigmoid(update - 1)
  return update * np.tanh(sigmoid(reset) * cand) + (1 - update) * deter


@pytest.mark.parametrize('penalty', PENALTIES)
def test_imagine(penalty):
  """r[t] is of s[t+1]; u[t] of h[t+1], which (s[t], a[t]) determine."""
  agent = fresh(moto__penalty=penalty, horizon=4, moto__alpha=3)
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
  state = agent.variables()
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
  bias = agent.variables()['actor/mlp/out/bias']
  bias.assign(tf.concat([bias[:2], [-60.0, -60.0]], 0))
  kernel = agent.variables()['actor/mlp/out/kernel']
  kernel.assign(tf.concat([kernel[:, :2], tf.zeros([16, 2])], -1))
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = agent.behavior.imagine(starts(post, data), SEED)
  mean = naive_mlp(agent.save(), 'actor/mlp', seq['feat'].numpy())[..., :2]
  assert np.std(np.tanh(mean), 0).max() > 0.05
  np.testing.assert_allclose(seq['action'], np.tanh(mean), atol=2e-3)


def test_imagine_without_penalty():
  agent = fresh(moto__alpha=0)
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = agent.behavior.imagine(starts(post, data), SEED)
  np.testing.assert_array_equal(seq['reward'], seq['raw_reward'])
  assert 'disagreement' not in seq  # It is not computed.
  assert agent.remarks == ['moto.alpha is 0: the penalty is not computed.']


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


def clone(agent, post, batch, mean='cloned'):
  data = agent.model.preprocess({k: tf.constant(v) for k, v in batch.items()})
  return moto.clone_loss(agent.behavior.actor, post['feat'], data, mean)


@pytest.mark.parametrize('mean', ['cloned', 'batch'])
def test_clone_loss(agent, learned, mean):
  batch, feat = successes(), learned[0]['feat'].numpy()
  loss, share = clone(agent, learned[0], batch, mean)
  terms, valid = [], 0
  for b in range(3):
    for i in range(5):
      if batch['is_first'][b, i + 1]:
        continue
      valid += 1
      if batch['success'][b, i + 1]:
        dist = naive_policy(agent.save(), feat[b, i])
        terms.append(dist.logpdf(batch['action'][b, i + 1]).sum())
  assert (len(terms), valid) == (3, 13)
  count = {'cloned': 3, 'batch': 13}[mean]
  np.testing.assert_allclose(loss, -sum(terms) / count, rtol=1e-3)
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


@pytest.mark.parametrize('mean', ['cloned', 'batch'])
def test_clone_loss_without_success(agent, learned, mean):
  batch = make_batch(tiny_config(), success=0.0)
  with tf.GradientTape() as tape:
    loss, share = clone(agent, learned[0], batch, mean)
  assert loss == 0 and share == 0
  for grad in tape.gradient(loss, agent.behavior.actor.variables):
    assert np.all(grad.numpy() == 0)
