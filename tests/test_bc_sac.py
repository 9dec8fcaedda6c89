"""Losses and targets of BC and SAC against numpy; who learns from what."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import ACT, SPACES, randomize
from model_free_naive import (
  first_adam,
  gradients,
  make_data,
  make_free,
  masked_mean,
  numbers,
  single,
  squashed,
  transitions,
  twins,
  units,
)
from test_metrics_page import unexplained

from moto_tf.agents.bc import BC
from moto_tf.agents.model_free import UnitPolicyAgent
from moto_tf.nn.tfutils import normal, split

SEED = tf.constant([3, 4])


@pytest.fixture(scope='module')
def bc():
  agent, config = make_free('bc')
  randomize(agent)
  return agent, make_data(config)


@pytest.fixture(scope='module')
def sac():
  agent, config = make_free('sac')
  randomize(agent)
  return agent, make_data(config)


def learned(agent, data, step=5):
  """Metrics of a gradient step, and how far it moved every weight."""
  before = agent.save()
  metrics = agent.train(data, step)
  after = agent.save()
  return metrics, {k: after[k] - before[k] for k in before}


def seeds(agent, step=5):
  """Seeds of the crops and of the update, as `_step` splits them."""
  return split(agent._seed(1, step), 2)


def check_moves(moved, name, grads, rate=1.0):
  """Every weight of a module has made Adam's first step on its gradient."""
  assert len(grads) > 1 or name == 'temperature'
  for key, grad in grads.items():
    assert grad is not None, key
    np.testing.assert_allclose(
      moved[f'{name}/{key}'], rate * first_adam(grad), 2e-3, 2e-7, err_msg=key
    )


def test_cloning(bc):
  agent, data = bc
  steps, batch = transitions(agent, data, SEED), agent.transitions(data, SEED)
  assert 'pixels' not in batch.next
  mean = np.tanh(
    single(numbers(agent), 'actor', steps['before'], steps['vector'])
  )
  density = scipy.stats.norm(mean, 1).logpdf(steps['action']).sum(-1)
  metrics = agent.update(batch, SEED, tf.constant(0.0))
  np.testing.assert_allclose(
    metrics['actor_loss'], -masked_mean(density, steps['mask']), 1e-5
  )
  error = np.abs(mean - steps['action']).mean(-1)
  np.testing.assert_allclose(
    metrics['actor_error'], masked_mean(error, steps['mask']), 1e-4
  )


def test_a_method_built_on_bc_has_a_name_of_its_own():
  """What it reads does not hang on how it is registered."""
  _, config = make_free('sac')
  agent = UnitPolicy(config, SPACES, ACT)
  assert agent.decay(5) == 1
  assert np.isfinite(agent.train(make_data(config), 0)['actor_loss'])


class UnitPolicy(UnitPolicyAgent):
  next_seen = False
  mean, update = BC.mean, BC.update

  def __init__(self, *args):
    super().__init__(*args)
    self.actor = self.net(self.size)
    self.learn(actor=self.actor)


def test_what_cloning_learns():
  """Adam on its own loss, at the learning rate of the step."""
  agent, config = make_free('bc', offline_steps=10, online_steps=0)
  data = make_data(config)
  batch = agent.transitions(data, seeds(agent)[0])
  with tf.GradientTape() as tape:
    loss = -batch.mean(agent.dist(batch.obs).log_prob(batch.action))
  grads = gradients(tape, loss, agent.actor)
  metrics, moved = learned(agent, data)
  check_moves(moved, 'actor', grads, 0.5)  # In the middle of the cosine.
  np.testing.assert_allclose(metrics['actor_loss'], loss, 1e-6)
  assert not unexplained(f'train/{k}' for k in metrics)
  assert all(k.startswith(('actor', 'standardize')) for k in moved)


@pytest.mark.parametrize('how', ['mean', 'min', 'no entropy'])
def test_target_and_losses_of_sac(sac, how):
  agent, data = sac
  if how != 'mean':
    settings = {'sac__target_q': 'min'}
    settings |= {'sac__backup_entropy': False} if how != 'min' else {}
    other, _ = make_free('sac', **settings)
    other.load(agent.save())
    agent = other
  steps, batch = transitions(agent, data, SEED), agent.transitions(data, SEED)
  arrays, noise = numbers(agent), normal([9, 2], SEED).numpy()
  temperature = np.exp(arrays['temperature/log'])
  after = steps['after'], steps['next_vector']
  action, log_prob = squashed(arrays, *after, noise)
  values = twins(arrays, 'target', *after, action)
  value = values.mean(0) if how == 'mean' else values.min(0)
  value -= temperature * log_prob if how != 'no entropy' else 0
  expected = steps['reward'] + steps['discount'] * value
  target, metrics = agent.target_q(batch, SEED)
  np.testing.assert_allclose(target, expected, 1e-3, 1e-3)
  np.testing.assert_allclose(
    metrics['critic_data_target'], masked_mean(expected, steps['mask']), 1e-3
  )
  features = agent.critic.encoder(batch.obs)
  before = steps['before'], steps['vector']
  values = twins(arrays, 'critic', *before, steps['action'])
  loss, metrics = agent.critic_loss(features, target, batch, SEED)
  np.testing.assert_allclose(
    loss, masked_mean((values - target.numpy()) ** 2, steps['mask']), 1e-3
  )
  np.testing.assert_allclose(
    metrics['critic_data_q'], masked_mean(values, steps['mask']), 1e-3, 1e-4
  )
  action, log_prob = squashed(arrays, *before, noise)
  values = twins(arrays, 'critic', *before, action).mean(0)
  expected = masked_mean(temperature * log_prob - values, steps['mask'])
  loss, found = agent.actor_loss(features, batch, SEED)
  np.testing.assert_allclose(loss, expected, 1e-3, 1e-3)
  np.testing.assert_allclose(found, log_prob, 1e-3, 1e-3)
  entropy = -masked_mean(log_prob, steps['mask'])
  np.testing.assert_allclose(
    agent.temperature_loss(found, batch), temperature * (entropy + 1), 1e-3
  )


def test_what_sac_learns():
  """Each part by its own loss, of the weights before the step."""
  agent, config = make_free('sac')
  randomize(agent)
  data = make_data(config)
  crop_seed, seed = seeds(agent)
  target_seed, actor_seed, critic_seed = split(seed, 3)
  batch = agent.transitions(data, crop_seed)
  target, _ = agent.target_q(batch, target_seed)
  with tf.GradientTape(persistent=True) as tape:
    features = agent.critic.encoder(batch.obs)
    critic_loss, _ = agent.critic_loss(features, target, batch, critic_seed)
    stopped = {k: tf.stop_gradient(v) for k, v in features.items()}
    actor_loss, log_prob = agent.actor_loss(stopped, batch, actor_seed)
    temperature_loss = agent.temperature_loss(log_prob, batch)
    whole, _ = agent.target_q(batch, target_seed)
  wanted = {
    'critic': gradients(tape, critic_loss, agent.critic),
    'actor': gradients(tape, actor_loss, agent.actor),
    'temperature': gradients(tape, temperature_loss, agent.temperature),
  }
  none = lambda loss, net: set(gradients(tape, loss, net).values()) == {None}
  for net in (agent.actor, agent.target, agent.temperature):
    assert none(critic_loss, net) and none(whole, net)
  assert none(whole, agent.critic)
  assert none(actor_loss, agent.critic.encoder)
  assert none(actor_loss, agent.temperature)
  assert none(temperature_loss, agent.actor)
  before = agent.save()
  metrics, moved = learned(agent, data)
  for name, grads in wanted.items():
    check_moves(moved, name, grads)
  np.testing.assert_allclose(metrics['critic_loss'], critic_loss, 1e-5)
  np.testing.assert_allclose(metrics['actor_loss'], actor_loss, 1e-5)
  # The targets go a two-hundredth of the way to the critics of after it.
  after = agent.save()
  for key in (k for k in before if k.startswith('target/')):
    critic = after[key.replace('target', 'critic')]
    np.testing.assert_allclose(
      after[key], 0.995 * before[key] + 0.005 * critic, 1e-4, 1e-7
    )
  assert not unexplained(f'train/{k}' for k in metrics)


def test_the_temperature_holds_the_entropy(sac):
  """It falls where the policy is more random than wanted."""
  agent, data = sac
  batch = agent.transitions(data, SEED)
  for entropy, sign in ((3.0, 1), (-3.0, -1)):
    with tf.GradientTape() as tape:
      loss = agent.temperature_loss(tf.fill([9], -entropy), batch)
    (grad,) = gradients(tape, loss, agent.temperature).values()
    assert np.sign(grad) == sign
  agent, _ = make_free('sac')
  np.testing.assert_allclose(agent.temperature(), 0.1, 1e-6)


def test_sac_acts_by_the_encoder_of_its_critic(sac):
  agent, data = sac
  obs = {'image': data['image'][:, 0], 'state': data['state'][:, 0]}
  obs['is_first'] = np.ones(3, bool)
  lanes = np.arange(3), np.zeros(3, int)
  action, _ = agent.policy(obs, None, lanes, 'eval')
  other, _ = make_free('sac')
  other.load(agent.save(), policy_only=True)
  np.testing.assert_array_equal(
    other.policy(obs, None, lanes, 'eval')[0], action
  )
  names = agent.policy_variables()
  assert 'critic/encoder/conv/0/kernel' in names
  assert not any(k.startswith(('critic/head', 'target')) for k in names)
  stack = np.concatenate([data['image'][:, 0]] * 3, -1) / 255
  expected, _ = squashed(
    numbers(agent), stack, units(agent, obs['state']), np.zeros((3, 2))
  )
  np.testing.assert_allclose(action, expected, 1e-4, 1e-4)


def test_targets_begin_equal_to_the_critics():
  arrays = make_free('sac')[0].save()
  for key, value in arrays.items():
    if key.startswith('target/'):
      critic = arrays[key.replace('target', 'critic')]
      np.testing.assert_array_equal(value, critic)
