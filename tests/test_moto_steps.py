"""MOTO: whole gradient steps, and what they may move."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  ACT,
  SPACES,
  STILL,
  changed,
  make_agent,
  make_batch,
  snapshot,
  tiny_config,
)
from moto_naive import (
  SEED,
  actor_gradient,
  fresh,
  norm_of,
  posterior,
)

from moto_tf.agents import moto
from moto_tf.model.world_model import WorldModel
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import make_seed

# Whole gradient steps


class Spy(moto.MOTO):
  """Keeps what the parts of a gradient step are given."""

  def imagine(self, start, seed):
    self.start = start
    return super().imagine(start, seed)

  def actor_loss(self, seq, post, data, share):
    self.post = post
    return super().actor_loss(seq, post, data, share)

  def critic_loss(self, seq, real):
    self.seq, self.real = seq, real
    return super().critic_loss(seq, real)


def test_train_starts():
  """Rollouts start at s' of the transitions that L_data uses, unpenalised."""
  agent = fresh(moto__alpha=1000, moto__start_states=7)
  batch = make_batch(tiny_config(), firsts=((0, 3),))
  post, data = posterior(agent, batch)
  spy = Spy(
    tiny_config(moto__alpha=1000, moto__start_states=7),
    agent.model,
    2,
    Layers(0),
  )
  spy.train(post, data, SEED)
  assert spy.start is spy.real['next'] and spy.post is post
  assert spy.real['mask'].shape == 7
  feats = {
    tuple(post['feat'][b, i].numpy()): (b, i)
    for b in range(3)
    for i in range(6)
  }
  for n in range(7):
    b, i = feats[tuple(spy.real['feat'][n].numpy())]
    assert not batch['is_first'][b, i + 1]
    assert spy.real['reward'][n] == batch['reward'][b, i + 1]
    np.testing.assert_array_equal(spy.seq['feat'][0, n], post['feat'][b, i + 1])
  assert np.mean(spy.seq['reward']) < -10  # Imagined ones are penalised.


def test_all_start_states():
  agent = fresh(moto__start_states=0)
  post, data = posterior(agent, make_batch(tiny_config()))
  spy = Spy(tiny_config(moto__start_states=0), agent.model, 2, Layers(0))
  metrics = spy.train(post, data, SEED)
  assert spy.seq['feat'].shape[:2] == (4, 15)
  assert all(np.isfinite(x) for x in metrics.values())


@pytest.mark.parametrize(
  'settings, moved',
  [
    ({'critic_opt__lr': STILL, 'critic_opt__wd': 0.0}, {'actor'}),
    ({'actor_opt__lr': STILL, 'actor_opt__wd': 0.0}, {'critics/online'}),
    ({}, {'actor', 'critics/online'}),
  ],
)
def test_train_moves(settings, moved):
  """Each loss moves its own network; neither moves the world model."""
  agent = fresh(slow_target_update=100, **settings)
  post, data = posterior(agent, make_batch(tiny_config()))
  agent.behavior.train(post, data, SEED)  # The first one copies the targets.
  before = snapshot(agent)
  agent.behavior.train(post, data, SEED)
  assert changed(agent, before) == moved | {'critics/updates'}


def test_model_train_moves():
  agent = fresh()
  _, data = posterior(agent, make_batch(tiny_config()))
  before = snapshot(agent)
  post, _ = agent.model.train(data, SEED)
  assert changed(agent, before) == {'model'}
  for value in post.values():
    assert not value.dtype.is_floating or value.shape[:2] == (3, 6)


def test_train_actor_gradient():
  """The applied gradient is that of the actor loss and nothing else."""
  agent = fresh(moto__start_states=0)
  post, data = posterior(agent, make_batch(tiny_config()))
  config = tiny_config(moto__start_states=0)
  spy = Spy(config, agent.model, 2, Layers(0))
  for mine, other in zip(
    spy.actor.variables + spy.critics.variables,
    agent.behavior.actor.variables + agent.behavior.critics.variables,
    strict=True,
  ):
    mine.assign(other)
  before = [v.numpy() for v in spy.actor.variables]
  metrics = spy.train(post, data, SEED)
  seq = {k: tf.constant(v.numpy()) for k, v in spy.seq.items()}
  # The same rollout again, with the actor and critics of before.
  _, imagine_seed = moto.split(SEED, 2)
  behavior = agent.behavior
  with tf.GradientTape() as tape:
    again = behavior.imagine(spy.start, imagine_seed)
    loss, _ = behavior.actor_loss(again, post, data)
  grads = tape.gradient(loss, behavior.actor.variables)
  np.testing.assert_allclose(again['feat'], seq['feat'], atol=1e-5)
  np.testing.assert_allclose(metrics['actor_loss'], loss, rtol=1e-4)
  norm = norm_of([g.numpy() for g in grads])
  np.testing.assert_allclose(metrics['actor_grad_norm'], norm, rtol=1e-3)
  for var, old, grad in zip(spy.actor.variables, before, grads, strict=True):
    step = var.numpy() - old * (1 - config.actor_opt.wd)
    large = np.abs(grad) > 1e-3
    assert large.any()
    np.testing.assert_array_equal(
      np.sign(step[large]), -np.sign(grad.numpy()[large])
    )


@pytest.mark.parametrize('share', [1.0, 0.25])
def test_target_update(share):
  """Targets copy the critics at steps 0, 3, 6; a share of them after 0."""
  agent = fresh(
    horizon=1,
    moto__start_states=2,
    slow_target_update=3,
    slow_target_fraction=share,
    critic_opt__lr=1e-2,
  )
  post, data = posterior(agent, make_batch(tiny_config()))
  part = lambda name: {
    k.removeprefix(f'critics/{name}/'): v
    for k, v in agent.save().items()
    if k.startswith(f'critics/{name}/')
  }
  for step in range(7):
    before = part('target')
    agent.behavior.train(post, data, SEED)
    online, target = part('online'), part('target')
    mix = 1.0 if step == 0 else share if step % 3 == 0 else 0.0
    for key in target:
      assert np.any(online[key] != before[key])
      np.testing.assert_allclose(
        target[key], mix * online[key] + (1 - mix) * before[key], rtol=1e-5,
        atol=1e-7,
      )  # fmt: skip


def test_targets_start_equal():
  state = make_agent(tiny_config()).save()
  for key, value in state.items():
    if key.startswith('critics/online/'):
      other = state[key.replace('online', 'target')]
      np.testing.assert_array_equal(value, other)
      assert 'kernel' not in key or np.any(value[0] != value[1])


def test_all_members_learn():
  """Over some steps the KL reaches every prior head."""
  agent = fresh(model_opt__wd=0.0)
  _, data = posterior(agent, make_batch(tiny_config()))
  kernel = agent.variables()['model/rssm/prior/kernel/1']
  before = kernel.numpy()
  for step in range(4):
    agent.model.train(data, tf.constant([step, 9]))
  assert np.all(np.any(kernel.numpy() != before, (1, 2)))


@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_mixed_precision(precision):
  """Losses in half precision are those of float32, to its accuracy."""
  results = []
  for setting in ('float32', precision):
    agent = make_agent(tiny_config(precision=setting))
    results.append(agent.train(make_batch(tiny_config()), 0))
  single, half = results
  for key, value in single.items():
    if key.endswith('_loss'):
      np.testing.assert_allclose(half[key], value, rtol=0.05, err_msg=key)


def test_the_forms_for_cpu_change_nothing():
  """Losses and gradient norms of some steps, each on what came before."""
  config = tiny_config(
    **{f'{name}__norm': 'layer' for name in ('encoder', 'decoder', 'rssm')}
  )
  shapes, results = {k: v.shape for k, v in SPACES.items()}, []
  for cpu in (False, True):
    layers = Layers(0, cpu=cpu)
    model = WorldModel(config, shapes, ACT.shape[0], layers)
    behavior = moto.MOTO(config, model, ACT.shape[0], layers)
    metrics = {}
    for step in range(3):
      batch = make_batch(config, step, firsts=((0, 3),))
      data = {k: tf.constant(v) for k, v in batch.items()}
      seeds = [tf.constant(make_seed(k, step)) for k in (1, 2)]
      post, mets = model.train(model.preprocess(data), seeds[0])
      mets.update(behavior.train(post, model.preprocess(data), seeds[1]))
      metrics.update({f'{step}/{k}': float(v) for k, v in mets.items()})
    results.append(metrics)
  assert results[1] == pytest.approx(results[0], rel=1e-4, abs=1e-6)


def test_no_cloning():
  """With beta = 0 demonstrations do not reach the actor."""
  grads = []
  for success in (0.0, 1.0):
    agent = fresh(moto__beta=0)
    batch = make_batch(tiny_config(), success=success)
    grads.append(actor_gradient(agent, *posterior(agent, batch)))
  assert norm_of(grads[0]) > 0
  for a, b in zip(*grads, strict=True):
    np.testing.assert_array_equal(a, b)
