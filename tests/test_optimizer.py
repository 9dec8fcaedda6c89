"""Optimizer against numpy."""

import numpy as np
import pytest
import tensorflow as tf

from moto_tf.nn import nets
from moto_tf.nn import optimizer as module
from moto_tf.nn.layers import Layers
from moto_tf.nn.optimizer import Optimizer

WEIGHTS = {'a': [[1.0, -2.0], [0.5, 3.0]], 'b': [0.3, -0.7]}
SETTINGS = {'lr': 0.01, 'eps': 1e-5, 'clip': 100.0, 'wd': 1e-3}


@pytest.fixture(autouse=True)
def graphs():
  """Agents of other tests may have switched tf.function off."""
  tf.config.run_functions_eagerly(False)


def make_optimizer(precision='float32', **kwargs):
  """An optimizer and its weights a [2, 2] and b [2]."""
  weights = {k: tf.Variable(v, name=k) for k, v in WEIGHTS.items()}
  return Optimizer(
    'model', weights, **{**SETTINGS, **kwargs}, precision=precision
  ), list(weights.values())


def make_step(optimizer, weights):
  """A compiled step on sum(slope * weight ** 2)."""

  @tf.function
  def step(slope):
    with tf.GradientTape() as tape:
      loss = slope * sum(tf.reduce_sum(w**2) for w in weights)
    return optimizer.minimize(tape, loss)

  return lambda slope: {
    k: float(v) for k, v in step(tf.constant(slope)).items()
  }


def values(variables):
  return [np.array(v) for v in variables]


class NaiveAdam:
  """Clip by global norm, decay all weights, then Adam with bias correction."""

  def __init__(self, weights, lr, eps, clip, wd):
    self.weights = [np.array(w, np.float64) for w in weights]
    self.first = [np.zeros_like(w) for w in self.weights]
    self.second = [np.zeros_like(w) for w in self.weights]
    self.lr, self.eps, self.clip, self.wd, self.count = lr, eps, clip, wd, 0

  def step(self, grads):
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    self.count += 1
    rate = self.lr * np.sqrt(1 - 0.999**self.count) / (1 - 0.9**self.count)
    for i, grad in enumerate(grads):
      grad = grad * min(1, self.clip / norm)
      self.first[i] = 0.9 * self.first[i] + 0.1 * grad
      self.second[i] = 0.999 * self.second[i] + 0.001 * grad**2
      change = rate * self.first[i] / (np.sqrt(self.second[i]) + self.eps)
      self.weights[i] = self.weights[i] * (1 - self.wd) - change
    return norm


@pytest.mark.parametrize('precision', ['float32', 'mixed_float16'])
@pytest.mark.parametrize('clip', [100.0, 0.5])
def test_optimizer_matches_numpy(precision, clip):
  """A large epsilon makes the effect of clipping visible in Adam."""
  settings = {**SETTINGS, 'clip': clip, 'eps': 0.1}
  optimizer, weights = make_optimizer(precision, **settings)
  naive = NaiveAdam(values(weights), **settings)
  step = make_step(optimizer, weights)
  for slope in (1.0, -0.5, 2.0):
    norm = naive.step([2 * slope * w for w in naive.weights])
    loss = slope * sum((w.numpy() ** 2).sum() for w in weights)
    metrics = step(slope)
    for weight, expected in zip(weights, naive.weights, strict=True):
      np.testing.assert_allclose(weight, expected, rtol=1e-5)
    assert metrics['model_loss'] == pytest.approx(loss, rel=1e-5)
    assert metrics['model_grad_norm'] == pytest.approx(norm, rel=1e-4)
  assert (norm > clip) == (clip == 0.5)


@pytest.mark.parametrize('precision', ['float32', 'mixed_float16'])
def test_gathered_members_are_clipped_like_a_dense_gradient(precision):
  """A member drawn at several steps has one gradient, the sum."""
  settings = {**SETTINGS, 'clip': 0.5, 'eps': 0.1}
  x = tf.constant(np.random.default_rng(0).normal(size=[5, 2, 4]), tf.float32)
  members = [2, 0, 2, 2, 0]
  stacks, norms = [], []
  for gather in (True, False):
    stack = nets.StackedMLP(Layers(0), 3, 4, [5], 2, 'elu', 'none')
    optimizer = Optimizer(
      'model', stack.named_variables(), **settings, precision=precision
    )

    @tf.function
    def step(stack=stack, optimizer=optimizer, gather=gather):
      with tf.GradientTape() as tape:
        if gather:
          y = stack.select(x, tf.constant(members))
        else:
          every = stack(x)
          y = tf.stack([every[m, t] for t, m in enumerate(members)])
        loss = tf.reduce_sum(y**2)
      return optimizer.minimize(tape, loss)

    norms.append([float(step()['model_grad_norm']) for _ in range(3)])
    stacks.append(stack)
  np.testing.assert_allclose(norms[0], norms[1], rtol=1e-3)
  for one, other in zip(*(s.variables for s in stacks), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize('slope', [np.inf, np.nan])
def test_non_finite_gradients_change_nothing(slope):
  optimizer, weights = make_optimizer()
  step = make_step(optimizer, weights)
  step(1.0)
  state = list(optimizer.named_variables().values())
  before = values(weights), values(state)
  metrics = step(slope)
  assert not np.isfinite(metrics['model_grad_norm'])
  after = values(weights), values(state)
  for old, new in zip([*before[0], *before[1]], [*after[0], *after[1]]):
    np.testing.assert_array_equal(old, new)
  step(1.0)
  assert not np.array_equal(weights[0], before[0][0])


def test_loss_scale_halves_on_overflow_and_weights_stay():
  optimizer, weights = make_optimizer('mixed_float16')
  step = make_step(optimizer, weights)
  scales = [step(1.0)['model_loss_scale']]
  before = values(weights)
  metrics = step(np.inf)
  assert metrics['model_skipped'] == 1
  assert metrics['model_grad_norm'] == 0
  for old, new in zip(before, values(weights), strict=True):
    np.testing.assert_array_equal(old, new)
  step(1.0)
  scales.append(step(1.0)['model_loss_scale'])
  assert scales[1] == scales[0] / 2
  assert not np.array_equal(weights[0], before[0])


def test_loss_scale_doubles_after_a_good_while(monkeypatch):
  """An overflow halves it and starts the count anew, doubling does, too."""
  monkeypatch.setattr(module, 'GROWTH_STEPS', 3)
  step = make_step(*make_optimizer('mixed_float16'))
  slopes = [1, 1, np.inf, *[1] * 7, np.inf, 1]
  scales = [step(float(slope))['model_loss_scale'] for slope in slopes]
  shares = [1, 1, 1, *[0.5] * 3, *[1] * 3, 2, 2, 1]
  assert scales == [module.FIRST_SCALE * share for share in shares]


def test_loss_scale_stays_at_least_one():
  optimizer, weights = make_optimizer('mixed_float16')
  step = make_step(optimizer, weights)
  optimizer.loss_scale['value'].assign(2.0)
  scales = [step(np.inf)['model_loss_scale'] for _ in range(3)]
  assert scales == [2, 1, 1]


def test_loss_scale_keeps_small_gradients_in_float16():
  """Through float16, 1e-8 is zero without a scaled loss."""
  weight = tf.Variable(1.0, name='a')
  optimizer = Optimizer(
    'model', {'a': weight}, **SETTINGS, precision='mixed_float16'
  )
  with tf.GradientTape() as tape:
    loss = 1e-8 * tf.cast(tf.cast(weight, tf.float16), tf.float32)
  metrics = optimizer.minimize(tape, loss)
  assert float(metrics['model_grad_norm']) == pytest.approx(1e-8, rel=1e-2)
  assert float(weight) < 1 - SETTINGS['wd']


def test_weights_without_gradient_are_an_error_with_their_name():
  optimizer, weights = make_optimizer()
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(weights[0])
  with pytest.raises(ValueError, match=r'model_loss .*\bb\b'):
    optimizer.minimize(tape, loss)


def test_optimizer_state_has_slots_of_every_weight():
  for precision in ('float32', 'mixed_float16'):
    optimizer, weights = make_optimizer(precision)
    state = optimizer.named_variables('model_opt/')
    assert all(k.startswith('model_opt/') for k in state)
    shapes = [tuple(v.shape) for v in state.values()]
    assert shapes.count((2, 2)) == shapes.count((2,)) == 2
    assert 'model_opt/steps' in state and 'model_opt/mean/a' in state
