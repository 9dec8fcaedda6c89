"""What conservative critics keep small: values of actions not in the data."""

import tensorflow as tf


def soft_maximum(
  q: tf.Tensor, log_density: tf.Tensor | float = 0.0
) -> tf.Tensor:
  """log sum_k exp(q[k] - log_density[k]) over actions k of a state.

  Where the actions were drawn with these densities, this estimates, but for
  log K, log of the integral of exp(Q(s, a)) over a (CQL, Kumar et al. 2020,
  appendix F). Without densities it is the plain sum over the actions.

  Args:
    q: [..., K, N], values of K actions in N states.
    log_density: of these actions, [K, N] or what broadcasts with it.

  Returns:
    [..., N].
  """
  return tf.reduce_logsumexp(q - log_density, -2)
