"""Settings of networks and of the KL reach what they are named after."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_agent, tiny_config
from test_world_model import SEED, make_data, make_model, naive_kl

from moto_tf.agents.noisy_actor import NoisyActor
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import split, swap

BOTH = {'encoder__mlp_keys': 'state', 'decoder__mlp_keys': 'state'}
# What each activation changes.
PARTS = {
  'encoder': {'encoder/image', 'encoder/vector'},
  'decoder': {'decoder/image', 'decoder/state'},
  'rssm': {'posterior', 'prior'},
  'reward_head': {'reward'},
  'discount_head': {'discount'},
  'actor': {'actor'},
  'critic': {'critic', 'critic/target'},
}


@pytest.fixture(scope='module', autouse=True)
def graphs():
  """Leaves tf.function on for the tests that follow."""
  yield
  tf.config.run_functions_eagerly(False)


def draw(*shape):
  """Inputs that are the same for all agents, some of them below zero."""
  rng = np.random.default_rng(0)
  return tf.constant(rng.normal(size=shape), tf.float32)


def outputs(agent):
  """What every network makes of the same inputs, by name."""
  model, behavior = agent.model, agent.behavior
  rssm, encoder = model.rssm, model.encoder
  feat, action = draw(3, 2, model.feat), draw(3, 2, 2)
  obs = {'image': draw(3, 2, 16, 16, 3), 'state': draw(3, 2, 5)}
  embed = encoder(obs)
  size = encoder.size - encoder.mlp.size
  first = tf.constant([[1.0, 0]] * 3)
  post = rssm.observe(draw(3, 2, encoder.size), action, first, SEED)
  decoded = model.decoder(feat)
  found = {
    'encoder/image': embed[..., :size],
    'encoder/vector': embed[..., size:],
    'decoder/image': decoded['image'].mean(),
    'decoder/state': decoded['state'].mean(),
    'posterior': post['logit'],
    'prior': rssm.prior_all(draw(3, 2, rssm.deter)),
    'reward': model.reward(feat),
    'discount': model.discount(feat),
    'actor': behavior.actor.outputs(feat),
    'critic': behavior.critics(feat, action),
    'critic/target': behavior.critics.target(feat, action),
  }
  return {k: np.asarray(v) for k, v in found.items()}


def make_outputs(**settings):
  agent = make_agent(tiny_config(pred_discount=True, **BOTH, **settings))
  return outputs(agent)


@pytest.fixture(scope='module')
def default():
  return make_outputs()


@pytest.mark.parametrize('name', PARTS)
def test_an_activation_is_that_of_its_part(default, name):
  """Of all networks in it, and of no other; weights are the same."""
  found = make_outputs(**{f'{name}__act': 'relu'})
  differ = {k for k in found if np.abs(found[k] - default[k]).max() > 1e-3}
  assert differ == PARTS[name]
  same = {k for k in found if np.array_equal(found[k], default[k])}
  assert same == found.keys() - differ
  if name == 'encoder':  # It ends in an activation.
    for key in PARTS[name]:
      assert default[key].min() < 0 == found[key].min() < found[key].max()


def test_an_activation_is_that_of_the_layers_beside_the_convolutions():
  for act in ('elu', 'relu'):
    parts = {}
    for name in ('encoder', 'decoder'):
      parts |= {f'{name}__cnn_layers': [6], f'{name}__act': act}
    model = make_agent(tiny_config(**parts)).model
    for head in (model.encoder.head, model.decoder.head):
      inputs = head.dense[0].kernel.shape[0]
      values = head(draw(4, inputs)).numpy()
      assert values.max() > 0 and (values.min() < 0) == (act == 'elu')


def test_the_activation_of_a_policy_with_noise():
  """That of LOMPO and COMBO."""
  elu, relu = (
    NoisyActor(Layers(0), 7, 2, tiny_config(actor__act=act).actor, 0.2)
    for act in ('elu', 'relu')
  )
  assert np.abs(elu(draw(4, 7)) - relu(draw(4, 7))).max() > 1e-3


def test_layers_of_heads_are_their_own():
  config = tiny_config(
    pred_discount=True,
    reward_head__layers=[5],
    discount_head__layers=[7],
    actor__layers=[9],
    critic__layers=[11],
  )
  agent = make_agent(config)
  feat = agent.model.feat
  shapes = {k: v.shape for k, v in agent.save().items() if '_opt/' not in k}
  for name, units, output in (
    ('model/reward', 5, 1),
    ('model/discount', 7, 1),
    ('actor/mlp', 9, 4),
  ):
    assert shapes[f'{name}/dense/0/kernel'] == (feat, units)
    assert shapes[f'{name}/out/kernel'] == (units, output)
  for name in ('online', 'target'):
    assert shapes[f'critics/{name}/kernel/0'] == (2, feat + 2, 11)
    assert shapes[f'critics/{name}/kernel/1'] == (2, 11, 1)


# The KL


def naive_loss(values, free, balance, free_avg):
  """DreamerV2's rule, of the KL of every state."""
  if balance == 0.5 or not free_avg:
    return np.mean([max(value, free) for value in values.ravel()])
  return max(values.mean(), free)


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'free': 50.0},
    {'forward': True},
    {'free': 3.0},
    {'free': 3.0, 'free_avg': False},
    {'free': 3.0, 'balance': 0.5},
  ],
)
def test_settings_of_the_kl_reach_the_loss(settings):
  """Against the KL of every state, by the members that were drawn."""
  config = tiny_config()
  model = make_model(config)
  data = make_data(model, config, firsts=((1, 3),))
  _, post, _ = model.loss(data, SEED)
  members = model.rssm.draw_members(6, split(SEED, 2)[1])
  prior = model.rssm.prior_one(swap(post['deter']), members).numpy()
  pair = swap(post['logit']).numpy(), prior
  values = naive_kl(*pair)
  other = naive_kl(*pair[::-1])
  assert abs(values.mean() - other.mean()) > 0.1
  # Some states are below 3, and their mean is not.
  assert values.min() < 2.5 and 3.2 < values.mean() < values.max() < 50
  changed = tiny_config(**{f'kl__{k}': v for k, v in settings.items()})
  _, _, metrics = make_model(changed).loss(data, SEED)
  wanted = {'free': 0.0, 'balance': 0.8, 'free_avg': True, **settings}
  forward = wanted.pop('forward', False)
  expected = naive_loss(other if forward else values, **wanted)
  np.testing.assert_allclose(metrics['kl_loss'], expected, rtol=1e-4)
  if settings.get('free') == 50:
    np.testing.assert_allclose(metrics['kl_loss'], 50, rtol=1e-6)


@pytest.mark.parametrize('balance', [0.8, 0.5, 0.2])
def test_the_balance_of_the_kl_reaches_its_gradient(balance):
  """As a share of the plain KL's gradient by the prior heads."""
  config = tiny_config(kl__balance=balance)
  model = make_model(config)
  data = make_data(model, config)
  heads = model.rssm.prior.variables

  def gradient(name):
    with tf.GradientTape() as tape:
      loss = model.loss(data, SEED)[2][name]
    return map(tf.convert_to_tensor, tape.gradient(loss, heads))

  share = 1.0 if balance == 0.5 else balance
  # The KL itself is a metric, whose gradient by the prior is whole.
  for grad, whole in zip(gradient('kl_loss'), gradient('kl'), strict=True):
    assert np.abs(whole).max() > 1e-4
    np.testing.assert_allclose(grad, share * whole, rtol=1e-3, atol=1e-7)
