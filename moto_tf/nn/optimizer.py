"""Adam as DreamerV2 uses it, with dynamic loss scaling for float16."""

import tensorflow as tf

from moto_tf.nn import replicas
from moto_tf.nn.layers import Module

BETA1, BETA2 = 0.9, 0.999
FIRST_SCALE = 2.0**15
# Steps without overflow until the loss scale doubles.
GROWTH_STEPS = 1000


class Optimizer(Module):
  """Adam with global norm clipping, DreamerV2's weight decay, loss scaling.

  Weight decay multiplies every weight by 1 - wd once per step, unscaled by
  the learning rate. With mixed_float16 the loss is scaled dynamically. A step
  with non-finite gradients changes no weight. Replicas take the mean of their
  gradients first.

  Args:
    name: of the metrics.
    variables: weights to train, by name.
    lr, eps, clip, wd: learning rate, epsilon, largest global gradient norm,
      weight decay.
    precision: as of Layers.
  """

  def __init__(
    self,
    name: str,
    variables: dict[str, tf.Variable],
    lr: float,
    eps: float,
    clip: float,
    wd: float,
    precision: str = 'float32',
  ):
    self._name = name
    self._targets = variables
    self._lr, self._eps, self._clip, self._wd = lr, eps, clip, wd
    zeros = lambda v: tf.Variable(tf.zeros_like(v))
    self.mean = {k: zeros(v) for k, v in variables.items()}
    self.var = {k: zeros(v) for k, v in variables.items()}
    self.steps = tf.Variable(0, dtype=tf.int64)
    self._scaled = precision == 'mixed_float16'
    if self._scaled:
      self.loss_scale = {
        'value': tf.Variable(FIRST_SCALE),
        'good_steps': tf.Variable(0, dtype=tf.int64),
      }

  def minimize(
    self,
    tape: tf.GradientTape,
    loss: tf.Tensor,
    rate: tf.Tensor | float = 1.0,
  ) -> dict[str, tf.Tensor]:
    """Takes one step on the scalar `loss` recorded by `tape`.

    Args:
      tape: what recorded the loss.
      loss: to be minimised.
      rate: factor on the learning rate of this step.

    Returns:
      Metrics: the loss, the gradient norm before clipping, and with loss
      scaling whether the step was skipped and the scale.

    Raises:
      ValueError: the loss does not depend on a weight.
    """
    name = self._name
    scale = tf.ones([])
    if self._scaled:
      scale = tf.identity(self.loss_scale['value'])
    with tape:
      scaled = loss * scale
    grads = tape.gradient(scaled, self._targets)
    missing = [k for k, g in grads.items() if g is None]
    if missing:
      raise ValueError(f'{name}_loss does not depend on {missing}.')
    with tf.name_scope(f'{name}_opt'):
      # Gathered weights have sparse gradients, whose repeated rows must add up
      # before they are measured and clipped.
      grads = {k: tf.convert_to_tensor(g) for k, g in grads.items()}
      # Before the norm, so that all replicas clip, skip and step alike.
      grads = replicas.average(grads)
      norm = tf.linalg.global_norm(list(grads.values())) / scale
      finite = tf.math.is_finite(norm)
      tf.cond(
        finite, lambda: self._apply(grads, norm, scale, rate), lambda: None
      )
      metrics = {f'{name}_loss': loss, f'{name}_grad_norm': norm}
      if self._scaled:
        self._adapt(finite)
        # A skipped step must not spoil the mean over the logging interval.
        metrics[f'{name}_grad_norm'] = tf.where(finite, norm, 0.0)
        metrics[f'{name}_skipped'] = 1 - tf.cast(finite, tf.float32)
        metrics[f'{name}_loss_scale'] = scale
    return metrics

  def _apply(self, grads, norm, scale, rate):
    """Adam (Kingma & Ba 2015, with the epsilon of its section 2)."""
    self.steps.assign_add(1)
    steps = tf.cast(self.steps, tf.float32)
    clip = self._clip / tf.maximum(norm, self._clip) / scale
    for key, var in self._targets.items():
      var.assign(var * (1 - self._wd))
      # One pass over memory, where single operations take about ten.
      tf.raw_ops.ResourceApplyAdam(
        var=var.handle,
        m=self.mean[key].handle,
        v=self.var[key].handle,
        beta1_power=BETA1**steps,
        beta2_power=BETA2**steps,
        lr=self._lr * rate,
        beta1=BETA1,
        beta2=BETA2,
        epsilon=self._eps,
        grad=grads[key] * clip,
      )

  def _adapt(self, finite):
    """Halves the loss scale on overflow, doubles it after a good while."""
    value, good = self.loss_scale['value'], self.loss_scale['good_steps']
    grown = finite & tf.equal(good + 1, GROWTH_STEPS)
    factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
    value.assign(tf.maximum(value * factor, 1.0))
    good.assign(tf.where(finite & ~grown, good + 1, tf.zeros_like(good)))
