"""Random numbers, and layers in numpy, for the tests of networks."""

import numpy as np


def normal(shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def elu(x):
  return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def norm(x, gain, bias):
  mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
  return (x - mean) / np.sqrt(var + 1e-3) * gain + bias


def scramble(module, seed=0):
  """Random values everywhere, so that no bias or gain is trivial."""
  for i, var in enumerate(module.variables):
    var.assign(normal(var.shape, [seed, i]) * 0.3 + 0.1)
