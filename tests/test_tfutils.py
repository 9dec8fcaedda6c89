"""Seeds, noise, precision, and products in loops."""

import numpy as np
import tensorflow as tf

from moto_tf import tfutils


def test_seeds_are_int32_pairs_and_differ():
  seeds = [
    tfutils.make_seed(s, k, t)
    for s in (0, 7)
    for k in (1, 2, 3)
    for t in range(1, 50)
  ]
  assert {s.dtype for s in seeds} == {np.dtype(np.int32)}
  assert len({tuple(s) for s in seeds}) == len(seeds)
  np.testing.assert_array_equal(
    tfutils.make_seed(2**31 - 1, 10**9), tfutils.make_seed(2**31 - 1, 10**9)
  )


def test_split_seeds_differ_and_repeat():
  parts = tfutils.split(tf.constant([1, 2]), 4)
  assert len({tuple(p.numpy()) for p in parts}) == 4
  again = tfutils.split(tf.constant([1, 2]), 4)
  np.testing.assert_array_equal(parts, again)
  others = tfutils.split(tf.constant([1, 3]), 4)
  assert not {tuple(p.numpy()) for p in parts} & {
    tuple(p.numpy()) for p in others
  }


def test_draws_are_the_same_with_xla():
  """Among the seeds are negative ones, which XLA reads differently."""
  seeds = tf.constant([tfutils.make_seed(1, k) for k in range(6)])

  def draw(seeds):
    parts = [p for s in tf.unstack(seeds) for p in tfutils.split(s, 2)]
    return (
      tf.stack(parts),
      tf.stack([tfutils.uniform([50], s) for s in parts]),
      tf.stack([tfutils.gumbel([50], s) for s in parts]),
      tf.stack([tfutils.uniform_int([50], s, 7) for s in parts]),
    )

  plain = tf.function(draw)(seeds)
  compiled = tf.function(draw, jit_compile=True)(seeds)
  for one, other in zip(plain, compiled, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
  noise = plain[1].numpy()
  assert len(np.unique(noise)) > 590 and 0 < noise.min() < noise.max() < 1


def test_gumbel_has_the_right_distribution():
  noise = np.sort(tfutils.gumbel([20_000], tfutils.make_seed(0)).numpy())
  assert np.isfinite(noise).all()
  cdf = np.exp(-np.exp(-noise.astype(np.float64)))
  gap = np.abs(cdf - (np.arange(20_000) + 0.5) / 20_000).max()
  assert gap < 1.95 / np.sqrt(20_000)  # Kolmogorov-Smirnov, 1 in 1000.


def test_auto_precision_follows_the_device():
  gpus = tf.config.list_physical_devices('GPU')
  expected = 'mixed_float16' if gpus else 'float32'
  assert tfutils.setup('auto') == expected
  assert tfutils.setup('mixed_bfloat16') == 'mixed_bfloat16'
  tfutils.setup('float32', eager=True)
  assert tf.config.functions_run_eagerly()
  tfutils.setup('float32')
  assert not tf.config.functions_run_eagerly()
