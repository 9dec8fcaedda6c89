"""The recurrent model: posterior states against a loop of plain operations."""

import numpy as np
import pytest
import tensorflow as tf
from net_helpers import normal
from plain import TOLERANCE, assert_near, evaluate
from rssm_naive import (
  BATCH,
  SEED,
  STEPS,
  NaiveRSSM,
  assert_close,
  make_inputs,
  make_rssm,
  observe,
  posterior_noise,
)

from moto_tf.nn.tfutils import gumbel


@pytest.mark.parametrize('norm', ['none', 'layer'])
def test_observe_matches_a_naive_loop(norm):
  rssm = make_rssm(norm=norm)
  inputs = make_inputs([(1, 3), (2, 5)])
  expected = NaiveRSSM(rssm, norm).observe(*inputs, posterior_noise())
  result = observe(rssm, inputs)
  assert result['deter'].shape == (BATCH, STEPS, 8)
  assert result['stoch'].shape == result['logit'].shape == (BATCH, STEPS, 3, 4)
  assert_close(result, expected)
  assert np.abs(result['deter'][:, -1]).max() > 0.1


def observe_and_gradients(rssm, norm, mode, steps=STEPS):
  """By the model and by the naive loop: states, gradients, in that order.

  The gradients are those of the embeddings, the actions and all weights.
  """
  inputs = make_inputs([(1, 3), (2, 5), (2, 1)])
  embed, action, is_first = (x[:, :steps] for x in inputs)
  noise = gumbel([steps, BATCH, 3, 4], SEED)
  naive = NaiveRSSM(rssm, norm)

  def own(embed, action):
    return rssm.observe(embed, action, tf.constant(is_first), tf.constant(SEED))

  def plain(embed, action):
    return naive.observe(embed, action, is_first, noise)

  inputs = [embed, action], rssm.variables
  return evaluate(own, *inputs, mode), evaluate(plain, *inputs)


@pytest.mark.parametrize('mode', ['eager', 'graph'])
@pytest.mark.parametrize('norm', ['none', 'layer'])
def test_gradient_of_observe(norm, mode):
  rssm = make_rssm(norm=norm)
  results, expected = observe_and_gradients(rssm, norm, mode)
  assert_near(results, expected)
  weights = zip(rssm.named_variables(), expected[5:], strict=True)
  still = {k.split('/')[0] for k, grad in weights if not grad.any()}
  assert still == {'prior'}


def test_gradient_of_observe_with_xla():
  results = observe_and_gradients(make_rssm(), 'none', 'xla', steps=2)
  assert_near(*results)


@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_gradient_of_observe_in_low_precision(precision):
  rssm = make_rssm(norm='layer', precision=precision)
  results, expected = observe_and_gradients(rssm, 'layer', 'eager')
  # Else no comparison makes sense: a sample that flips changes what follows.
  np.testing.assert_allclose(results[2], expected[2], atol=1e-6)
  assert_near(results, expected, TOLERANCE[rssm._dtype.name])


@pytest.mark.parametrize('precision', ['float32', 'mixed_float16'])
def test_observe_equals_repeated_steps(precision):
  rssm = make_rssm(precision=precision)
  embed, action, is_first = inputs = make_inputs([(1, 3)])
  noise, state, states = posterior_noise(), rssm.initial(BATCH), []
  for t in range(STEPS):
    state = rssm.obs_step(
      state,
      tf.constant(action[:, t]),
      tf.constant(embed[:, t]),
      tf.constant(is_first[:, t]),
      tf.constant(noise[t]),
    )
    states.append(state)
  steps = {
    k: np.stack([s[k].numpy().astype(np.float32) for s in states], 1)
    for k in state
  }
  tolerance = 1e-5 if precision == 'float32' else 2e-2
  assert_close(observe(rssm, inputs), steps, tolerance)


@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_low_precision_is_near_float32(precision):
  inputs = make_inputs([(1, 3)])
  full = observe(make_rssm(), inputs)
  rssm = make_rssm(precision=precision)
  low = observe(rssm, inputs)
  tolerance = 0.01 if precision == 'mixed_float16' else 0.1
  # A sample that flips changes all that follows, so compare the first step.
  for key in ('deter', 'logit'):
    np.testing.assert_allclose(low[key][:, 0], full[key][:, 0], atol=tolerance)
  state = rssm.observe(*map(tf.constant, inputs), tf.constant(SEED))
  assert state['deter'].dtype == state['stoch'].dtype == rssm._dtype
  assert state['logit'].dtype == tf.float32
  initial = rssm.initial(1)
  assert {k: v.dtype for k, v in initial.items()} == {
    k: v.dtype for k, v in state.items()
  }


def test_is_first_starts_anew():
  """What follows a boundary equals a sequence of its own."""
  rssm = make_rssm()
  embed, action, is_first = make_inputs([(b, 3) for b in range(BATCH)])
  result = observe(rssm, (embed, action, is_first))
  fresh = NaiveRSSM(rssm, 'none').observe(
    *(x[:, 3:] for x in (embed, action, is_first)), posterior_noise()[3:]
  )
  assert_close({k: v[:, 3:] for k, v in result.items()}, fresh)
  # Neither the past nor the action at the boundary matters.
  embed, action = embed.copy(), action.copy()
  embed[:, :3] += 5
  action[:, :4] -= 5
  other = observe(rssm, (embed, action, is_first))
  assert_close(*({k: v[:, 3:] for k, v in x.items()} for x in (result, other)))
  assert not np.allclose(result['deter'][:, 2], other['deter'][:, 2])
  # Without the boundary both do.
  is_first[:, 3] = 0
  other = observe(rssm, (embed, action, is_first))
  assert not np.allclose(result['deter'][:, 3], other['deter'][:, 3])


def test_the_action_leads_into_its_own_step():
  rssm = make_rssm()
  embed, action, is_first = make_inputs()
  result = observe(rssm, (embed, action, is_first))
  changed = action.copy()
  changed[:, 4] += 1
  other = observe(rssm, (embed, changed, is_first))
  np.testing.assert_array_equal(result['deter'][:, :4], other['deter'][:, :4])
  assert np.abs(result['deter'][:, 4] - other['deter'][:, 4]).min() > 0


def test_posterior_does_not_depend_on_the_prior_heads():
  rssm = make_rssm()
  inputs = make_inputs()
  before = observe(rssm, inputs)
  with tf.GradientTape() as tape:
    state = rssm.observe(*map(tf.constant, inputs), tf.constant(SEED))
    loss = tf.reduce_sum(state['logit']) + tf.reduce_sum(state['deter'])
  assert tape.gradient(loss, rssm.prior.variables) == [None] * 4
  for var in rssm.prior.variables:
    var.assign_add(normal(var.shape))
  after = observe(rssm, inputs)
  for key in before:
    np.testing.assert_array_equal(before[key], after[key])


def test_features_are_stoch_then_deter():
  rssm = make_rssm()
  state = {
    'stoch': tf.constant(normal([2, 5, 3, 4])),
    'deter': tf.constant(normal([2, 5, 8], 1)),
  }
  feat = rssm.get_feat(state)
  assert feat.shape == (2, 5, rssm.feat) == (2, 5, 20)
  expected = np.concatenate(
    [state['stoch'].numpy().reshape([2, 5, 12]), state['deter']], -1
  )
  np.testing.assert_array_equal(feat, expected)


def test_gradient_of_features_reaches_embeddings_through_samples():
  """Straight-through: an early image matters for later samples."""
  rssm = make_rssm()
  embed, action, is_first = map(tf.constant, make_inputs([(1, 3)]))
  with tf.GradientTape() as tape:
    tape.watch(embed)
    state = rssm.observe(embed, action, is_first, tf.constant(SEED))
    loss = tf.reduce_sum(rssm.get_feat(state)[:, -1] ** 2)
  grad = np.abs(tape.gradient(loss, embed)).max(-1)
  assert (grad[[0, 2]] > 0).all()
  assert not grad[1, :3].any() and (grad[1, 3:] > 0).all()
