"""LOMPO and COMBO: rows of the buffers, and losses, against loops."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from helpers import make_batch, naive_mlp, naive_stack, tiny_config
from latent_helpers import METHODS, SEED, act, latent_agent
from moto_naive import naive_q, posterior

from moto_tf.agents import latent_agent as shared
from moto_tf.agents.conservative import soft_maximum
from moto_tf.nn.tfutils import split, uniform

GAMMA = 0.99
FIRSTS = ((0, 3), (1, 2))


@pytest.fixture(scope='module', params=[False, True])
def ends(request):
  """LOMPO without and with predicted ends, posterior states and data."""
  agent = latent_agent(pred_discount=request.param)
  batch = make_batch(tiny_config(), firsts=FIRSTS)
  batch['is_terminal'][1, 1] = batch['is_terminal'][2, 5] = True
  return agent, *posterior(agent, batch), request.param


@pytest.fixture(scope='module')
def combo():
  return latent_agent('combo')


def transitions(agent, count=6, seed=0):
  """Random transitions, as LatentBuffer.sample returns them."""
  rng = np.random.default_rng(seed)
  feat, action = agent.model.feat, agent.act_space.shape[0]
  batch = {
    'feat': rng.normal(size=(2 * count, feat)),
    'next': rng.normal(size=(2 * count, feat)),
    'action': rng.uniform(-0.9, 0.9, (2 * count, action)),
    'reward': rng.normal(size=2 * count),
    'discount': rng.uniform(0.5, 1, 2 * count),
    'mask': np.ones(2 * count),
  }
  batch['mask'][[1, count, count + 3]] = 0
  return {k: tf.constant(v, tf.float32) for k, v in batch.items()}


# Rows of the buffers


def test_real_windows(ends):
  agent, post, data, predicted = ends
  rows = agent.behavior.windows(post, data)
  np.testing.assert_array_equal(rows['feat'], post['feat'])
  batch, length = data['reward'].shape
  for b in range(batch):
    for i in range(length - 1):
      end = predicted and data['is_terminal'][b, i + 1] > 0
      assert rows['mask'][b, i] == ((b, i + 1) not in FIRSTS)
      assert rows['reward'][b, i] == data['reward'][b, i + 1]
      assert np.isclose(rows['discount'][b, i], 0 if end else GAMMA)
      np.testing.assert_array_equal(
        rows['action'][b, i], data['action'][b, i + 1]
      )


def naive_disagreement(agent, deter, stoch):
  """Std over members of log p_i(z') of one state."""
  logs = []
  for head in naive_stack(agent.save(), 'model/rssm/prior', deter):
    mean, std = np.split(head, 2)
    std = np.log1p(np.exp(std)) + 0.1
    z = (stoch - mean) / std
    logs.append(sum(-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)))
  center = sum(logs) / len(logs)
  return np.sqrt(sum((x - center) ** 2 for x in logs) / len(logs))


def test_rollouts(ends):
  """Penalised rewards, noisy actions, ends, and where they start."""
  agent, post, data, predicted = ends
  rows, metrics = agent.behavior.rollouts(post, data, SEED)
  rows = {k: v.numpy() for k, v in rows.items()}
  start = shared.flatten_states(post, data)
  count, horizon = len(start['deter']), agent._config.horizon
  assert rows['reward'].shape == (count, horizon) == (18, 3)
  imagine_seed = split(SEED, 2)[1]
  seq = agent.model.imagine(agent.behavior.actor, start, horizon, imagine_seed)
  np.testing.assert_array_equal(rows['feat'], np.swapaxes(seq['feat'], 0, 1))
  np.testing.assert_array_equal(
    rows['feat'][:, 0], np.reshape(post['feat'], [count, -1])
  )
  noise = uniform([horizon + 1, count, 2], split(imagine_seed, 3)[2]).numpy()
  arrays, means = agent.save(), []
  for n in range(count):
    alive = 1 - float(start['is_terminal'][n]) if predicted else 1.0
    for t in range(horizon):
      noisy = act(agent, rows['feat'][n, t])
      noisy = noisy + 0.2 * scipy.special.ndtri(noise[t, n])
      np.testing.assert_allclose(
        rows['action'][n, t], np.clip(noisy, -1, 1), 1e-3, 1e-4
      )
      then = rows['feat'][n, t + 1]
      raw = naive_mlp(arrays, 'model/reward', then)[0]
      size = agent.model.rssm.shape[0]
      u = naive_disagreement(agent, then[size:], then[:size])
      means.append((raw, u, raw - 5 * u))
      np.testing.assert_allclose(rows['reward'][n, t], raw - 5 * u, 2e-3, 1e-3)
      assert rows['mask'][n, t] == alive
      on = 1.0
      if predicted:
        logit = naive_mlp(arrays, 'model/discount', then)[0]
        on = float(1 / (1 + np.exp(-logit)) > 0.5 * GAMMA)
      np.testing.assert_allclose(rows['discount'][n, t], GAMMA * on, 1e-6)
      alive *= on
  assert predicted == (rows['mask'].min() == 0)
  raw, u, reward = np.mean(means, 0)
  for name, true in (
    ('imag_reward_raw', raw),
    ('imag_disagreement', u),
    ('imag_penalty', 5 * u),
    ('imag_reward', reward),
  ):
    np.testing.assert_allclose(metrics[name], true, 2e-3, err_msg=name)


def test_combo_does_not_penalise(combo):
  post, data = posterior(combo, make_batch(tiny_config()))
  rows, metrics = combo.behavior.rollouts(post, data, SEED)
  raw = naive_mlp(combo.save(), 'model/reward', rows['feat'].numpy()[:, 1:])
  np.testing.assert_allclose(rows['reward'], raw[..., 0], 1e-3, 1e-4)
  assert metrics.keys() == {'imag_reward_raw'}


def test_some_states_start():
  agent = latent_agent(latent__start_states=5)
  post, data = posterior(agent, make_batch(tiny_config()))
  rows, _ = agent.behavior.rollouts(post, data, SEED)
  every, first = np.reshape(post['feat'], [18, -1]), rows['feat'].numpy()[:, 0]
  found = [np.flatnonzero((every == x).all(-1)).item() for x in first]
  assert len(set(found)) == 5


# Losses


def naive_critic_error(agent, batch):
  """Targets [N] and squared errors [2, N] of both critics."""
  batch = {k: v.numpy().astype(np.float64) for k, v in batch.items()}
  after = naive_q(agent, 'target', batch['next'], act(agent, batch['next']))
  q = naive_q(agent, 'online', batch['feat'], batch['action'])
  target = [
    batch['reward'][n] + batch['discount'][n] * min(after[0, n], after[1, n])
    for n in range(len(batch['reward']))
  ]
  error = [
    [(q[i, n] - target[n]) ** 2 for n in range(len(target))] for i in (0, 1)
  ]
  return np.array(target), np.array(error), q


def test_critic_loss(ends):
  agent = ends[0]
  batch = transitions(agent)
  loss, metrics = agent.behavior.critic_loss(batch, SEED)
  target, error, q = naive_critic_error(agent, batch)
  valid = [n for n in range(12) if batch['mask'][n]]
  total = sum(error[i, n] for i in (0, 1) for n in valid) / len(valid)
  np.testing.assert_allclose(loss, total, rtol=1e-3)
  for name, part in (
    ('data', [n for n in valid if n < 6]),
    ('model', [n for n in valid if n >= 6]),
  ):
    for key, true in (
      ('loss', error[:, part].sum(0).mean()),
      ('q', q[:, part].mean()),
      ('target', target[part].mean()),
    ):
      found = metrics[f'critic_{name}_{key}']
      np.testing.assert_allclose(found, true, 1e-3, 1e-4)


def test_actor_loss(ends):
  agent = ends[0]
  batch = transitions(agent)
  feat, mask = batch['feat'].numpy(), batch['mask'].numpy()
  q = naive_q(agent, 'online', feat, act(agent, feat))
  assert len(set(np.argmin(q, 0))) == 2
  total = sum(min(q[0, n], q[1, n]) for n in range(12) if mask[n]) / sum(mask)
  np.testing.assert_allclose(agent.behavior.actor_loss(batch), -total, 1e-3)


@pytest.mark.parametrize('states', ['latent', 'all'])
def test_conservative_loss(states):
  agent = latent_agent('combo', combo__states=states, combo__actions=4)
  batch = transitions(agent)
  loss, metrics = agent.behavior.critic_loss(batch, SEED)
  _, error, q = naive_critic_error(agent, batch)
  mask, first = batch['mask'].numpy(), 0 if states == 'all' else 6
  feat = batch['feat'].numpy()[first:]
  drawn = 2 * uniform([4, len(feat), 2], SEED).numpy() - 1
  assert drawn.min() < -0.5 and drawn.max() > 0.5
  gap = 0.0
  for i in (0, 1):
    high = []
    for n in range(len(feat)):
      if mask[first + n]:
        actions = [*drawn[:, n], act(agent, feat[n])]
        values = [naive_q(agent, 'online', feat[n], a)[i] for a in actions]
        high.append(np.log(sum(np.exp(values))))
    low = [q[i, n] for n in range(6) if mask[n]]
    gap += np.mean(high) - np.mean(low)
  np.testing.assert_allclose(metrics['critic_gap'], gap, 1e-3)
  found = metrics['critic_conservative_loss']
  np.testing.assert_allclose(found, 2.5 * gap, 1e-3)
  valid = mask > 0
  squared = error[:, valid].sum(0).mean()
  np.testing.assert_allclose(loss, squared + 2.5 * gap, 1e-3)


def test_soft_maximum_weighs_by_densities():
  """Drawn from any density, it estimates log of the integral of exp(Q)."""
  rng = np.random.default_rng(0)
  q, log_density = rng.normal(size=(2, 5, 3)), rng.normal(size=(5, 3))
  found = soft_maximum(tf.constant(q), tf.constant(log_density))
  for i in range(2):
    for n in range(3):
      terms = [np.exp(q[i, k, n]) / np.exp(log_density[k, n]) for k in range(5)]
      np.testing.assert_allclose(found[i, n], np.log(sum(terms)))
  draws = rng.normal(0, 1, (200_000, 1))
  density = -0.5 * draws**2 - 0.5 * np.log(2 * np.pi)
  values = -0.5 * (draws - 0.3) ** 2
  estimate = soft_maximum(tf.constant(values), tf.constant(density))
  estimate = estimate.numpy()[0] - np.log(200_000)
  np.testing.assert_allclose(estimate, 0.5 * np.log(2 * np.pi), atol=0.01)


@pytest.mark.parametrize('method', METHODS)
def test_gradients_of_losses(method):
  """Of the critics' loss only for the critics, and so on."""
  agent = latent_agent(method)
  behavior, batch = agent.behavior, transitions(agent)
  parts = {
    'actor': behavior.actor.variables,
    'critics': behavior.critics.online.variables,
    'target': behavior.critics._target.variables,
    'model': agent.model.variables,
  }

  def learns(loss):
    with tf.GradientTape(persistent=True) as tape:
      value = loss()
    grads = {k: tape.gradient(value, v) for k, v in parts.items()}
    moved = lambda g: g is not None and np.any(g)
    return {k for k, v in grads.items() if any(map(moved, v))}

  assert learns(lambda: behavior.critic_loss(batch, SEED)[0]) == {'critics'}
  assert learns(lambda: behavior.actor_loss(batch)) == {'actor', 'critics'}
