"""Stochastic states of the RSSM: categoricals, or Gaussians.

A kind of latent says what the outputs of a layer mean:

  stats         name of the parameters in a state
  shape         of a sample z of one state
  size          numbers in it
  outputs       numbers that a layer puts out for its parameters
  parameters    these outputs as parameters
  initial       parameters of states before the first one
  dist          the distribution of parameters
  noise         what `dist(...).sample(noise=...)` takes
  noise_of      the same, of uniform noise that is given
  noise_kind    its name in moto_tf.deploy.protocol.NOISE
"""

import numpy as np
import tensorflow as tf

from moto_tf.nn import dists
from moto_tf.nn.tfutils import gumbel, normal

# Smallest deviation of a Gaussian, that of PlaNet and its successors.
MIN_STD = 0.1


class Categorical:
  """DreamerV2's: `stoch` one-hot vectors of `discrete` classes each."""

  stats = 'logit'
  noise_kind = 'gumbel'

  def __init__(self, stoch: int, discrete: int):
    self.shape = [stoch, discrete]
    self.size = self.outputs = stoch * discrete

  def parameters(self, x: tf.Tensor) -> tf.Tensor:
    """Outputs [..., S * C] as logits [..., S, C] float32."""
    x = tf.cast(x, tf.float32)
    return tf.reshape(x, [*x.shape[:-1].as_list(), *self.shape])

  def initial(self, batch: int) -> tf.Tensor:
    return tf.zeros([batch, *self.shape])

  def dist(self, logit: tf.Tensor) -> dists.OneHot:
    return dists.OneHot(logit)

  def noise(self, lead: list[int], seed: tf.Tensor) -> tf.Tensor:
    """Gumbel noise [*lead, S, C]."""
    return gumbel([*lead, *self.shape], seed)

  def noise_of(self, uniform: np.ndarray) -> np.ndarray:
    """Uniform noise [N, size] within (0, 1) as Gumbel noise [N, S, C]."""
    return -np.log(-np.log(uniform)).reshape([-1, *self.shape])


class Gaussian:
  """DreamerV1's and LOMPO's: `stoch` independent normals."""

  stats = 'moments'
  noise_kind = 'normal'

  def __init__(self, stoch: int):
    self.shape = [stoch]
    self.size, self.outputs = stoch, 2 * stoch

  def parameters(self, x: tf.Tensor) -> tf.Tensor:
    """Outputs [..., 2 * S] as means and deviations [..., S, 2] float32."""
    mean, std = tf.split(tf.cast(x, tf.float32), 2, -1)
    return tf.stack([mean, tf.nn.softplus(std) + MIN_STD], -1)

  def initial(self, batch: int) -> tf.Tensor:
    return tf.zeros([batch, *self.shape, 2])

  def dist(self, moments: tf.Tensor) -> dists.DiagNormal:
    return dists.DiagNormal(*tf.unstack(moments, axis=-1))

  def noise(self, lead: list[int], seed: tf.Tensor) -> tf.Tensor:
    """Standard normal noise [*lead, S]."""
    return normal([*lead, *self.shape], seed)

  def noise_of(self, uniform: np.ndarray) -> np.ndarray:
    """Uniform noise [N, S] within (0, 1) as standard normal noise."""
    return tf.math.ndtri(uniform).numpy()


def make_latent(config) -> Categorical | Gaussian:
  """The kind of latent that `rssm.discrete` says, 0 being the Gaussian."""
  if config.discrete:
    return Categorical(config.stoch, config.discrete)
  return Gaussian(config.stoch)
