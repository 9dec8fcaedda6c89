"""Ring buffers of latent states, which the model that made them has left.

A row is a sequence of L transitions, encoded from the data or imagined:

    feat      s[0]    s[1]    ...    s[L]
    action      a[0]    a[1]            a[L-1]     taken in s[t]
    reward      r[0]                    r[L-1]     came with s[t+1]
    discount    d[0]                    d[L-1]     of what follows s[t+1]
    mask        m[0]                    m[L-1]     0: not to be learned from

Rows are never encoded again. While the model goes on learning they grow old,
until newer ones take their place. Everything is a variable, so a checkpoint
holds the buffers as they are.
"""

import tensorflow as tf

from moto_tf.nn.tfutils import split, uniform_int


class Ring:
  """Newest rows of a kind, at most `rows` of them.

  Args:
    rows: held at most.
    length: transitions L of a row.
    feat, action: sizes F and A of states and actions.
  """

  def __init__(self, rows: int, length: int, feat: int, action: int):
    self.rows, self.length = rows, length
    shapes = {
      'feat': [length + 1, feat],
      'action': [length, action],
      **dict.fromkeys(('reward', 'discount', 'mask'), [length]),
    }
    self._arrays = {
      k: tf.Variable(tf.zeros([rows, *shape])) for k, shape in shapes.items()
    }
    self._steps = tf.Variable(tf.zeros([rows], tf.int64))
    self._written = tf.Variable(0, dtype=tf.int64)

  @property
  def held(self) -> tf.Tensor:
    """Rows that are held, int64."""
    return tf.minimum(self._written, self.rows)

  def add(self, values: dict[str, tf.Tensor], step: tf.Tensor) -> None:
    """Writes rows over the oldest.

    Args:
      values: arrays [N, ...] by the names above; N is static.
      step: int64, the gradient step at which they were made.

    Raises:
      ValueError: N is more than fits.
    """
    count = values['reward'].shape[0]
    if count > self.rows:
      raise ValueError(f'{count} rows do not fit into a ring of {self.rows}.')
    index = (self._written + tf.range(count, dtype=tf.int64)) % self.rows
    for key, array in self._arrays.items():
      value = tf.cast(values[key], tf.float32)
      array.scatter_nd_update(index[:, None], value)
    self._steps.scatter_nd_update(index[:, None], tf.fill([count], step))
    self._written.assign_add(count)

  def sample(
    self, count: int, seed: tf.Tensor, step: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Transitions, uniform over all that are held, with replacement.

    Args:
      count: number of them; there must be rows.
      seed: [2].
      step: int64, the gradient step of now.

    Returns:
      feat and next [N, F], action [N, A], reward, discount, mask, and age in
      gradient steps [N], float32.
    """
    row_seed, place_seed = split(seed, 2)
    row = uniform_int([count], row_seed, tf.cast(self.held, tf.int32))
    place = uniform_int([count], place_seed, self.length)
    now, then = (tf.stack([row, place + i], -1) for i in range(2))
    found = {k: v.gather_nd(now) for k, v in self._arrays.items()}
    age = step - self._steps.gather_nd(row[:, None])
    return {
      **found,
      'next': self._arrays['feat'].gather_nd(then),
      'age': tf.cast(age, tf.float32),
    }

  def state(self, prefix: str) -> dict[str, tf.Variable]:
    """Everything to save, by name."""
    arrays = {f'{prefix}{k}': v for k, v in self._arrays.items()}
    written = {f'{prefix}written': self._written}
    return arrays | {f'{prefix}step': self._steps} | written


def without_broken(
  rows: dict[str, tf.Tensor],
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
  """Rows with zeros, mask included, where one has a number that is not finite.

  In float16 a state may overflow. In a buffer it would spoil every mean that it
  is drawn into, and no checkpoint could be written.

  Args:
    rows: arrays [N, ...] of a Ring.

  Returns:
    The same, and how many rows these are, float32.
  """
  axes = lambda x: list(range(1, x.shape.rank))
  finite = lambda x: tf.reduce_all(tf.math.is_finite(x), axes(x))
  good = tf.reduce_all(tf.stack([finite(x) for x in rows.values()]), 0)
  shape = lambda x: tf.reshape(good, [-1] + [1] * (x.shape.rank - 1))
  kept = {k: tf.where(shape(x), x, tf.zeros_like(x)) for k, x in rows.items()}
  return kept, tf.reduce_sum(1 - tf.cast(good, tf.float32))


class LatentBuffer:
  """LOMPO's two buffers: `real`, of encoded data, and `latent`, of rollouts.

  Args:
    config: the run's configuration.
    feat, action: sizes of states and actions.
  """

  def __init__(self, config, feat: int, action: int):
    capacity, length = config.latent.capacity, config.replay.length - 1
    self._count = config.latent.batch
    self.real = Ring(capacity // length, length, feat, action)
    self.latent = Ring(capacity // config.horizon, config.horizon, feat, action)

  def sample(
    self, seed: tf.Tensor, step: tf.Tensor
  ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Equally many transitions of both, the real ones first.

    Returns:
      Transitions of Ring.sample, [2 * N, ...], and metrics.
    """
    rings = {'real': self.real, 'latent': self.latent}
    found, metrics = [], {}
    seeds = split(seed, 2)
    for (name, ring), each in zip(rings.items(), seeds, strict=True):
      part = ring.sample(self._count, each, step)
      metrics[f'{name}_age'] = tf.reduce_mean(part['age'])
      metrics[f'{name}_held'] = ring.held * ring.length
      found.append(part)
    return {k: tf.concat([x[k] for x in found], 0) for k in found[0]}, metrics

  def state(self) -> dict[str, tf.Variable]:
    """Everything to save, by name."""
    real = self.real.state('buffer/real/')
    return real | self.latent.state('buffer/latent/')
