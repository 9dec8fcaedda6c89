"""What a gradient step must know of replicas that share its batch.

Each of n replicas computes on its rows of the batch, and the mean of their n
losses is the loss of the whole batch. A plain mean over rows needs nothing for
that, since all replicas have equally many rows; what is here is for the rest.
The context of tf.distribute says which replica computes. Without one, or with
one alone, all of these return what they are given and add nothing to a graph.
"""

from typing import Any

import tensorflow as tf

from moto_tf.nn.tfutils import ALGORITHM, LARGEST


def count() -> int:
  """Replicas that share the batch of this gradient step."""
  context = tf.distribute.get_replica_context()
  return context.num_replicas_in_sync if context else 1


def number() -> int:
  """Which of them this is."""
  context = tf.distribute.get_replica_context()
  return int(tf.get_static_value(context.replica_id_in_sync_group))


def average(values: Any) -> Any:
  """Mean over the replicas of each tensor of a structure, by one all-reduce."""
  return values if count() == 1 else _reduce('MEAN', values)


def total(value: tf.Tensor) -> tf.Tensor:
  """Sum over the replicas of a number that has no gradient to give."""
  return value if count() == 1 else _reduce('SUM', tf.stop_gradient(value))


def divisor(counted: tf.Tensor) -> tf.Tensor:
  """What a sum over counted records is divided by, at least 1 of the batch.

      1/n sum_r (sum_r / divisor) = sum over the batch / max(its count, 1)

  Args:
    counted: records of this replica's rows that are in the sum.
  """
  if count() == 1:
    return tf.maximum(counted, 1)
  return tf.maximum(total(counted), 1) / count()


def at_least(mean: tf.Tensor, least: float) -> tf.Tensor:
  """A mean over rows where that over the batch is larger than `least`, or that.

  So the mean over replicas is max(mean over the batch, least).
  """
  if count() == 1:
    return tf.maximum(mean, least)
  # Not the other way round, which would hide that a mean is not a number.
  return tf.where(_reduce('MEAN', tf.stop_gradient(mean)) < least, least, mean)


def share(size: int) -> int:
  """How many of `size` things that a batch has are this replica's."""
  return size // count()


def fold(seed: tf.Tensor, replica: int) -> tf.Tensor:
  """Seed [2] of a replica, from that of the gradient step."""
  folded = tf.random.fold_in(seed, replica, ALGORITHM)
  return tf.bitwise.bitwise_and(folded, LARGEST)


def _reduce(how, values):
  context = tf.distribute.get_replica_context()
  # tf.distribute finds devices by those of the tensors, which inputs lack.
  return context.all_reduce(how, tf.nest.map_structure(tf.identity, values))
