"""LOMPO and COMBO: gradient steps, who learns when, acting, and settings."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from helpers import changed, make_batch, snapshot, tiny_config
from latent_helpers import METHODS, SEED, act, latent_agent, latent_config
from moto_naive import posterior
from test_metrics_page import unexplained

from moto_tf.nn.tfutils import split, uniform
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

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
  metrics = behavior.train(behavior.sample(SEED, now)[0], SEED)
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
  assert tracings == [1, 0, 1, 1, 1]


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
