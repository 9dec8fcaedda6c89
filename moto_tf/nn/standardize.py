"""Vector observations in units of their spread in the data."""

import numpy as np
import tensorflow as tf

# Entries are constant that vary less than this share of the most varying one,
# and less than this in their own unit, since a vector may mix units.
CONSTANT, VARIES = 1e-3, 1e-2
# Largest standardised value, for what the first data never showed.
LIMIT = 10.0


class Standardize:
  """Standardises vector observations, each entry by its own mean and spread.

  Positions in metres vary by centimetres. Under the decoder's unit variance
  that is worth less than the KL it costs, and the posterior would collapse.

  Args:
    shapes: of the vector observations, by key.

  Attributes:
    keys: of the vector observations.
  """

  def __init__(self, shapes: dict[str, tuple]):
    self.keys = list(shapes)
    self._mean = {k: tf.Variable(tf.zeros(v)) for k, v in shapes.items()}
    self._scale = {k: tf.Variable(tf.ones(v)) for k, v in shapes.items()}

  def fit(self, data: dict[str, np.ndarray]) -> None:
    """Takes mean and spread of observations [N, ...]; constants are centred."""
    for key, mean in self._mean.items():
      values = np.asarray(data[key], np.float64)
      std = values.std(0)
      constant = std <= min(CONSTANT * std.max(), VARIES)
      mean.assign(values.mean(0))
      self._scale[key].assign(np.where(constant, 1.0, std))

  def __call__(self, key: str, value: tf.Tensor) -> tf.Tensor:
    """Values [..., *shape] of a key; those of other keys as they are."""
    value = tf.cast(value, tf.float32)
    if key not in self._mean:
      return value
    value = (value - self._mean[key]) / self._scale[key]
    return tf.clip_by_value(value, -LIMIT, LIMIT)

  def state(self, prefix: str = '') -> dict[str, tf.Variable]:
    """Everything to save, by name. Not trained."""
    return {
      **{f'{prefix}mean/{k}': v for k, v in self._mean.items()},
      **{f'{prefix}scale/{k}': v for k, v in self._scale.items()},
    }
