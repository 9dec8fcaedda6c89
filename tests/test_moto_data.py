"""MOTO: the targets of Eq. 8 on real transitions, against loops."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_batch, tiny_config
from moto_naive import (
  GAMMA,
  LAMBDA,
  SEED,
  fresh,
  naive_q,
  posterior,
  rollout,
  transitions,
)

from moto_tf.agents import moto, returns
from moto_tf.nn.tfutils import split, uniform


def naive_return(lane, i, lambda_):
  """R[i] as a sum over where it may stop, of one sequence.

  The chance to stop at s[k] is 1 - lambda, and 1 at the last record of the
  window and before a record of another episode.
  """
  reward, value, discount, is_first = lane
  total, factor, chance, k = 0.0, 1.0, 1.0, i + 1
  while True:
    total += chance * factor * reward[k]
    factor *= discount[k]
    end = k + 1 == len(reward) or is_first[k + 1]
    stop = 1.0 if end else 1 - lambda_
    total += chance * stop * factor * value[k]
    if end:
      return total
    chance *= 1 - stop
    k += 1


@pytest.mark.parametrize('lambda_', [0.0, 0.9, 1.0])
def test_real_returns(lambda_):
  rng = np.random.default_rng(0)
  reward, value = rng.normal(size=(2, 3, 7))
  discount = rng.uniform(0.5, 1, (3, 7))
  is_first = np.zeros((3, 7))
  is_first[:, 0] = 1
  is_first[1, 4] = is_first[2, 1] = is_first[2, 6] = 1
  args = [tf.constant(x) for x in (reward, value, discount, is_first)]
  found = returns.real_returns(*args, lambda_)
  assert found.shape == (3, 6)
  for b in range(3):
    lane = [x[b] for x in (reward, value, discount, is_first)]
    for i in range(6):
      if not is_first[b, i + 1]:
        expected = naive_return(lane, i, lambda_)
        np.testing.assert_allclose(found[b, i], expected)


@pytest.mark.parametrize('ends', [False, True])
def test_data_returns(ends):
  """Actions of the policy, the smaller target critic, real rewards.

  True ends count where they are predicted alone.
  """
  agent = fresh(pred_discount=ends)
  batch = make_batch(tiny_config(), firsts=((0, 3), (1, 2)))
  batch['is_terminal'] = batch['is_last'].copy()
  batch['is_terminal'][2, 3] = True  # In the middle of a sequence.
  post, data = posterior(agent, batch)
  found = agent.behavior.data_returns(post, data, SEED)
  noise = uniform([3, 6, 2], split(SEED, 2)[1])
  action = agent.behavior.actor(post['feat']).sample(noise=noise)
  value = naive_q(agent, 'target', post['feat'], action).min(0)
  discount = np.full((3, 6), GAMMA)
  if ends:
    discount[batch['is_terminal']] = 0
  for b in range(3):
    arrays = batch['reward'], value, discount, batch['is_first']
    lane = [x[b] for x in arrays]
    for i in range(5):
      if not batch['is_first'][b, i + 1]:
        expected = naive_return(lane, i, LAMBDA)
        np.testing.assert_allclose(found[b, i], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('target', ['one_step', 'lambda', 'rollout'])
def test_critic_loss_by_target(target):
  """Only the rollout's target depends on what is imagined."""
  agent = fresh(moto__data_target=target)
  seq, real = rollout(agent, count=5), transitions(agent)
  real['target'] = tf.constant(np.arange(5.0), tf.float32)
  value = naive_q(agent, 'target', seq['feat'][0], seq['action'][0]).min(0)
  expected = {
    'one_step': real['reward'].numpy() + GAMMA * value,
    'lambda': np.arange(5.0),
  }
  _, metrics = agent.behavior.critic_loss(seq, real)
  found = metrics['critic_data_target'].numpy()
  changed = {**seq, 'reward': seq['reward'] + 100}
  _, other = agent.behavior.critic_loss(changed, real)
  if target == 'rollout':
    assert abs(other['critic_data_target'] - found) > 10
    return
  np.testing.assert_allclose(found, expected[target].mean(), rtol=1e-4)
  assert other['critic_data_target'] == found
  q = naive_q(agent, 'online', real['feat'], real['action'])
  loss = np.mean((expected[target] - q) ** 2, 1).sum()
  np.testing.assert_allclose(metrics['critic_data_loss'], loss, rtol=1e-3)


def test_lambda_targets_belong_to_their_transitions():
  """`train` gives every drawn transition the return of its own record."""

  class Spy(moto.MOTO):
    def data_returns(self, post, data, seed):
      return tf.reshape(tf.range(15.0), [3, 5])

    def critic_loss(self, seq, real):
      self.real = real
      return super().critic_loss(seq, real)

  settings = {'moto__data_target': 'lambda', 'moto__start_states': 7}
  agent = fresh(**settings)
  post, data = posterior(agent, make_batch(tiny_config(), firsts=((0, 3),)))
  agent.behavior.__class__ = Spy
  agent.behavior.train(post, data, SEED)
  real = agent.behavior.real
  feats = {
    tuple(post['feat'][b, i].numpy()): 5 * b + i
    for b in range(3)
    for i in range(5)
  }
  for feat, target in zip(real['feat'], real['target'], strict=True):
    assert target == feats[tuple(feat.numpy())]
