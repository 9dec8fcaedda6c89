"""Gradients of losses of MOTO and DreamerV2: entropy, weights, targets."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  make_agent,
  make_batch,
  naive_policy,
  randomize,
  tiny_config,
)
from moto_naive import SEED, posterior, rollout, starts

ENT, STEP = 0.3, 1e-4
BIAS = 'actor/mlp/out/bias'
METHODS = {
  'moto': {'moto__alpha': 0, 'moto__beta': 0},
  'dreamerv2': {'method': 'dreamerv2', 'rssm__ensemble': 1},
}


def bonus_alone(method, **settings):
  """An agent whose actor's loss is the entropy bonus and nothing else.

  Rewards and values are zero everywhere.
  """
  settings = {'actor_ent': ENT, **METHODS[method], **settings}
  agent = make_agent(tiny_config(**settings))
  randomize(agent)
  for name, var in agent.variables().items():
    if name.startswith(('model/reward', 'critics/')):
      var.assign(tf.zeros_like(var))
  return agent


def imagined(agent, method):
  """A rollout, and the actor's loss on it."""
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = agent.behavior.imagine(starts(post, data), SEED)
  if method == 'moto':
    return seq, agent.behavior.actor_loss(seq, post, data)[0]
  target, _ = agent.behavior.target(seq)
  return seq, agent.behavior.actor_loss(seq, target)[0]


@pytest.mark.parametrize('ends', [False, True])
@pytest.mark.parametrize('method', METHODS)
def test_the_bonus_reaches_the_actor(method, ends):
  """By the output's bias, against differences of SciPy's entropy.

  The policy sees states without gradient, so they stay where they are, and so
  do the weights of the losses.
  """
  agent = bonus_alone(method, pred_discount=ends)
  variables = agent.behavior.actor.variables
  with tf.GradientTape() as tape:
    seq, loss = imagined(agent, method)
  grads = tape.gradient(loss, [agent.variables()[BIAS], *variables])
  assert all(np.abs(grad).max() > 1e-6 for grad in grads)
  # DreamerV2's last policy that acts on a state with a target is s[H - 2].
  last = -1 if method == 'moto' else -2
  feat, weight = seq['feat'].numpy()[:last], seq['weight'].numpy()
  weight = weight[: len(feat)].astype(np.float64)
  arrays, found = agent.save(), []

  def bonus(bias):
    dist = naive_policy({**arrays, BIAS: bias}, feat)
    return -ENT * np.mean(weight * dist.entropy().sum(-1))

  bias = arrays[BIAS].astype(np.float64)
  np.testing.assert_allclose(loss, bonus(bias), rtol=1e-4)
  for move in STEP * np.eye(len(bias)):
    slope = (bonus(bias + move) - bonus(bias - move)) / (2 * STEP)
    found.append(slope)
  np.testing.assert_allclose(grads[0], found, rtol=2e-3, atol=1e-6)


def test_weights_of_rollouts_are_constants():
  """Else the actor would shorten its rollouts to lower its loss."""
  agent = bonus_alone('moto', pred_discount=True)
  with tf.GradientTape(persistent=True) as tape:
    seq, _ = imagined(agent, 'moto')
    weight = tf.reduce_sum(seq['weight'])
    discount = tf.reduce_sum(seq['discount'])
  variables = agent.behavior.actor.variables
  assert np.ptp(seq['weight']) > 0.1
  assert tape.gradient(weight, variables) == [None] * len(variables)
  # The discounts themselves are part of the values.
  assert all(np.any(grad) for grad in tape.gradient(discount, variables))


def test_weights_are_constants_of_the_losses_of_dreamer():
  agent = bonus_alone('dreamerv2', pred_discount=True)
  behavior = agent.behavior
  seq, weight, target = rollout(agent), tf.ones([4, 4]), tf.ones([3, 4])
  for loss_of in (behavior.actor_loss, behavior.critic_loss):
    with tf.GradientTape() as tape:
      tape.watch([weight, target])
      loss, _ = loss_of({**seq, 'weight': weight}, target)
    by_weight, by_target = tape.gradient(loss, [weight, target])
    assert by_weight is None and np.any(by_target)
  # Weights depend on the actor, so that stopping their gradient matters.
  with tf.GradientTape() as tape:
    seq, _ = imagined(agent, 'dreamerv2')
    weight = tf.reduce_sum(seq['weight'])
  grads = tape.gradient(weight, behavior.actor.variables)
  assert all(np.any(grad) for grad in grads)


def test_the_critic_of_dreamer_learns_from_constant_targets():
  """Though they begin as its own values, nothing is learned through them."""
  config = tiny_config(**METHODS['dreamerv2'])
  agent = make_agent(config)
  post, data = posterior(agent, make_batch(config))
  behavior, kept = agent.behavior, []
  loss_of = behavior.critic_loss
  behavior.critic_loss = lambda *args: kept.append(args) or loss_of(*args)
  variables = behavior.critics.variables
  before = [var.numpy() for var in variables]
  metrics = behavior.train(post, data, SEED)
  ((seq, target),) = kept
  for var, value in zip(variables, before, strict=True):
    assert np.any(var != value)
    var.assign(value)
  target = tf.constant(target.numpy())
  with tf.GradientTape() as tape:
    value = behavior.critics(seq['feat'][:-1])[0]
    loss = tf.reduce_mean(seq['weight'][:-1] * 0.5 * (target - value) ** 2)
  norm = tf.linalg.global_norm(tape.gradient(loss, variables))
  assert norm > 1e-3
  np.testing.assert_allclose(metrics['critic_grad_norm'], norm, rtol=1e-4)
