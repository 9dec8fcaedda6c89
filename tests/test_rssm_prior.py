"""The recurrent model: its random members, and what they imagine."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from net_helpers import normal
from plain import assert_near, evaluate
from rssm_naive import ACTION, BATCH, SEED, STEPS, NaiveRSSM, make_rssm

from moto_tf.nn.tfutils import gumbel, make_seed, split


def test_members_are_uniform_and_independent():
  rssm = make_rssm(ensemble=7)
  count = 7000
  members = rssm.draw_members(count, tf.constant(SEED)).numpy()
  counts = np.bincount(members, minlength=7)
  assert len(counts) == 7
  # One in 10,000 for 6 and 48 degrees of freedom.
  assert ((counts - count / 7) ** 2 / (count / 7)).sum() < 27.9
  pairs = np.bincount(members[:-1] * 7 + members[1:], minlength=49)
  assert ((pairs - count / 49) ** 2 / (count / 49)).sum() < 92.5


@pytest.mark.parametrize('global_seed', [None, 0])
@pytest.mark.parametrize('mode', ['eager', 'graph', 'nested'])
def test_members_differ_between_steps_and_seeds(global_seed, mode):
  tf.config.run_functions_eagerly(False)
  rssm = make_rssm(ensemble=7)
  if global_seed is not None:
    tf.random.set_seed(global_seed)

  def draw(seed):
    first, second = split(seed, 2)
    return rssm.draw_members(50, first), rssm.draw_members(50, second)

  if mode == 'nested':
    inner = tf.function(rssm.draw_members)
    draw = lambda seed: tuple(inner(50, s) for s in split(seed, 2))
  if mode != 'eager':
    draw = tf.function(draw)
  seeds = [tf.constant(make_seed(0, step)) for step in range(1, 5)]
  draws = [tuple(x.numpy()) for seed in seeds for x in draw(seed)]
  assert len({*draws}) == len(draws)
  for members in draws:
    assert len({*members}) == 7
    assert np.mean(np.diff(members) == 0) < 0.4
  again = [tuple(x.numpy()) for seed in seeds for x in draw(seed)]
  assert draws == again
  plain = [rssm.draw_members(50, s) for seed in seeds for s in split(seed, 2)]
  np.testing.assert_array_equal(draws, plain)


def test_one_prior_equals_its_member_of_all():
  rssm = make_rssm()
  deter, members = tf.constant(normal([STEPS, BATCH, 8])), [2, 0, 1, 1, 2, 0]
  one = rssm.prior_one(deter, tf.constant(members))
  every = rssm.prior_all(deter)
  assert every.shape == (3, STEPS, BATCH, 3, 4)
  assert one.dtype == every.dtype == tf.float32
  for t, member in enumerate(members):
    np.testing.assert_allclose(one[t], every[member, t], atol=1e-5)
  assert np.abs(every[0] - every[1]).max() > 0.1


@pytest.mark.parametrize('norm', ['none', 'layer'])
def test_prior_matches_naive(norm):
  rssm = make_rssm(norm=norm)
  deter = tf.constant(normal([BATCH, 8]))
  naive = NaiveRSSM(rssm, norm)
  result = rssm.prior_all(deter)
  for m in range(3):
    expected = naive.prior(deter, m)
    np.testing.assert_allclose(result[m], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('mode', ['eager', 'graph'])
@pytest.mark.parametrize('ensemble', [1, 3])
def test_imagined_step_and_its_gradients_match_naive(ensemble, mode):
  rssm = make_rssm(ensemble)
  naive = NaiveRSSM(rssm, 'none')
  stoch = np.eye(4, dtype=np.float32)[[[0, 1, 3]] * BATCH]
  inputs = normal([BATCH, 8]), stoch, normal([BATCH, ACTION], 3)
  noise = gumbel([BATCH, 3, 4], SEED)

  def own(deter, stoch, action, member):
    state = {'deter': deter, 'stoch': stoch}
    member = tf.constant(member)
    return rssm.img_step(state, action, member, noise, rssm.weights())

  def plain(deter, stoch, action, member):
    deter = naive.recurrent(stoch, deter, action)
    logit = naive.prior(deter, member)
    stoch = naive.sample(logit, noise)
    return {'deter': deter, 'stoch': stoch, 'logit': logit}

  for member in range(ensemble):
    own_step, plain_step = (
      functools.partial(step, member=member) for step in (own, plain)
    )
    results = evaluate(own_step, inputs, mode=mode)
    assert_near(results, evaluate(plain_step, inputs))


@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_imagined_states_and_their_gradients_match_naive(mode):
  """One member per step; gradients pass through states and actions."""
  rssm, steps = make_rssm(), 4
  naive = NaiveRSSM(rssm, 'none')
  stoch = np.eye(4, dtype=np.float32)[[[0, 1, 3]] * BATCH]
  inputs = normal([BATCH, 8]), stoch, normal([steps, BATCH, ACTION], 3)
  noise = gumbel([steps, BATCH, 3, 4], SEED)
  members = [2, 0, 1, 1]

  def join(states):
    assert len(states) == steps + 1
    return {k: tf.stack([s[k] for s in states]) for k in ('deter', 'stoch')}

  def own(deter, stoch, action):
    start, asked = {'deter': deter, 'stoch': stoch, 'more': deter}, []

    def act(t, state):
      asked.append(t)
      assert set(state) == {'deter', 'stoch'}
      return action[t] + state['deter'][:, :ACTION]

    states = rssm.imagine(start, act, tf.constant(members), noise)
    assert asked == [0, 1, 2, 3]
    return join(states)

  def plain(deter, stoch, action):
    states = [{'deter': deter, 'stoch': stoch}]
    for t, member in enumerate(members):
      taken = action[t] + deter[:, :ACTION]
      deter = naive.recurrent(stoch, deter, taken)
      stoch = naive.sample(naive.prior(deter, member), noise[t])
      states.append({'deter': deter, 'stoch': stoch})
    return join(states)

  results = evaluate(own, inputs, mode=mode)
  assert_near(results, evaluate(plain, inputs))
  assert all(grad.any() for grad in results[2:])


def test_a_single_prior_is_one_plain_network():
  rssm = make_rssm(1)
  deter = tf.constant(normal([STEPS, BATCH, 8]))
  members = rssm.draw_members(STEPS, tf.constant(SEED))
  assert members.numpy().tolist() == [0] * STEPS
  one, every = rssm.prior_one(deter, members), rssm.prior_all(deter)
  np.testing.assert_allclose(one, every[0], atol=1e-5)
  assert [tuple(k.shape) for k in rssm.prior.kernel] == [(1, 8, 9), (1, 9, 12)]
