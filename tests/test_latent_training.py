"""LOMPO and COMBO: what the KL teaches, and the averaged weights that act."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import make_batch, tiny_config
from latent_helpers import METHODS, latent_agent, latent_config
from moto_naive import SEED, posterior

from moto_tf.nn.tfutils import split, swap

tfd = tfp.distributions


def test_the_kl_is_the_plain_one():
  """No balancing, so both sides get all of its gradient; no free nats."""
  agent = latent_agent()
  _, data = posterior(agent, make_batch(tiny_config(), firsts=((0, 3), (1, 2))))
  rssm, seeds = agent.model.rssm, split(SEED, 2)
  variables = rssm.variables
  with tf.GradientTape() as tape:
    _, _, metrics = agent.model.loss(data, SEED)
  found = tape.gradient(metrics['kl_loss'], variables)
  members = rssm.draw_members(data['action'].shape[1], seeds[1])
  with tf.GradientTape() as tape:
    embed = agent.model.encoder(data)
    post = rssm.observe(embed, data['action'], data['is_first'], seeds[0])
    prior = rssm.prior_one(swap(post['deter']), members)
    pair = swap(post['moments']), prior
    plain = tfd.kl_divergence(
      *(tfd.MultivariateNormalDiag(x[..., 0], x[..., 1]) for x in pair)
    )
    plain = tf.reduce_mean(plain)
  assert metrics['kl_loss'] == metrics['kl'] > 0
  np.testing.assert_allclose(metrics['kl_loss'], plain, 1e-5)
  for grad, whole in zip(found, tape.gradient(plain, variables), strict=True):
    grad, whole = map(tf.convert_to_tensor, (grad, whole))
    assert np.abs(whole).max() > 1e-5
    np.testing.assert_allclose(grad, whole, 1e-3, 1e-4 * np.abs(whole).max())


def pairs(agent):
  """Copies that act and the trained weights they follow, by name."""
  arrays = agent.save()
  copies = {k: v for k, v in arrays.items() if k.startswith('average/')}
  copies.pop('average/updates')
  names = {k: k.removeprefix('average/') for k in copies}
  trained = {
    k: arrays[name if name.startswith('actor/') else f'model/{name}']
    for k, name in names.items()
  }
  return copies, trained


# Steps of the model alone, and of both.
@pytest.mark.parametrize('step, moved', [(0, 'rssm'), (9, 'actor')])
@pytest.mark.parametrize('method', METHODS)
def test_averages_follow_at_every_step(method, step, moved):
  """By 9 / (10 + n) of the way after n updates, at last by 1 - decay."""
  agent = latent_agent(method, policy_average=0.5)
  batch = make_batch(latent_config(method))
  updates = agent.variables()['average/updates']
  for count, share in ((0, 0.9), (2, 0.75), (100, 0.5)):
    updates.assign(count)
    before, trained = pairs(agent)
    agent.train(batch, step)
    after, newest = pairs(agent)
    assert updates == count + 1
    assert before.keys() == after.keys() and len(after) > 10
    for key in after:
      expected = before[key] + share * (newest[key] - before[key])
      np.testing.assert_allclose(after[key], expected, 1e-5, 1e-6, err_msg=key)
      assert np.any(after[key] != before[key]), key
    assert any(
      np.any(newest[k] != trained[k]) for k in after if f'/{moved}/' in k
    )
