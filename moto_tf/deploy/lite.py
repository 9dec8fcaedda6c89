"""What LiteRT has no operation for, made of what it has."""

import functools
import math

import numpy as np
import tensorflow as tf
from numpy.polynomial import chebyshev

# Beyond it erf is 1 in float32.
LIMIT = 4.0
DEGREE = 16
# Largest errors of `erf` in float32, held to by a test.
ERF_ERROR = 3e-7
ERF_RELATIVE_ERROR = 5e-7


def erf(x: tf.Tensor) -> tf.Tensor:
  """The error function of float32 numbers, to within ERF_ERROR.

  x times a polynomial in x**2, the Chebyshev interpolant on [0, LIMIT**2].
  """
  x = tf.clip_by_value(x, -LIMIT, LIMIT)
  place = x * x * (2 / LIMIT**2) - 1
  *rest, value = _coefficients()
  for coefficient in reversed(rest):
    value = value * place + coefficient
  return x * value


def normal_cdf(z: tf.Tensor) -> tf.Tensor:
  """Distribution function of the standard normal, by `erf`."""
  return 0.5 + 0.5 * erf(z / np.sqrt(2))


@functools.cache
def _coefficients():
  """Of erf(x) / x in powers of 2 * (x / LIMIT)**2 - 1, from the lowest."""

  def ratio(place):
    square = np.maximum((place + 1) / 2 * LIMIT**2, 1e-12)
    return [math.erf(x) / x for x in np.sqrt(square)]

  series = chebyshev.chebinterpolate(ratio, DEGREE)
  return [float(x) for x in chebyshev.cheb2poly(series)]
