"""MOTO: actor and critic losses, Eq. 6 to 10, against loops."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  make_batch,
  naive_policy,
  tiny_config,
)
from moto_naive import (
  GAMMA,
  SEED,
  actor_gradient,
  eq5_batch,
  fresh,
  naive_q,
  norm_of,
  posterior,
  rollout,
  starts,
  transitions,
)

from moto_tf.agents import moto
from moto_tf.agents.penalties import PENALTIES

# Eq. 6 and 10


@pytest.mark.parametrize('beta', [0.0, 10.0])
@pytest.mark.parametrize('ent', [0.0, 0.3])
@pytest.mark.parametrize('mean', ['cloned', 'batch'])
def test_actor_loss(beta, ent, mean):
  agent = fresh(moto__beta=beta, actor_ent=ent, moto__clone_mean=mean)
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
  cloning, _ = moto.clone_loss(agent.behavior.actor, post['feat'], data, mean)
  np.testing.assert_allclose(loss, total + beta * cloning.numpy(), rtol=1e-3)
  if beta:
    np.testing.assert_allclose(metrics['actor_bc_loss'], cloning)
  else:
    assert not {'actor_bc_loss', 'bc_share'} & metrics.keys()
    assert agent.remarks == ['moto.beta is 0: nothing is cloned.']
  np.testing.assert_allclose(
    metrics['actor_ent'], entropy[:3].mean(), rtol=1e-3
  )
  np.testing.assert_allclose(
    metrics['imag_reward_raw'], seq['raw_reward'].mean(), rtol=1e-4
  )
  np.testing.assert_allclose(
    metrics['imag_penalty'], 10 * seq['disagreement'].mean(), rtol=1e-5
  )


def zero(agent, *prefixes):
  for name, var in agent.variables().items():
    if name.startswith(prefixes) and '_opt/' not in name:
      var.assign(tf.zeros_like(var))


# Every statistic of Eq. 2, and the one that Gaussian latents have.
KINDS = [{'moto__penalty': name} for name in PENALTIES]
KINDS.append({'moto__penalty': 'log_prob_std', 'rssm__discrete': 0})


@pytest.mark.parametrize(
  'path, zeroed, settings',
  [
    *(
      ('penalty', ('model/reward', 'critics'), {'moto__alpha': 10, **kind})
      for kind in KINDS
    ),
    ('reward', ('critics',), {'moto__alpha': 0}),
    ('critic', ('model/reward',), {'moto__alpha': 0}),
    ('nothing', ('model/reward', 'critics'), {'moto__alpha': 0}),
  ],
)
def test_gradient_paths(path, zeroed, settings):
  """The actor learns through penalty, reward and critics, each alone."""
  agent = fresh(moto__beta=0, actor_ent=0, discount_lambda=1, **settings)
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
      moto__beta=0,
      actor_ent=0,
      moto__alpha=0,
      horizon=1,
      discount_lambda=lambda_,
    )
    zero(agent, 'model/reward')
    # Blind critics to the action itself: only states are worth anything.
    kernel = agent.variables()['critics/online/kernel/0']
    kernel.assign(tf.concat([kernel[:, :-2], 0 * kernel[:, -2:]], 1))
    post, data = posterior(agent, make_batch(tiny_config()))
    norms.append(norm_of(actor_gradient(agent, post, data)))
  assert norms[0] == 0 and norms[1] > 1e-6


class Linear:
  """Deterministic policy tanh(feat W)."""

  size = 2

  def __init__(self, weight):
    self.weight = weight

  def outputs(self, feat):
    return tf.tanh(feat @ self.weight)

  def dist(self, outputs):
    return Fixed(outputs)


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

  def outputs(self, feat):
    return next(self.actions)

  def dist(self, outputs):
    return Fixed(outputs)


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
  """Ends mean nothing without a discount head."""
  seq, real = rollout(agent, count=5), transitions(agent)
  real['next']['is_terminal'] = tf.constant([0.0, 1, 0, 0, 1])
  mask = [float(n not in masked) for n in range(5)]
  real['mask'] = tf.constant(mask)
  loss, metrics = agent.behavior.critic_loss(seq, real)
  model, data = naive_critic_loss(agent, seq, real, [GAMMA] * 5)
  np.testing.assert_allclose(metrics['critic_model_loss'], model, rtol=1e-3)
  np.testing.assert_allclose(metrics['critic_data_loss'], data, rtol=1e-3)
  np.testing.assert_allclose(loss, model + data, rtol=1e-3)
  q = naive_q(agent, 'online', real['feat'], real['action'])
  used = [n for n in range(5) if mask[n]]
  mean = sum(q[i, n] for i in range(2) for n in used) / (2 * len(used))
  np.testing.assert_allclose(metrics['critic_data_q'], mean, rtol=1e-3)


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
  agent = fresh(discount_lambda=0, moto__alpha=1000)
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
    v for k, v in agent.variables().items() if k.startswith('critics/target')
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
