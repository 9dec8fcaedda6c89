"""LOMPO and COMBO: losses and targets against loops, and who learns when."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from helpers import (
  changed,
  make_batch,
  naive_mlp,
  naive_stack,
  snapshot,
  tiny_config,
)
from latent_helpers import METHODS, latent_agent, latent_config
from moto_naive import naive_q, posterior
from test_metrics_page import unexplained

from moto_tf.agents import latent_agent as shared
from moto_tf.agents.conservative import soft_maximum
from moto_tf.nn.tfutils import make_seed, split, uniform
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

GAMMA = 0.99
SEED = tf.constant(make_seed(7))
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


def act(agent, feat):
  """What the policy does without noise."""
  return np.tanh(naive_mlp(agent.save(), 'actor/mlp', np.asarray(feat)))


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


# A gradient step


def fill(agent):
  post, data = posterior(agent, make_batch(tiny_config()))
  agent.behavior.add(post, data, SEED, tf.constant(0, tf.int64))


@pytest.mark.parametrize('method', METHODS)
def test_a_step_of_the_policy(method):
  """Both gradients are of the weights before, and targets follow slowly."""
  agent = latent_agent(method)
  behavior = agent.behavior
  fill(agent)
  now, seeds = tf.constant(4, tf.int64), split(SEED, 2)
  batch, _ = behavior.buffer.sample(seeds[0], now)
  nets = behavior.actor, behavior.critics.online
  with tf.GradientTape(persistent=True) as tape:
    actor_loss = behavior.actor_loss(batch)
    critic_loss = behavior.critic_loss(batch, seeds[1])[0]
  expected = [
    tape.gradient(loss, net.named_variables())
    for loss, net in zip((actor_loss, critic_loss), nets, strict=True)
  ]
  behavior.critics._updates.assign(1)  # The first one copies.
  before = snapshot(agent)
  metrics = behavior.train(SEED, now)
  np.testing.assert_allclose(metrics['actor_loss'], actor_loss, 1e-5)
  np.testing.assert_allclose(metrics['critic_loss'], critic_loss, 1e-5)
  assert changed(agent, before) == {
    *('actor', 'critics/online', 'critics/target', 'critics/updates')
  }
  arrays = agent.save()
  for name, grads in zip(('actor', 'critic'), expected, strict=True):
    norm = np.sqrt(sum(np.sum(g.numpy() ** 2) for g in grads.values()))
    np.testing.assert_allclose(metrics[f'{name}_grad_norm'], norm, 1e-4)
    for key, grad in grads.items():
      key = key if name == 'actor' else f'online/{key}'
      mean = arrays[f'{name}_opt/mean/{key}']
      clipped = grad.numpy() * min(1, 100 / norm)
      np.testing.assert_allclose(mean, 0.1 * clipped, 1e-3, 1e-6)
  for key in before:
    if key.startswith('critics/target'):
      online = key.replace('target', 'online')
      mixed = 0.995 * before[key] + 0.005 * arrays[online]
      np.testing.assert_allclose(arrays[key], mixed, 1e-5, 1e-6)


def test_what_learns_when():
  """Model first, policy then, both online; additions at every second step."""
  agent = latent_agent(offline_steps=4)
  policy = {'actor', *(f'critics/{x}' for x in ('online', 'target', 'updates'))}
  batch = make_batch(latent_config())
  for number in range(6):
    before = snapshot(agent)
    metrics = agent.train(batch, number)
    expected = set()
    if number < 2 or number >= 4:
      expected |= {'model'}
    if number >= 2:
      expected |= policy
    added = number >= 2 and number % 2 == 0
    if added:
      expected |= {'buffer'}
    assert changed(agent, before) == expected, number
    assert ('model_loss' in metrics) == ('model' in expected)
    assert ('actor_loss' in metrics) == ('actor' in expected)
    assert ('imag_penalty' in metrics) == added
  assert agent.remarks == [
    'Of 4 offline steps, the first 2 train the model alone, the others the '
    'policy alone.'
  ]


def test_compiled_and_in_half_precision():
  """As a graph the same numbers; in float16 no step fails."""
  batches = [make_batch(latent_config('combo'), i) for i in range(3)]
  eager = latent_agent('combo', offline_steps=0)
  half = latent_agent('combo', offline_steps=0, precision='mixed_float16')
  # Functions run eagerly, or not, for all agents at once.
  expected = [eager.train(batch, i) for i, batch in enumerate(batches)]
  found = [half.train(batch, i) for i, batch in enumerate(batches)]
  assert all(np.isfinite(list(x.values())).all() for x in found)
  assert {'critic_skipped', 'model_loss_scale'} <= found[0].keys()
  graph = latent_agent('combo', offline_steps=0, eager=False)
  for number, batch in enumerate(batches):
    metrics = graph.train(batch, number)
    for key, value in expected[number].items():
      np.testing.assert_allclose(metrics[key], value, 2e-3, 1e-3, err_msg=key)
  names = [name for name, _, _ in graph.traces(batches[0])]
  assert names == ['model', 'behavior']
  tracings = [
    f.experimental_get_tracing_count() for f in (graph.functions.values())
  ]
  assert tracings == [1, 0, 1, 1]


# Acting


def observation(count, seed=0):
  batch = make_batch(tiny_config(replay__batch=count), seed)
  return {k: batch[k][:, 0] for k in ('image', 'state', 'is_first')}


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_noise_while_collecting_only(scale):
  agent = latent_agent(collect_std=scale)
  feat = np.random.default_rng(0).normal(size=(50, agent.model.feat))
  feat = feat.astype(np.float32)
  noise = uniform([50, 2], SEED)
  mean = act(agent, feat)
  found = agent.act(feat, noise, 'train')
  noisy = mean + 0.2 * scipy.special.ndtri(noise)
  expected = mean + scale * (np.clip(noisy, -1, 1) - mean)
  np.testing.assert_allclose(found, expected, 1e-3, 1e-4)
  assert np.abs(noisy).max() > 1
  np.testing.assert_allclose(agent.act(feat, noise, 'eval'), mean, 1e-3, 1e-4)
  obs, lanes = observation(2), (np.arange(2), np.zeros(2, int))
  one, _ = agent.policy(obs, None, lanes, 'train')
  two, _ = agent.policy(obs, None, lanes, 'eval')
  assert np.all(one != two) and one.shape == (2, 2)


@pytest.mark.parametrize('method', METHODS)
def test_values_report_and_average(method):
  """Also that docs/metrics.md explains all of it."""
  agent = latent_agent(method, policy_average=0.5, offline_steps=0)
  batch = make_batch(latent_config())
  names = [f'train/{x}' for x in agent.train(batch, 0)]
  episode = {k: v[0] for k, v in batch.items()}
  values = agent.assess([episode])
  assert np.isfinite(list(values.values())).all()
  assert values.keys() >= {'value_predicted', 'value_real', 'overestimation'}
  report, _ = agent.report([batch], 0)
  contrast = {'penalty_recorded', 'penalty_negated'}
  assert contrast & report.keys() == (contrast if method == 'lompo' else set())
  names += [f'eval/{x}' for x in values] + [f'report/{x}' for x in report]
  assert not unexplained(names)
  action, _ = agent.policy(observation(2), None, (np.arange(2),) * 2)
  assert action.shape == (2, 2)
  average = {k for k in agent.variables() if k.startswith('average/actor/')}
  assert len(average) == len(agent.behavior.actor.variables)


@pytest.mark.parametrize('method', METHODS)
def test_the_policy_never_learns_from_empty_buffers(method):
  """As where a run goes on with fewer offline steps for the model."""
  agent, batch = latent_agent(method), make_batch(latent_config(method))
  for step in (5, 6, 7):  # Of 4 that train the model alone, none was made.
    metrics = agent.train(batch, step)
    assert ('real_age' in metrics) and int(agent.behavior.buffer.real.held)
  assert agent.behavior.buffer.real._written == 2 * batch['reward'].shape[0]


# Settings


def test_buffers_turn_over_alike_in_both_sizes():
  """Whatever is in them is as old, in gradient steps."""
  lasts = []
  for names in (('latent_paper',), ('small',)):
    config = make_config('metaworld', *names, 'lompo')
    starts = config.replay.batch * (config.replay.length - 1)
    for added in (starts, starts * config.horizon):
      additions = config.latent.capacity / added
      lasts.append(additions * config.latent.add_every)
  np.testing.assert_allclose(lasts[:2], lasts[2:], rtol=0.05)


def test_presets_compose():
  for method in METHODS:
    for names in (
      ('metaworld', 'small', 'short', 'proprio'),
      ('kitchen', 'latent_paper'),
      ('debug',),
    ):
      config = make_config(*names, method)
      assert (config.rssm.deter, config.rssm.stoch) == (256, 64)
      assert (config.rssm.discrete, config.rssm.ensemble) == (
        0,
        (3 if names == ('debug',) else 7),
      )
      assert config.model_opt.lr == 6e-4
      assert config.actor_opt.lr == config.critic_opt.lr == 3e-4
      assert (config.kl.balance, config.kl.free, config.horizon) == (0.5, 0, 5)
      assert config.actor.layers == (256,) * 4
      assert config.critic.layers == (256,) * 3
      assert config.reward_head.layers == (256,) * 2
  paper = make_config('metaworld', 'latent_paper', 'lompo')
  assert (paper.replay.batch, paper.latent.batch) == (64, 256)
  assert (paper.lompo.lmbd, paper.combo.conservatism) == (5, 2.5)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'latent.capacity': 100}, 'fewer than the 4000 .* at least 4000'),
    ({'latent.capacity': 100, 'latent.start_states': 1}, 'than the 784 that'),
    ({'latent.start_states': 801}, 'more than .* = 800 states'),
    ({'rssm.discrete': 4}, 'rssm.discrete: 4 is not LOMPO'),
    ({'discount_lambda': 0.5}, 'no effect on lompo'),
    ({'combo.actions': 3}, 'no effect on lompo'),
    ({'moto.alpha': 3}, 'no effect on lompo'),
    ({'latent.model_share': 1.5}, 'from 0 to 1'),
    ({'latent.batch': 0}, 'at least 1'),
  ],
)
def test_what_cannot_be(settings, message):
  with pytest.raises(ConfigError, match=message):
    make_config('lompo', settings)


def test_what_has_no_effect_on_others():
  with pytest.raises(ConfigError, match='latent.noise has no effect on moto'):
    make_config({'latent.noise': 0.1})
