"""Tiny agents of LOMPO and COMBO, shared by their tests."""

import numpy as np
import tensorflow as tf
from helpers import make_agent, naive_mlp, randomize, tiny_config

from moto_tf.nn.tfutils import make_seed

METHODS = ('lompo', 'combo')
SEED = tf.constant(make_seed(7))


def latent_config(method='lompo', **overrides):
  """Half of eight offline steps for the model, additions at every second.

  From vectors, since images take most of the time.
  """
  base = dict(
    env__image=False,
    encoder__mlp_keys='state',
    encoder__cnn_keys='$^',
    decoder__mlp_keys='state',
    decoder__cnn_keys='$^',
    rssm__discrete=0,
    kl__balance=0.5,
    offline_steps=8,
    slow_target_update=1,
    slow_target_fraction=0.005,
    latent__batch=6,
    latent__capacity=60,
    latent__add_every=2,
  )
  return tiny_config(method=method, **{**base, **overrides})


def latent_agent(method='lompo', noise=0, **overrides):
  """Weights are random throughout, and the target critics differ.

  `noise` is the seed of that.
  """
  agent = make_agent(latent_config(method, **overrides))
  randomize(agent, noise)
  return agent


def act(agent, feat):
  """What the policy does without noise."""
  return np.tanh(naive_mlp(agent.save(), 'actor/mlp', np.asarray(feat)))
