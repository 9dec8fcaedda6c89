"""Fixed seeds, correlations, and the style of legends."""

import numpy as np
import tensorflow as tf

from moto_tf.nn.tfutils import make_seed

# Fixes all randomness, so that a second diagnosis gives the same numbers.
SEED = 0
# Follows numbers of the policy in its model, where averaged weights act.
TRAINED = (
  ' In the model, this is the trained policy; the real episodes are played by '
  'its averaged weights (policy_average {:g}).'
)
LEGEND = {'fontsize': 9, 'frameon': False, 'columnspacing': 1.2}


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  """Correlation of x and y [N]; None where one of them does not vary."""
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return None
  return float(np.corrcoef(x, y)[0, 1])


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
  """Correlation of the ranks of x and y [N], equal values sharing theirs."""
  return pearson(_ranks(x), _ranks(y))


def show(correlation: float | None) -> str:
  """Two decimals, or a dash where there is no correlation."""
  return '-' if correlation is None else f'{correlation:.2f}'


def fixed_seed(*numbers: int) -> tf.Tensor:
  """Stateless seed [2] of a use, told from others by its numbers."""
  return tf.convert_to_tensor(make_seed(SEED, *numbers))


def _ranks(x):
  _, index, counts = np.unique(x, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[index]
