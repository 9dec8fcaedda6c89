"""Seeds, noise, precision, and products in loops."""

import numpy as np
import pytest
import tensorflow as tf
from plain import MODES, TOLERANCE, assert_near, evaluate, normal

from moto_tf.nn import tfutils


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


def test_gpu_that_is_not_found_is_told(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [])
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  monkeypatch.setattr(tfutils, 'DRIVER', tmp_path / 'no')
  tfutils.setup()
  assert capsys.readouterr().err == ''
  monkeypatch.setattr(tfutils, 'DRIVER', tmp_path)
  tfutils.setup()
  assert 'runs on the CPU' in capsys.readouterr().err
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
  tfutils.setup()
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('capability', [(9, 0), (8, 6)])
def test_gpu_that_tensorflow_has_code_for(capability):
  build = {'cuda_compute_capabilities': ['sm_60', 'sm_89', 'compute_90']}
  details = {'compute_capability': capability, 'device_name': 'card'}
  assert not tfutils.too_new(details, build)


def test_gpu_that_is_newer_than_tensorflow_is_told():
  build = {'cuda_compute_capabilities': ['sm_60', 'sm_89', 'compute_90']}
  details = {'compute_capability': (12, 0), 'device_name': 'card'}
  text = tfutils.too_new(details, build)
  assert text.startswith('card has compute capability 12.0;')
  assert 'up to 9.0' in text and 'CUDA_VISIBLE_DEVICES=-1' in text
  # A TensorFlow that does not tell, and a device without details.
  assert not tfutils.too_new(details, {})
  assert not tfutils.too_new({}, build)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('rows', [1, 5])
def test_product_equals_matmul(rows, mode):
  inputs = normal([rows, 4]), normal([4, 3], 1)
  results = evaluate(tfutils.product, inputs, mode=mode)
  assert_near(results, evaluate(tf.matmul, inputs))


@pytest.mark.parametrize('mode', MODES)
def test_frozen_product_has_no_gradient_of_its_kernel(mode):
  inputs = normal([5, 4]), normal([4, 3], 1)
  results = evaluate(tfutils.frozen_product, inputs, mode=mode)
  expected = evaluate(tf.matmul, inputs)
  assert_near(results[:2], expected[:2])
  assert not results[2].any()


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_product_in_low_precision(dtype):
  inputs = normal([5, 4]), normal([4, 3], 1)
  low = lambda *args: tfutils.product(*(tf.cast(x, dtype) for x in args))
  expected = evaluate(tf.matmul, inputs)
  assert_near(evaluate(low, inputs), expected, TOLERANCE[dtype])


KERNELS = {'wide': normal([4, 4], 1) / 2, 'tall': normal([4, 2], 2)}
INPUTS = {'idle': normal([3], 3), 'x': normal([5, 4], 4), 'add': normal([3, 4])}


def loop(dot, inputs):
  """One kernel is used twice at every step, one on fewer and fewer rows.

  Takes from its inputs, and the loss of the tests ignores `free`.
  """
  x, free, halves = inputs.pop('x'), [], []
  for t, add in enumerate(tf.unstack(inputs['add'])):
    x = tf.tanh(dot('wide', x) + add)
    x = x + tf.tanh(dot('wide', x * x))
    halves.append(dot('tall', x[: 4 - t]))
    shared = tf.pad(halves[-1], [[0, 1 + t], [2, 0]])
    x = x * tf.sigmoid(shared)
    free.append(x)
  return {'x': x, 'free': tf.stack(free), 'halves': tf.concat(halves, 0)}


def unrolled(form, dtype='float32'):
  """The loop as a function of kernels and inputs, by `unroll` or plainly."""

  def run(*args):
    args = [tf.cast(x, dtype) for x in args]
    kernels = dict(zip(KERNELS, args[: len(KERNELS)]))
    inputs = dict(zip(INPUTS, args[len(KERNELS) :], strict=True))
    if form == 'unroll':
      outputs = tfutils.unroll(loop, kernels, inputs)
    else:
      outputs = loop(lambda name, x: tf.matmul(x, kernels[name]), inputs)
    return outputs['halves'], outputs['x']

  return run


ARGS = [*KERNELS.values(), *INPUTS.values()]


@pytest.mark.parametrize('mode', MODES)
def test_unroll_equals_a_plain_loop(mode):
  results = evaluate(unrolled('unroll'), ARGS, mode=mode)
  expected = evaluate(unrolled('plain'), ARGS)
  assert_near(results, expected)
  grads = dict(zip([*KERNELS, *INPUTS], expected[2:], strict=True))
  assert [k for k, v in grads.items() if not v.any()] == ['idle']


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_unroll_in_low_precision(dtype):
  results = evaluate(unrolled('unroll', dtype), ARGS, mode='graph')
  expected = evaluate(unrolled('plain'), ARGS)
  assert_near(results, expected, TOLERANCE[dtype])


def test_unroll_keeps_the_order_of_keys_and_what_it_is_given():
  kernels, inputs = (
    {k: tf.constant(v) for k, v in x.items()} for x in (KERNELS, INPUTS)
  )
  before = list(kernels.items()), list(inputs.items())
  outputs = tfutils.unroll(loop, kernels, inputs)
  for old, new in zip(before, (kernels, inputs), strict=True):
    assert [k for k, _ in old] == list(new)
    assert all(new[k] is v for k, v in old)
  plain = loop(lambda name, x: x @ kernels[name], dict(inputs))
  assert list(outputs) == list(plain) == ['x', 'free', 'halves']
  for key in outputs:
    np.testing.assert_allclose(outputs[key], plain[key], rtol=1e-5)


@pytest.mark.parametrize('mode', MODES)
def test_unroll_counts_products_of_constants(mode):
  """What depends on kernels alone passes its gradient on, too."""

  def run(form):
    def loop(dot, inputs):
      x = dot('k', tf.ones([2, 4]))
      return {'x': dot('k', x) * inputs['scale']}

    def function(kernel, scale):
      if form == 'unroll':
        return tfutils.unroll(loop, {'k': kernel}, {'scale': scale})['x']
      dot = lambda _, x: tf.matmul(x, kernel)
      return loop(dot, {'scale': scale})['x']

    return function

  inputs = normal([4, 4], 1), normal([2, 4], 2)
  results = evaluate(run('unroll'), inputs, mode=mode)
  assert_near(results, evaluate(run('plain'), inputs))


def test_gradients_keep_the_name_scope():
  """Profiles attribute them by it."""

  @tf.function
  def step(x):
    with tf.GradientTape() as tape, tf.name_scope('part'):
      y = tfutils.product(x, tf.ones([4, 3]))
    return tape.gradient(y, x)

  graph = step.get_concrete_function(tf.Variable(tf.ones([2, 4]))).graph
  names = [op.name for op in graph.get_operations() if 'MatMul' in op.type]
  assert len(names) >= 2 and all('part/' in name for name in names)
