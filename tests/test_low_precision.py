"""What float16 and bfloat16 must not round, and that gradients survive them."""

import numpy as np
import pytest
import tensorflow as tf
from agent_helpers import train
from helpers import ACT, SPACES, make_agent, make_batch, tiny_config
from latent_helpers import METHODS as LATENT
from latent_helpers import latent_config
from model_free_naive import make_free

from moto_tf.agents.actor_critic import Critics
from moto_tf.agents.pixel_nets import Head, Inputs
from moto_tf.model.world_model import WorldModel
from moto_tf.nn import nets
from moto_tf.nn.layers import MANY, Layers
from moto_tf.nn.tfutils import ACTIVATIONS, make_seed

SHAPES = {k: v.shape for k, v in SPACES.items()}
pytestmark = pytest.mark.usefixtures('graphs')
LOW = pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
CPU = pytest.mark.parametrize('cpu', [False, True])


def model_losses(config, precision, cpu=False):
  """Losses by name, and the gradient of their sum by variable, in float64."""
  model = WorldModel(
    config, SHAPES, ACT.shape[0], Layers(config.seed, precision, cpu)
  )
  rng = np.random.default_rng(0)
  for var in model.variables:
    var.assign_add(rng.normal(0, 0.1, var.shape).astype(np.float32))
  batch = make_batch(config, firsts=((1, 3),))
  data = model.preprocess({k: tf.constant(v) for k, v in batch.items()})
  with tf.GradientTape() as tape:
    loss, _, losses = model.loss(data, tf.constant(make_seed(3)))[:3]
  grads = tape.gradient(loss, model.variables)
  number = lambda x: tf.cast(tf.convert_to_tensor(x), tf.float64).numpy()
  names = model.named_variables()
  return (
    {k: number(v) for k, v in losses.items()},
    dict(zip(names, map(number, grads), strict=True)),
  )


@LOW
def test_losses_are_near_float32(precision):
  config = tiny_config(encoder__mlp_keys='state', decoder__mlp_keys='state')
  expected, _ = model_losses(config, 'float32')
  found, _ = model_losses(config, precision)
  for key, value in expected.items():
    tolerance = 0.03 if key == 'image_loss' else 0.15
    assert found[key] == pytest.approx(value, rel=tolerance, abs=0.05), key


@CPU
@LOW
def test_gradients_of_every_weight_are_near_float32(precision, cpu):
  """Sums over many pixels and images are where a low precision gets lost."""
  settings = {'replay__batch': 8, 'replay__length': 16}
  config = tiny_config(decoder__mlp_keys='state', **settings)
  _, expected = model_losses(config, 'float32', cpu)
  _, found = model_losses(config, precision, cpu)
  for name, one in expected.items():
    other, size = found[name], np.linalg.norm(one)
    assert 0.9 * size < np.linalg.norm(other) < 1.1 * size, name
    assert np.vdot(one, other) > 0.95 * size * np.linalg.norm(other), name


@CPU
@LOW
def test_bias_of_a_convolution_gets_a_sum_over_all_pixels(precision, cpu):
  layers = Layers(0, precision, cpu)
  for layer, pixels in (
    (layers.conv(3, 4, 4), 6),
    (layers.conv(3, 4, 3), 9),
    (layers.deconv(3, 5, 5), 1),
    (layers.deconv(3, 3, 5), 3),
    (layers.deconv(3, 5, 5), 3),
  ):
    with tf.GradientTape() as tape:
      output = layer(tf.ones([500, pixels, pixels, 3]))
      loss = tf.reduce_sum(tf.cast(output, tf.float32))
    count = np.prod(output.shape[:-1])
    assert count > 1000
    np.testing.assert_allclose(
      tape.gradient(loss, layer.bias), count, rtol=0.01
    )


@LOW
def test_heads_do_not_round_their_numbers(precision):
  """bfloat16 would make 300 of 300.9, float16 301."""
  layers = Layers(0, precision)
  config = tiny_config(encoder__mlp_keys='state', decoder__mlp_keys='state')
  critics = Critics(layers, 2, 4, config)
  target = critics.state()[f'critics/target/bias/{len(config.critic.layers)}']
  inputs = Inputs(0, 0, 0, vector=4)
  mlp = nets.MLP(layers, 4, [6], 1, 'elu', 'none')
  decoder = nets.Decoder(layers, 4, {'state': (1,)}, config.decoder)
  one, two = (
    Head(layers, 0, inputs, config.model_free, 1, 0, n) for n in (0, 2)
  )
  x = tf.ones([5, 4], layers.dtype)
  heads = {
    lambda: mlp(x): mlp.out.bias,
    lambda: critics(x): critics.online.bias[-1],
    lambda: critics.target(x): target,
    lambda: decoder(x)['state'].mean(): decoder.out['state'].bias,
    lambda: one({'vector': x}): one.mlp.out.bias,
    lambda: two({'vector': x}): two.mlp.bias[-1],
  }
  for head, bias in heads.items():
    before = head()
    bias.assign_add(tf.fill(bias.shape, 300.9))
    assert before.dtype == tf.float32
    np.testing.assert_allclose(head() - before, 300.9, atol=1e-3)


@pytest.mark.parametrize('name', ['elu', 'gelu', 'tanh'])
def test_many_bfloat16_are_activated_in_float32(name):
  act = Layers(0, 'mixed_bfloat16', cpu=True).activation(name)
  x = np.random.default_rng(0).normal(size=MANY).astype(np.float32)
  x = tf.cast(x, tf.bfloat16)
  wide = tf.cast(x, tf.float32)
  with tf.GradientTape(persistent=True) as tape:
    tape.watch([x, wide])
    found, expected = act(x), ACTIVATIONS[name](wide)
  assert found.dtype == tf.bfloat16
  rounded = tf.cast(expected, tf.bfloat16)
  np.testing.assert_array_equal(
    tf.cast(found, tf.float32), tf.cast(rounded, tf.float32)
  )
  np.testing.assert_allclose(
    tf.cast(tape.gradient(found, x), tf.float32),
    tape.gradient(expected, wide),
    atol=0.01,
  )
  few = act(x[:9])
  np.testing.assert_allclose(
    tf.cast(few, tf.float32), tf.cast(found[:9], tf.float32), atol=0.01
  )
  plain = Layers(0, 'float32', cpu=True).activation(name)
  assert plain is ACTIVATIONS[name]


@pytest.mark.parametrize('name', ['relu', 'silu'])
def test_activations_that_gain_nothing_stay_in_bfloat16(name):
  layers = Layers(0, 'mixed_bfloat16', cpu=True)
  assert layers.activation(name) is ACTIVATIONS[name]


@LOW
@pytest.mark.parametrize('method', ['bc', 'sac', 'cql', 'iql', *LATENT])
def test_steps_of_the_other_methods_are_near_float32(method, precision):
  rows = {}
  for name in ('float32', precision):
    if method in LATENT:
      config = latent_config(method, precision=name)
      agent = make_agent(config)
    else:
      agent, config = make_free(method, precision=name)
    # At this scale nothing overflows, so that no step is skipped.
    arrays = agent.save()
    scales = [k for k in arrays if 'loss_scale/value' in k]
    agent.load({**arrays, **dict.fromkeys(scales, np.float32(64))})
    assert bool(scales) == (name == 'mixed_float16')
    rows[name] = train(agent, config, 8 if method in LATENT else 3)[-1]
  assert any(key.endswith('actor_loss') for key in rows['float32'])
  for key, value in rows['float32'].items():
    assert rows[precision][key] == pytest.approx(value, 0.05, 0.01), key
