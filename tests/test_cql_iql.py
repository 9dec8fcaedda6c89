"""Losses and targets of CQL and IQL against numpy; who learns from what."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from helpers import randomize
from model_free_naive import (
  gradients,
  make_data,
  make_free,
  masked_mean,
  numbers,
  single,
  squashed,
  transitions,
  twins,
)
from test_bc_sac import check_moves, learned, seeds
from test_metrics_page import unexplained

from moto_tf.nn.tfutils import normal, split, uniform

SEED = tf.constant([3, 4])


@pytest.fixture(scope='module')
def cql():
  agent, config = make_free('cql')
  randomize(agent)
  return agent, make_data(config)


@pytest.fixture(scope='module')
def iql():
  agent, config = make_free('iql', iql__expectile=0.7)
  randomize(agent)
  return agent, make_data(config)


def test_the_conservative_term(cql):
  """Each action alone: Q less its log-density, then the sum of exponentials."""
  agent, data = cql
  steps, batch = transitions(agent, data, SEED), agent.transitions(data, SEED)
  arrays = numbers(agent)
  before = steps['before'], steps['vector']
  policy_seed, uniform_seed = split(SEED, 2)
  noise = normal([4, 9, 2], policy_seed).numpy()
  chance = 2 * uniform([4, 9, 2], uniform_seed).numpy() - 1
  weighted, ours, others = [], [], []
  for i in range(4):
    action, log_pi = squashed(arrays, *before, noise[i])
    ours.append(twins(arrays, 'critic', *before, action))
    weighted.append(ours[-1] - log_pi)
    others.append(twins(arrays, 'critic', *before, chance[i]))
    weighted.append(others[-1] - np.log(1 / 4))  # Density 1/2 per number.
  values = twins(arrays, 'critic', *before, steps['action'])
  gap = np.zeros((2, 9))
  for critic in range(2):
    for n in range(9):
      total = sum(np.exp(w[critic, n]) for w in weighted)
      gap[critic, n] = np.log(total) - values[critic, n]
  expected = masked_mean(gap, steps['mask'])
  target, _ = agent.target_q(batch, SEED)
  features = agent.critic.encoder(batch.obs)
  loss, metrics = agent.critic_loss(features, target, batch, SEED)
  np.testing.assert_allclose(metrics['cql_loss'], expected, 1e-3)
  error = masked_mean((values - target.numpy()) ** 2, steps['mask'])
  np.testing.assert_allclose(loss, error + 5 * expected, 1e-3)
  for name, found in (('policy', ours), ('uniform', others)):
    np.testing.assert_allclose(
      metrics[f'critic_{name}_q'],
      masked_mean(np.mean(found, 0), steps['mask']),
      1e-3,
      1e-4,
    )


def test_importance_weights_estimate_the_integral():
  """Over all actions, whatever the policy, for a Q that is known."""
  grid = np.linspace(-0.9999, 0.9999, 4001)
  exact = 2 * np.log(np.exp(np.sin(3 * grid)).mean() * 2)
  agent, config = make_free('cql', cql__actions=4000)
  batch = agent.transitions(make_data(config), SEED)
  features = agent.critic.encoder(batch.obs)
  actions, log_mu = agent.other_actions(features, batch, SEED)
  value = tf.reduce_sum(tf.sin(3 * actions), -1)
  found = tf.reduce_logsumexp(value - log_mu, 0) - np.log(8000)
  np.testing.assert_allclose(found, exact, atol=0.05)
  ours, chance = tf.split(value - log_mu, 2)
  for part in (ours, chance):
    found = tf.reduce_logsumexp(part, 0) - np.log(4000)
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_what_cql_learns(cql):
  """Nothing reaches the actor from the conservative term."""
  _, data = cql
  agent, _ = make_free('cql')
  randomize(agent)
  crop_seed, seed = seeds(agent)
  target_seed, actor_seed, critic_seed = split(seed, 3)
  batch = agent.transitions(data, crop_seed)
  target, _ = agent.target_q(batch, target_seed)
  with tf.GradientTape(persistent=True) as tape:
    features = agent.critic.encoder(batch.obs)
    loss, _ = agent.critic_loss(features, target, batch, critic_seed)
    stopped = {k: tf.stop_gradient(v) for k, v in features.items()}
    actor_loss, _ = agent.actor_loss(stopped, batch, actor_seed)
  for net in (agent.actor, agent.target, agent.temperature):
    assert set(gradients(tape, loss, net).values()) == {None}
  wanted = {
    'critic': gradients(tape, loss, agent.critic),
    'actor': gradients(tape, actor_loss, agent.actor),
  }
  metrics, moved = learned(agent, data)
  for name, grads in wanted.items():
    check_moves(moved, name, grads)
  assert not unexplained(f'train/{k}' for k in metrics)
  # No entropy in its values, the smaller target, and D5RL's temperature.
  config = agent._config.sac
  assert (config.target_q, config.backup_entropy) == ('min', False)
  assert config.temperature == 1


def test_losses_of_iql(iql):
  agent, data = iql
  steps, batch = transitions(agent, data, SEED), agent.transitions(data, SEED)
  arrays = numbers(agent)
  before = steps['before'], steps['vector']
  value = single(arrays, 'value', *before)[:, 0]
  slow = value + np.resize([0.5, -1.0, 2.0], 9)
  expected = []
  for error in slow - value:
    expected.append((0.7 if error > 0 else 0.3) * error**2)
  loss, metrics = agent.value_loss(tf.constant(slow, tf.float32), batch)
  np.testing.assert_allclose(loss, masked_mean(expected, steps['mask']), 1e-3)
  np.testing.assert_allclose(
    metrics['value_data_v'], masked_mean(value, steps['mask']), 1e-3
  )
  advantage = np.array([0.1, 0.5, -0.5, 2.0, 0, 1e3, -1e3, 1.5, 1.6])
  mean = single(arrays, 'actor', *before)
  density = scipy.stats.norm(mean, 1).logpdf(steps['action']).sum(-1)
  weight = np.exp(np.minimum(3 * advantage, np.log(100)))
  loss, metrics = agent.actor_loss(tf.constant(advantage, tf.float32), batch)
  expected = -masked_mean(weight * density, steps['mask'])
  np.testing.assert_allclose(loss, expected, 1e-3)
  np.testing.assert_allclose(
    metrics['actor_weight'], masked_mean(weight, steps['mask']), 1e-4
  )
  clipped = masked_mean(weight >= 99.99, steps['mask'])
  np.testing.assert_allclose(metrics['actor_clipped'], clipped, 1e-5)
  target = np.arange(9, dtype=np.float32)
  values = twins(arrays, 'critic', *before, steps['action'])
  loss, _ = agent.critic_loss(tf.constant(target), batch)
  np.testing.assert_allclose(
    loss, masked_mean((values - target) ** 2, steps['mask']), 1e-3
  )


def test_what_iql_learns():
  """Value first; actor and critics by the value that has learned."""
  agent, config = make_free('iql', offline_steps=20, online_steps=0)
  randomize(agent)
  data = make_data(config)
  batch = agent.transitions(data, seeds(agent)[0])
  before = agent.save()
  metrics, moved = learned(agent, data)
  after = agent.save()
  agent.load(before)
  slow = tf.reduce_min(agent.target(batch.obs, batch.action)[..., 0], 0)
  with tf.GradientTape(persistent=True) as tape:
    loss, _ = agent.value_loss(slow, batch)
  check_moves(moved, 'value', gradients(tape, loss, agent.value))
  for net in (agent.actor, agent.critic, agent.target):
    assert set(gradients(tape, loss, net).values()) == {None}
  newer = {k: v for k, v in after.items() if k.startswith('value/')}
  agent.load({**before, **newer})
  advantage = slow - agent.value(batch.obs)[:, 0]
  follows = agent.value(batch.next)[:, 0]
  target = batch.reward + batch.discount * follows
  with tf.GradientTape(persistent=True) as tape:
    actor_loss, _ = agent.actor_loss(advantage, batch)
    critic_loss, _ = agent.critic_loss(target, batch)
  rate = 0.5 * (1 + np.cos(np.pi * 5 / 20))
  grads = gradients(tape, actor_loss, agent.actor)
  check_moves(moved, 'actor', grads, rate)
  check_moves(moved, 'critic', gradients(tape, critic_loss, agent.critic))
  np.testing.assert_allclose(metrics['actor_loss'], actor_loss, 1e-4)
  np.testing.assert_allclose(metrics['critic_loss'], critic_loss, 1e-4)
  for key in (k for k in before if k.startswith('target/')):
    critic = after[key.replace('target', 'critic')]
    np.testing.assert_allclose(
      after[key], 0.995 * before[key] + 0.005 * critic, 1e-4, 1e-7
    )
  assert not unexplained(f'train/{k}' for k in metrics)
