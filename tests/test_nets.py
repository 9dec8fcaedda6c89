"""Networks against naive loops, and the sizes of the paper."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_config
from plain import TOLERANCE, assert_near, evaluate

from moto_tf import rules
from moto_tf.nn import nets
from moto_tf.nn.layers import Layers, layer_norm
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

SHAPES = {'image': (16, 16, 3), 'state': (5,)}


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


def make_stack(members=3, kind='none', **kwargs):
  layers = Layers(0, **kwargs)
  stack = nets.StackedMLP(layers, members, 4, [6, 5], 2, 'elu', kind)
  scramble(stack)
  return stack


def naive_member(stack, member, x, kind):
  """One member of a stack as a loop over its layers."""
  kernels = [k.numpy()[member] for k in stack.kernel]
  biases = [b.numpy()[member] for b in stack.bias]
  for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
    x = x @ kernel
    if i == len(kernels) - 1:
      return x + bias
    if kind == 'layer':
      gain, offset = (w[i].numpy()[member] for w in (stack.gain, stack.offset))
      x = elu(norm(x + offset, gain, bias))
    else:
      x = elu(x + bias)


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_mlp_matches_numpy(kind):
  mlp = nets.MLP(Layers(0), 4, [6, 5], 2, 'elu', kind)
  scramble(mlp)
  x = expected = normal([3, 2, 4])
  for dense, layer in zip(mlp.dense, mlp.norm, strict=True):
    expected = expected @ dense.kernel.numpy() + dense.bias.numpy()
    if kind == 'layer':
      expected = norm(expected, layer.gain.numpy(), layer.bias.numpy())
    expected = elu(expected)
  expected = expected @ mlp.out.kernel.numpy() + mlp.out.bias.numpy()
  np.testing.assert_allclose(mlp(x), expected, rtol=1e-4, atol=1e-5)
  assert mlp.size == 2


def test_mlp_without_output_ends_in_its_last_layer():
  mlp = nets.MLP(Layers(0), 4, [6, 5], None, 'relu', 'none')
  assert mlp.size == 5 and mlp.out is None
  result = mlp(normal([3, 4])).numpy()
  assert result.shape == (3, 5) and (result >= 0).all()


@pytest.mark.parametrize('act', ['elu', 'relu', 'gelu', 'silu', 'tanh'])
def test_activations(act):
  mlp = nets.MLP(Layers(0), 4, [6], None, act, 'none')
  x = normal([3, 4])
  expected = keras.activations.get(act)(mlp.dense[0](x))
  np.testing.assert_allclose(mlp(x), expected, atol=1e-6)


@pytest.mark.parametrize('kind', ['none', 'layer'])
@pytest.mark.parametrize('members', [1, 3])
def test_stack_equals_separate_members(members, kind):
  stack = make_stack(members, kind)
  x = normal([7, 2, 4])
  result = stack(tf.constant(x))
  assert result.shape == (members, 7, 2, 2)
  for member in range(members):
    expected = naive_member(stack, member, x, kind)
    np.testing.assert_allclose(result[member], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_select_picks_one_member_per_row(kind):
  stack = make_stack(3, kind)
  x, members = normal([5, 2, 4]), [2, 0, 1, 1, 2]
  result = stack.select(tf.constant(x), tf.constant(members))
  every = stack(tf.constant(x)).numpy()
  expected = np.stack([every[m, t] for t, m in enumerate(members)])
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
  assert np.abs(every[0] - every[1]).max() > 0.1


def test_select_of_a_single_member():
  stack = make_stack(1)
  x = tf.constant(normal([5, 2, 4]))
  result = stack.select(x, tf.zeros([5], tf.int32))
  np.testing.assert_allclose(result, stack(x)[0], rtol=1e-5)


def rows_of(stack, kind):
  """`select` as a loop over rows and layers; plain operations."""

  def select(x, members):
    outputs, last = [], len(stack.kernel) - 1
    for y, member in zip(tf.unstack(x), tf.unstack(members), strict=True):
      for i, kernel in enumerate(stack.kernel):
        y = y @ kernel[member]
        if kind == 'layer' and i < last:
          y = y + stack.offset[i][member]
          mean = tf.reduce_mean(y, -1, keepdims=True)
          var = tf.math.reduce_variance(y, -1, keepdims=True)
          y = (y - mean) / tf.sqrt(var + 1e-3) * stack.gain[i][member]
        y = y + stack.bias[i][member]
        y = tf.nn.elu(y) if i < last else y
      outputs.append(y)
    return tf.stack(outputs)

  return select


def check_select(stack, kind, draw, mode='eager'):
  """Output and gradients of x and all weights, those of the plain loop."""
  outputs = []

  def select(x, members):
    outputs.append(stack.select(x, members))
    return outputs[0]

  inputs = normal([len(draw), 2, 4]), np.array(draw, np.int32)
  expected = evaluate(rows_of(stack, kind), inputs, stack.variables)
  results = evaluate(select, inputs, stack.variables, mode)
  assert_near(results, expected, TOLERANCE[stack._dtype.name])
  assert outputs[0].shape == (len(draw), 2, 2)
  assert outputs[0].dtype == stack._dtype


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('kind', ['none', 'layer'])
@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_select_equals_a_loop_over_rows(mode, kind, cpu):
  """Also where a member is drawn by no row, or by all."""
  stack = make_stack(4, kind, cpu=cpu)
  for draw in ([2, 0, 1, 1, 2], [3, 1, 3], [1, 1, 1], [2]):
    check_select(stack, kind, draw, mode)


@pytest.mark.parametrize('members', [1, 4])
def test_select_with_xla(members):
  draw = [members - 1, 0, members - 1]
  check_select(make_stack(members, 'layer'), 'layer', draw, 'xla')


@pytest.mark.parametrize('cpu', [False, True])
@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_select_in_low_precision(precision, cpu):
  stack = make_stack(4, 'layer', precision=precision, cpu=cpu)
  check_select(stack, 'layer', [2, 0, 1, 1, 2])


@pytest.mark.parametrize('kind', ['none', 'layer'])
@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_gradient_of_all_members(mode, kind):
  stack, x = make_stack(3, kind), normal([5, 2, 4])

  def loop(x):
    rows = rows_of(stack, kind)
    return tf.stack([rows(x, tf.fill([5], m)) for m in range(3)])

  results = evaluate(stack, [x], stack.variables, mode)
  assert_near(results, evaluate(loop, [x], stack.variables))


@pytest.mark.parametrize('precision', ['float32', 'mixed_float16'])
def test_layer_norm_equals_keras(precision):
  layer = keras.layers.LayerNormalization(epsilon=1e-3, dtype=precision)
  layer.build([None, 6])
  gain, bias = normal([6], 1), normal([6], 2)
  layer.set_weights([gain, bias])
  dtype = layer.compute_dtype
  x = tf.cast(normal([4, 6]) * 3 + 1, dtype)
  own = Layers(0, precision).norm(6)
  own.gain.assign(gain)
  own.bias.assign(bias)
  result = own(x)
  assert result.dtype == dtype
  tolerance = 1e-5 if precision == 'float32' else 1e-2
  np.testing.assert_allclose(result, layer(x), rtol=tolerance, atol=tolerance)


def test_layer_norm_of_large_float16_does_not_overflow():
  x = tf.constant([[60000.0, -60000.0, 0.0, 100.0]], tf.float16)
  result = layer_norm(x, tf.ones([4], x.dtype), tf.zeros([4], x.dtype))
  np.testing.assert_allclose(result, norm(x.numpy().astype(float), 1, 0), 1e-2)


def naive_conv(x, kernel, bias):
  """Convolution of stride 2 without padding, by loops: [N, H, W, C]."""
  size = kernel.shape[0]
  count = (x.shape[1] - size) // 2 + 1
  out = np.zeros([len(x), count, count, kernel.shape[-1]])
  for i in range(count):
    for j in range(count):
      patch = x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
      out[:, i, j] = np.einsum('nhwc,hwcd->nd', patch, kernel) + bias
  return out


def naive_deconv(x, kernel, bias):
  """Transposed convolution of stride 2 without padding: [N, H, W, C]."""
  size, before = kernel.shape[0], x.shape[1]
  after = (before - 1) * 2 + size
  out = np.zeros([len(x), after, after, kernel.shape[2]]) + bias
  for i in range(before):
    for j in range(before):
      rows, cols = slice(2 * i, 2 * i + size), slice(2 * j, 2 * j + size)
      out[:, rows, cols] += np.einsum('nc,hwdc->nhwd', x[:, i, j], kernel)
  return out


def test_encoder_matches_naive_convolutions():
  config = tiny_config(encoder__mlp_keys='state')
  encoder = nets.Encoder(Layers(0), SHAPES, config.encoder)
  scramble(encoder)
  obs = {'image': normal([2, 3, 16, 16, 3]), 'state': normal([2, 3, 5])}
  x = obs['image'].reshape([6, 16, 16, 3])
  for conv in encoder.conv:
    x = elu(naive_conv(x, conv.kernel.numpy(), conv.bias.numpy()))
  dense = encoder.mlp.dense[0]
  y = elu(obs['state'] @ dense.kernel.numpy() + dense.bias.numpy())
  expected = np.concatenate([x.reshape([2, 3, -1]), y], -1)
  result = encoder(obs)
  assert result.shape == (2, 3, encoder.size)
  np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_decoder_matches_naive_transposed_convolutions(kind):
  config = tiny_config(decoder__mlp_keys='state', decoder__norm=kind)
  decoder = nets.Decoder(Layers(0), 7, SHAPES, config.decoder)
  scramble(decoder)
  feat = normal([2, 3, 7])
  result = decoder(tf.constant(feat))
  x = feat.reshape([6, 7]) @ decoder.dense.kernel.numpy()
  x = (x + decoder.dense.bias.numpy())[:, None, None]
  for i, deconv in enumerate(decoder.deconv):
    x = naive_deconv(x, deconv.kernel.numpy(), deconv.bias.numpy())
    if i < len(decoder.deconv) - 1:
      layer = decoder.norm[i]
      if layer:
        x = norm(x, layer.gain.numpy(), layer.bias.numpy())
      x = elu(x)
  np.testing.assert_allclose(
    result['image'].mean(), x.reshape([2, 3, 16, 16, 3]), rtol=1e-3, atol=1e-3
  )
  out = decoder.out['state']
  expected = (
    decoder.mlp(tf.constant(feat)).numpy() @ out.kernel.numpy()
    + out.bias.numpy()
  )
  np.testing.assert_allclose(
    result['state'].mean(), expected, rtol=1e-4, atol=1e-4
  )


def test_sizes_of_the_paper():
  config = make_config()
  shapes = {'image': (64, 64, 3), 'state': (39,)}
  encoder = nets.Encoder(Layers(0), shapes, config.encoder)
  assert [c.kernel.shape for c in encoder.conv] == [
    (4, 4, 3, 48),
    (4, 4, 48, 96),
    (4, 4, 96, 192),
    (4, 4, 192, 384),
  ]
  assert encoder.size == 1536 and encoder.mlp_keys == []
  assert encoder({'image': normal([1, 1, 64, 64, 3])}).shape == (1, 1, 1536)
  decoder = nets.Decoder(Layers(0), 2048, shapes, config.decoder)
  assert decoder.dense.kernel.shape == (2048, 1024)
  assert [c.kernel.shape for c in decoder.deconv] == [
    (5, 5, 128, 1024),
    (5, 5, 64, 128),
    (6, 6, 32, 64),
    (6, 6, 3, 32),
  ]
  assert decoder(tf.constant(normal([1, 1, 2048])))['image'].mean().shape == (
    *(1, 1, 64, 64, 3),
  )


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_layers_after_and_before_the_convolutions(kind):
  """The paper's C.3; the convolutions are what they are without."""
  config = tiny_config(
    **{f'{x}coder__cnn_layers': [9, 8] for x in ('en', 'de')},
    **{f'{x}coder__norm': kind for x in ('en', 'de')},
  )
  plain = tiny_config(
    **{f'{x}coder__cnn_layers': [] for x in ('en', 'de')},
    **{f'{x}coder__norm': kind for x in ('en', 'de')},
  )
  encoder = nets.Encoder(Layers(0), SHAPES, config.encoder)
  scramble(encoder)
  other = nets.Encoder(Layers(0), SHAPES, plain.encoder)
  assert encoder.size == 8 and other.head is None
  assert not any('head' in name for name in other.named_variables())
  for name, var in other.named_variables().items():
    var.assign(encoder.named_variables()[name])
  obs = {'image': tf.constant(normal([2, 3, 16, 16, 3]))}
  x = other(obs).numpy()
  for dense, layer in zip(encoder.head.dense, encoder.head.norm, strict=True):
    x = x @ dense.kernel.numpy() + dense.bias.numpy()
    if kind == 'layer':
      x = norm(x, layer.gain.numpy(), layer.bias.numpy())
    x = elu(x)
  with tf.GradientTape() as tape:
    result = encoder(obs)
    loss = tf.reduce_sum(result**2)
  assert result.shape == (2, 3, 8)
  np.testing.assert_allclose(result, x, rtol=1e-3, atol=1e-3)
  grads = tape.gradient(loss, encoder.variables)
  assert all(np.abs(grad).max() > 0 for grad in grads)

  decoder = nets.Decoder(Layers(0), 7, SHAPES, config.decoder)
  scramble(decoder)
  assert decoder.dense.kernel.shape[0] == 8
  other = nets.Decoder(Layers(0), 8, SHAPES, plain.decoder)
  for name, var in other.named_variables().items():
    var.assign(decoder.named_variables()[name])
  feat = normal([2, 3, 7])
  with tf.GradientTape() as tape:
    result = decoder(tf.constant(feat))['image'].mean()
    loss = tf.reduce_sum(result**2)
  x = decoder.head(tf.constant(feat))
  np.testing.assert_allclose(
    result, other(x)['image'].mean(), rtol=1e-3, atol=1e-3
  )
  grads = tape.gradient(loss, decoder.variables)
  assert all(np.abs(grad).max() > 0 for grad in grads)


def test_several_images_are_stacked_and_split_again():
  shapes = {'wrist': (16, 16, 1), 'camera': (16, 16, 3), 'state': (5,)}
  config = tiny_config(encoder__cnn_keys='.*', decoder__cnn_keys='.*')
  encoder = nets.Encoder(Layers(0), shapes, config.encoder)
  assert encoder.cnn_keys == ['camera', 'wrist']
  assert encoder.conv[0].kernel.shape[2] == 4
  obs = {k: normal([1, 2, *s]) for k, s in shapes.items()}
  changed = {**obs, 'wrist': obs['wrist'] + 1}
  assert np.abs(encoder(obs) - encoder(changed)).max() > 1e-3
  decoder = nets.Decoder(Layers(0), 7, shapes, config.decoder)
  outputs = decoder(tf.constant(normal([1, 2, 7])))
  assert {k: tuple(v.mean().shape) for k, v in outputs.items()} == {
    'camera': (1, 2, 16, 16, 3),
    'wrist': (1, 2, 16, 16, 1),
  }


def test_keys_are_matched_whole_and_by_dimensions():
  config = tiny_config(encoder__cnn_keys='im.*|state', encoder__mlp_keys='st')
  shapes = {**SHAPES, 'im': (16, 16, 3), 'st': (2,), 'flag': ()}
  cnn, mlp = rules.select_keys(shapes, config.encoder, 'encoder')
  assert (cnn, mlp) == (['im', 'image'], ['st'])


@pytest.mark.parametrize('name', ['encoder', 'decoder'])
def test_keys_without_a_match_are_an_error(name):
  config = tiny_config(**{f'{name}__cnn_keys': 'img'})
  with pytest.raises(ConfigError) as error:
    rules.select_keys(SHAPES, config[name], name)
  for part in (f'--{name}.cnn_keys', "'img'", 'image', '(16, 16, 3)', 'state'):
    assert part in str(error.value)


@pytest.mark.parametrize(
  'shapes',
  [
    {'image': (16, 12, 3)},
    {'image': (16, 16, 3), 'image2': (32, 32, 3)},
  ],
)
def test_images_of_other_shapes_are_an_error(shapes):
  config = tiny_config(encoder__cnn_keys='.*', decoder__cnn_keys='.*')
  with pytest.raises(ConfigError, match=r'encoder\.cnn_keys.*square'):
    nets.Encoder(Layers(0), shapes, config.encoder)
  with pytest.raises(ConfigError, match=r'decoder\.cnn_keys.*square'):
    nets.Decoder(Layers(0), 7, shapes, config.decoder)


def test_too_small_images_are_an_error():
  config = tiny_config(encoder__cnn_kernels=[4, 4, 4, 4])
  with pytest.raises(ConfigError, match=r'(?s)encoder.*\(16, 16, 3\).*small'):
    nets.Encoder(Layers(0), SHAPES, config.encoder)


def test_decoder_of_another_size_is_an_error():
  config = tiny_config(decoder__cnn_kernels=[5, 6])
  with pytest.raises(ConfigError, match='14 pixels.*gives 16'):
    nets.Decoder(Layers(0), 7, SHAPES, config.decoder)


@pytest.mark.parametrize('size', [8, 16, 32, 48, 64, 84, 96, 100, 128, 224])
def test_kernels_that_fit_are_named(size):
  """And fit: other sizes than 64 are no dead end."""
  shapes = {'image': (size, size, 3)}
  config = tiny_config(decoder__cnn_kernels=[3], encoder__cnn_kernels=[999])
  kernels = {}
  for name, make in (
    ('encoder', lambda x: nets.Encoder(Layers(0), shapes, x)),
    ('decoder', lambda x: nets.Decoder(Layers(0), 7, shapes, x)),
  ):
    with pytest.raises(ConfigError) as error:
      make(config[name])
    found = re.search(rf'--{name}.cnn_kernels ([\d,]+)', str(error.value))
    kernels[f'{name}.cnn_kernels'] = found[1]
  config = config.update(kernels)
  encoded = nets.Encoder(Layers(0), shapes, config.encoder)(
    {'image': tf.zeros([2, size, size, 3])}
  )
  assert encoded.shape[0] == 2
  decoded = nets.Decoder(Layers(0), 7, shapes, config.decoder)(tf.zeros([2, 7]))
  assert decoded['image'].mean().shape == (2, size, size, 3)


@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_low_precision_is_near_float32(precision):
  config = tiny_config(encoder__mlp_keys='state', decoder__mlp_keys='state')
  obs = {'image': normal([2, 3, 16, 16, 3]), 'state': normal([2, 3, 5])}
  results = {}
  for name in ('float32', precision):
    layers = Layers(0, name)
    encoder = nets.Encoder(layers, SHAPES, config.encoder)
    decoder = nets.Decoder(layers, encoder.size, SHAPES, config.decoder)
    embed = encoder(obs)
    assert embed.dtype == layers.dtype
    assert {v.dtype for v in encoder.variables} == {tf.float32}
    means = {k: v.mean() for k, v in decoder(embed).items()}
    assert {v.dtype for v in means.values()} == {tf.float32}
    results[name] = [tf.cast(embed, tf.float32), *means.values()]
  for low, full in zip(results[precision], results['float32'], strict=True):
    np.testing.assert_allclose(low, full, atol=0.03)
