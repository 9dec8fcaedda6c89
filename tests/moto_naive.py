"""Rollouts, transitions and naive values shared by the tests of MOTO."""

import numpy as np
import tensorflow as tf
from helpers import (
  make_agent,
  naive_stack,
  randomize,
  tiny_config,
)

GAMMA, LAMBDA = 0.99, 0.95
SEED = tf.constant([3, 5])


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
  seq = {k: tf.constant(v, tf.float32) for k, v in seq.items()}
  return {**seq, 'policy': agent.behavior.actor.outputs(seq['feat'])}


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


def actor_gradient(agent, post, data):
  """Gradient of the actor loss over a rollout."""
  behavior = agent.behavior
  with tf.GradientTape() as tape:
    seq = behavior.imagine(starts(post, data), SEED)
    loss, _ = behavior.actor_loss(seq, post, data)
  return [g.numpy() for g in tape.gradient(loss, behavior.actor.variables)]


def norm_of(grads):
  return np.sqrt(sum(np.sum(g**2) for g in grads))
