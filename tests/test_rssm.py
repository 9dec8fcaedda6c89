"""The recurrent model against a numpy loop, and its random members."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_config
from plain import TOLERANCE, assert_near, evaluate

from moto_tf.model.rssm import EnsembleRSSM, kl_loss
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import gumbel, make_seed, split

BATCH, STEPS, EMBED, ACTION = 3, 6, 7, 2
SEED = make_seed(11)


def normal(shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_rssm(ensemble=3, norm='none', precision='float32'):
  """Random weights everywhere, so that no bias or gain is trivial."""
  config = tiny_config(
    rssm__ensemble=ensemble,
    rssm__norm=norm,
    rssm__hidden=9,
    rssm__deter=8,
    rssm__stoch=3,
    rssm__discrete=4,
  )
  rssm = EnsembleRSSM(Layers(0, precision), EMBED, ACTION, config.rssm)
  for i, var in enumerate(rssm.variables):
    var.assign(normal(var.shape, [7, i]) * 0.4 + 0.1)
  return rssm


def make_inputs(firsts=()):
  """Embeddings, actions and is_first of a batch; `firsts` holds (b, t)."""
  is_first = np.zeros([BATCH, STEPS], np.float32)
  is_first[:, 0] = 1
  for b, t in firsts:
    is_first[b, t] = 1
  return (
    normal([BATCH, STEPS, EMBED], 1),
    normal([BATCH, STEPS, ACTION], 2),
    is_first,
  )


def observe(rssm, inputs, seed=SEED):
  state = rssm.observe(*map(tf.constant, inputs), tf.constant(seed))
  return {k: tf.cast(v, tf.float32).numpy() for k, v in state.items()}


def posterior_noise(seed=SEED):
  return gumbel([STEPS, BATCH, 3, 4], seed).numpy()


def layer_norm(x, gain, bias):
  mean = tf.reduce_mean(x, -1, keepdims=True)
  var = tf.math.reduce_variance(x, -1, keepdims=True)
  return (x - mean) / tf.sqrt(var + 1e-3) * gain + bias


class NaiveRSSM:
  """One step at a time on concatenated inputs, as the equations say.

  Of plain operations, so that TensorFlow makes the gradients.
  """

  def __init__(self, rssm, norm):
    self.weights = rssm.named_variables()
    self.norm = norm

  def hidden(self, x, name):
    w = self.weights
    x = tf.matmul(x, w[f'{name}_kernel'])
    if self.norm == 'layer':
      x = x + w[f'{name}_offset']
      return tf.nn.elu(layer_norm(x, w[f'{name}_gain'], w[f'{name}_bias']))
    return tf.nn.elu(x + w[f'{name}_bias'])

  def recurrent(self, stoch, deter, action):
    w, size = self.weights, deter.shape[-1]
    x = tf.concat([tf.reshape(stoch, [stoch.shape[0], -1]), action], -1)
    x = tf.concat([self.hidden(x, 'inp'), deter], -1)
    x = tf.matmul(x, w['gru_kernel']) + w['gru_offset']
    x = layer_norm(x, w['gru_gain'], w['gru_bias'])
    reset, cand = tf.sigmoid(x[:, :size]), x[:, size : 2 * size]
    update = tf.sigmoid(x[:, 2 * size :] - 1)
    return update * tf.tanh(reset * cand) + (1 - update) * deter

  def posterior(self, deter, embed):
    w = self.weights
    x = self.hidden(tf.concat([deter, embed], -1), 'post')
    x = tf.matmul(x, w['out_kernel']) + w['out_bias']
    return tf.reshape(x, [-1, 3, 4])

  def prior(self, deter, member):
    w = {k: v[member] for k, v in self.weights.items() if 'prior/' in k}
    x = tf.matmul(deter, w['prior/kernel/0'])
    if self.norm == 'layer':
      x = x + w['prior/offset/0']
      x = layer_norm(x, w['prior/gain/0'], w['prior/bias/0'])
    else:
      x = x + w['prior/bias/0']
    x = tf.matmul(tf.nn.elu(x), w['prior/kernel/1']) + w['prior/bias/1']
    return tf.reshape(x, [-1, 3, 4])

  @staticmethod
  def sample(logit, noise):
    """The hard sample with the gradient of the soft one."""
    hard, soft = (
      tf.one_hot(tf.argmax(logit + noise, -1), 4),
      tf.nn.softmax(logit),
    )
    return soft + tf.stop_gradient(hard - soft)

  def observe(self, embed, action, is_first, noise):
    """Posterior states by loops over lanes and time steps."""
    states = {k: [] for k in ('deter', 'stoch', 'logit')}
    for b in range(len(embed)):
      lane = {k: [] for k in states}
      for t in range(embed.shape[1]):
        if is_first[b, t]:
          deter, stoch = tf.zeros([1, 8]), tf.zeros([1, 3, 4])
          act = tf.zeros([1, ACTION])
        else:
          act = action[b, t][None]
        deter = self.recurrent(stoch, deter, act)
        logit = self.posterior(deter, embed[b, t][None])
        stoch = self.sample(logit, noise[t, b])
        for k, v in (('deter', deter), ('stoch', stoch), ('logit', logit)):
          lane[k].append(v[0])
      for k in states:
        states[k].append(tf.stack(lane[k]))
    return {k: tf.stack(v) for k, v in states.items()}


def assert_close(one, other, tolerance=1e-4):
  for key in ('deter', 'stoch', 'logit'):
    np.testing.assert_allclose(
      one[key], other[key], rtol=tolerance, atol=tolerance, err_msg=key
    )


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


def naive_kl(post, prior):
  """KL per state, summed over the categoricals, in float64."""
  log = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))
  post, prior = log(post.astype(np.float64)), log(prior.astype(np.float64))
  return (np.exp(post) * (post - prior)).sum((-2, -1))


def naive_kl_gradients(one, other):
  """d KL(one || other) per state by both logits, in float64, by hand.

  With p = softmax(one), q = softmax(other) and l = log p - log q of one
  categorical, these are p * (l - sum p l) and q - p.
  """
  soft = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
  p, q = soft(one.astype(np.float64)), soft(other.astype(np.float64))
  ratio = np.log(p) - np.log(q)
  return p * (ratio - (p * ratio).sum(-1, keepdims=True)), q - p


def naive_kl_loss(post, prior, free, balance, forward, free_avg):
  """DreamerV2's rule state by state: loss, and its gradients by both sides."""
  if forward:
    values = naive_kl(prior, post)
    to_prior, to_post = naive_kl_gradients(prior, post)
  else:
    values = naive_kl(post, prior)
    to_post, to_prior = naive_kl_gradients(post, prior)
  shares, total = {'post': 1 - balance, 'prior': balance}, 0.0
  if balance == 0.5:
    shares = {'post': 1.0, 'prior': 1.0}
  per_state = balance == 0.5 or not free_avg
  if per_state:
    for value in values.ravel():
      total += max(value, free) / values.size
    above = values > free
  else:
    total = max(values.mean(), free)
    above = np.full(values.shape, values.mean() > free)
  above = above[..., None, None] / values.size
  return (
    total,
    shares['post'] * above * to_post,
    shares['prior'] * above * to_prior,
  )


@pytest.mark.parametrize('free', [0.0, 1.5, 2.5, 50.0])
@pytest.mark.parametrize('balance', [0.8, 0.5, 0.3, 0.0, 1.0])
@pytest.mark.parametrize('forward', [False, True])
@pytest.mark.parametrize('free_avg', [False, True])
def test_kl_loss_and_gradient_match_naive(free, balance, forward, free_avg):
  arrays = normal([STEPS, BATCH, 3, 4]), normal([STEPS, BATCH, 3, 4], 1)
  settings = free, balance, forward, free_avg
  expected, *slopes = naive_kl_loss(*arrays, *settings)
  values = naive_kl(*(arrays[::-1] if forward else arrays))
  assert 0.5 < values.min() < 1.5 < values.mean() < 2.5 < values.max() < 50
  inputs = [tf.constant(x) for x in arrays]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    loss, value = kl_loss(*inputs, *settings)
  np.testing.assert_allclose(value, values, rtol=1e-4, atol=1e-5)
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  for grad, slope in zip(tape.gradient(loss, inputs), slopes, strict=True):
    # The KL of a side without a share may not be differentiated at all.
    grad = np.zeros_like(slope) if grad is None else grad
    np.testing.assert_allclose(grad, slope, rtol=1e-3, atol=1e-6)


def test_kl_of_equal_shares_is_the_plain_one():
  """Twice the gradient of two halves, as in DreamerV2."""
  inputs = [tf.constant(normal([2, BATCH, 3, 4], s)) for s in (0, 1)]
  grads = []
  for balance in (0.5, 0.5 + 1e-6):
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      loss, _ = kl_loss(*inputs, 0.0, balance)
    grads.append(tape.gradient(loss, inputs))
  for whole, half in zip(*grads, strict=True):
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-3, atol=1e-7)


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
