"""Encoder and decoder against naive loops, and the sizes of the paper."""

import re

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_config
from net_helpers import elu, norm, normal, scramble

from moto_tf import rules
from moto_tf.nn import nets
from moto_tf.nn.layers import Layers
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

SHAPES = {'image': (16, 16, 3), 'state': (5,)}


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
