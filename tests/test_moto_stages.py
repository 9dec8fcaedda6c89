"""MOTO: what is trained when, and the weights that act."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  changed,
  make_agent,
  make_batch,
  randomize,
  snapshot,
  tiny_config,
)
from moto_naive import SEED, fresh, norm_of, posterior, rollout

from moto_tf.agents import moto
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError


@pytest.mark.parametrize(
  'critic, model, expected',
  [
    (0, 0, ['train'] * 6),
    (0, 2, ['train_critics'] * 2 + ['train'] * 4),
    (1, 4, ['clone', *['train_critics'] * 3, 'train', 'train']),
    (3, 3, ['clone'] * 3 + ['train'] * 3),
    (5, 3, ['clone'] * 3 + ['train'] * 3),
  ],
)
def test_parts(critic, model, expected):
  agent = fresh(moto__critic_start=critic, moto__model_start=model)
  assert [agent.behavior.part(i) for i in range(6)] == expected


def test_nothing_to_clone():
  with pytest.raises(ConfigError, match='model_start: .* only clones'):
    make_config({'moto.beta': 0.0, 'moto.model_start': 3})


@pytest.mark.parametrize(
  'part, moved',
  [
    ('clone', {'actor'}),
    ('train_critics', {'actor', 'critics/online', 'critics/updates'}),
  ],
)
def test_a_part_moves_its_own(part, moved):
  """Until values count, the actor's gradient is that of cloning alone."""
  agent = fresh()
  post, data = posterior(agent, make_batch(tiny_config()))
  agent.behavior.train(post, data, SEED)  # The first one copies the targets.
  behavior = agent.behavior
  with tf.GradientTape() as tape:
    loss, _ = moto.clone_loss(behavior.actor, post['feat'], data)
    total = 10 * loss
  grads = tape.gradient(total, behavior.actor.variables)
  before = snapshot(agent)
  metrics = getattr(behavior, part)(post, data, SEED)
  assert changed(agent, before) == moved
  norm = norm_of([g.numpy() for g in grads])
  np.testing.assert_allclose(metrics['actor_grad_norm'], norm, rtol=1e-3)
  np.testing.assert_allclose(metrics['actor_bc_loss'], loss, rtol=1e-4)


def test_critics_learn_the_same_from_either_part():
  """They see the rollouts they would see if the actor used them too."""
  both = []
  for part in ('train_critics', 'train'):
    agent = fresh()
    post, data = posterior(agent, make_batch(tiny_config()))
    both.append(getattr(agent.behavior, part)(post, data, SEED))
  for key in ('critic_model_loss', 'critic_data_loss', 'critic_grad_norm'):
    np.testing.assert_allclose(both[0][key], both[1][key], rtol=1e-4)


def test_the_agent_trains_the_part_of_its_step():
  agent = make_agent(tiny_config(moto__critic_start=1, moto__model_start=2))
  batch = make_batch(tiny_config())
  seen = []
  for step in range(3):
    before = snapshot(agent)
    metrics = agent.train(batch, step)
    moved = {name.split('/')[0] for name in changed(agent, before)}
    seen.append((moved, 'imag_value' in metrics))
  assert seen == [
    ({'model', 'actor'}, False),
    ({'model', 'actor', 'critics'}, False),
    ({'model', 'actor', 'critics'}, True),
  ]


@pytest.mark.parametrize('critic, model', [(0, 0), (2, 5), (5, 3)])
def test_the_weight_of_values_grows(critic, model):
  """From 0 at model_start by 1 / model_ramp per step, to 1; theirs alone."""
  agent = fresh(
    moto__critic_start=critic,
    moto__model_start=model,
    moto__model_ramp=4,
    actor_ent=0.3,
  )
  behavior = agent.behavior
  post, data = posterior(agent, make_batch(tiny_config()))
  seq = rollout(agent)
  cloning, _ = moto.clone_loss(behavior.actor, post['feat'], data)
  entropy = behavior.actor.dist(seq['policy'][:-1]).entropy()
  bonus = 0.3 * tf.reduce_mean(seq['weight'] * entropy)
  found = []
  for step in range(12):
    if step >= model:
      loss, mets = behavior.actor_loss(seq, post, data, behavior.share(step))
      # Neither cloning nor the entropy waits for the values.
      values = loss - 10 * cloning + bonus
      found.append(float(values / mets['actor_model_loss']))
  assert abs(bonus / mets['actor_model_loss']) > 0.01
  expected = [min(i / 4, 1) for i in range(len(found))]
  np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_weight_follows_the_step_where_settings_change():
  """In a run that is continued, its critics may be older or younger."""
  stages = dict(moto__critic_start=1, moto__model_start=2, moto__model_ramp=4)
  agent = make_agent(tiny_config(**stages))
  batch = make_batch(tiny_config())
  found = [agent.train(batch, i)['actor_model_weight'] for i in (2, 3, 5, 9)]
  assert found == [0, 0.25, 0.75, 1]
  assert 'actor_model_weight' not in agent.train(batch, 1)


def test_collecting_with_less_noise_keeps_the_mean():
  """Also near the bounds, where the mode of the policy is not its mean."""
  agent = make_agent(tiny_config(collect_std=0.25))
  randomize(agent)
  rng = np.random.default_rng(0)
  feat = tf.constant(3 * rng.normal(size=(4, agent.model.feat)), tf.float32)
  dist = agent.behavior.actor(feat)
  mean, mode = dist.mean().numpy(), dist.mode().numpy()
  assert np.abs(mean - mode).max() > 0.05
  feats = tf.repeat(feat[:, None], 4000, 1)
  noise = tf.constant(rng.uniform(1e-4, 1 - 1e-4, (4, 4000, 2)), tf.float32)
  found = agent.act(feats, noise, 'train').numpy()
  np.testing.assert_allclose(found.mean(1), mean, atol=0.02)
  plain = agent.behavior.actor(feats).sample(noise=noise).numpy()
  np.testing.assert_allclose(found.std(1), 0.25 * plain.std(1), 0.01)
  assert np.abs(found).max() <= 1
  np.testing.assert_allclose(agent.act(feat, noise[:, 0], 'eval'), mean)


def test_averaged_weights_act():
  """Copies are the running average, of what acts alone, and are saved."""
  settings = {'policy_average': 0.9}
  agent = make_agent(tiny_config(**settings))
  plain = make_agent(tiny_config())
  batch = make_batch(tiny_config())
  names = ('model/encoder/', 'model/rssm/', 'actor/')
  weights = lambda a: {
    k: v.numpy() for k, v in a.variables().items() if k.startswith(names)
  }
  average = weights(agent)
  for n in range(20):
    metrics = agent.train(batch, n)
    assert metrics == plain.train(batch, n)
    share = max(0.1, 9 / (10 + n))
    for key, value in weights(agent).items():
      average[key] = average[key] + share * (value - average[key])
  saved = agent.save()
  copies = {
    f'average/{k.removeprefix("model/")}': v for k, v in average.items()
  }
  assert copies.keys() == {k for k in saved if k.startswith('average/')} - {
    'average/updates'
  }
  for key, value in copies.items():
    np.testing.assert_allclose(saved[key], value, atol=1e-5)
  obs = {k: batch[k][:, 0] for k in ('image', 'is_first')}
  lanes = np.arange(3), np.zeros(3, int)
  action, _ = agent.policy(obs, None, lanes, 'eval')
  newest, _ = plain.policy(obs, None, lanes, 'eval')
  assert np.abs(action - newest).max() > 1e-4
  for name in names:
    for key, var in plain.variables().items():
      if key.startswith(name):
        var.assign(saved[f'average/{key.removeprefix("model/")}'])
  expected, _ = plain.policy(obs, None, lanes, 'eval')
  np.testing.assert_allclose(action, expected, atol=1e-6)
  other = make_agent(tiny_config(**settings))
  other.load(saved, policy_only=True)
  again, _ = other.policy(obs, None, lanes, 'eval')
  np.testing.assert_array_equal(action, again)
