"""How much memory agents need, from the settings alone, without TensorFlow.

These are estimates from below: sizes of vector observations and of actions are
known to the environment only, and libraries need more than the numbers.
"""

import re

from moto_tf.agents import METHODS
from moto_tf.config import is_read

NUMBER = 4  # Bytes of a float32.
# A trained weight, its gradient, and the two means of Adam.
COPIES = 4


def weights(config) -> int:
  """Bytes of all weights, with what training holds beside each of them."""
  if _model_free(config):
    return NUMBER * COPIES * _pixels(config)[0]
  rssm, stoch, feat = _latent(config)
  outputs = stoch if rssm.discrete else 2 * stoch
  embed, encoder, _ = _encoder(config)
  trained = encoder + _decoder(config, feat)[0]
  trained += stoch * rssm.hidden
  trained += (rssm.hidden + rssm.deter) * 3 * rssm.deter
  trained += (rssm.deter + embed) * rssm.hidden + rssm.hidden * outputs
  trained += rssm.ensemble * rssm.hidden * (rssm.deter + outputs)
  heads = [config.reward_head, config.actor]
  heads += [config.discount_head] if config.pred_discount else []
  trained += sum(_dense([feat, *head.layers]) for head in heads)
  critic = _dense([feat, *config.critic.layers])
  # A critic at least, and its target, which is not trained itself.
  return NUMBER * (COPIES * (trained + critic) + critic)


def gradient_step(config) -> int:
  """Bytes of a batch and of what its gradient needs."""
  if _model_free(config):
    return _model_free_step(config)
  rssm, stoch, feat = _latent(config)
  embed, _, encoder = _encoder(config)
  decoder = _decoder(config, feat)[1]
  records = config.replay.batch * config.replay.length
  image = image_bytes(config.env)
  states = 3 * rssm.deter + 2 * rssm.hidden + 3 * stoch
  step = 2 * image + encoder + decoder + embed + states
  drawn = is_read(config.flat, 'moto.start_states')
  starts = (config.moto.start_states if drawn else 0) or records
  imagined = starts * config.horizon * (states + rssm.ensemble * stoch)
  batches = records * image * (1 + config.replay.prefetch)
  return batches + NUMBER * (records * step + imagined)


def _model_free(config):
  """Whether a method has the settings of those without a world model."""
  return 'model_free' in METHODS[config.method].groups


def _model_free_step(config):
  batch, length = config.replay.batch, config.replay.length
  image, frames = image_bytes(config.env), config.model_free.frames
  batches = batch * length * image * (1 + config.replay.prefetch)
  # Stacks before and after each step, as bytes and as numbers.
  steps = batch * max(length - frames, 1)
  stacks = 2 * frames * image * (1 + NUMBER)
  return batches + steps * (stacks + NUMBER * _pixels(config)[1])


def _pixels(config):
  """Of one network without a world model: weights, numbers between layers."""
  part, size = config.model_free, config.env.image_size
  count, inner, latent = 0, 0, 0
  if config.env.image and re.fullmatch(config.encoder.cnn_keys, 'image'):
    before, latent = 3 * part.frames, part.latent
    for depth in part.channels:
      size, count = (size - 3) // 2 + 1, count + 9 * before * depth
      if size < 1:
        break  # Refused by the agent, which knows the image.
      inner, before = inner + size**2 * depth, depth
    count += max(size, 0) ** 2 * before * latent
  return count + _dense([latent, *part.layers]), inner


def latent_buffers(config) -> int:
  """Bytes of the buffers of LOMPO and COMBO, and of their copy when saved."""
  if 'latent' not in METHODS[config.method].groups:
    return 0
  feat, numbers = _latent(config)[2], 0
  for length in (max(config.replay.length - 1, 1), config.horizon):
    rows = config.latent.capacity // length
    numbers += rows * ((length + 1) * feat + 3 * length)
  return 2 * NUMBER * numbers


def image_bytes(env) -> int:
  """Bytes of the images of one record; `env` is that part of a Config."""
  return 3 * (env.image_size**2 + env.extra_size**2) if env.image else 0


def _latent(config):
  rssm = config.rssm
  stoch = rssm.stoch * (rssm.discrete or 1)
  return rssm, stoch, rssm.deter + stoch


def _encoder(config):
  """Size of the embedding, number of weights, numbers between the layers."""
  part, size, depth = config.encoder, config.env.image_size, 3
  embed, count, inner = 0, 0, 0
  if config.env.image and re.fullmatch(part.cnn_keys, 'image'):
    for i, kernel in enumerate(part.cnn_kernels):
      size, before, depth = (size - kernel) // 2 + 1, depth, part.cnn_depth << i
      if size < 1:
        break  # Refused by the encoder, which knows the image.
      count += kernel**2 * before * depth
      inner += size**2 * depth
    embed = max(size, 0) ** 2 * depth
    count += _dense([embed, *part.cnn_layers])
    embed = part.cnn_layers[-1] if part.cnn_layers else embed
  if part.mlp_keys != '$^':
    count += _dense(part.mlp_layers)
    embed += part.mlp_layers[-1]
  return embed, count, inner


def _decoder(config, feat):
  """Number of weights, numbers between the layers."""
  part, size = config.decoder, 1
  count, inner = 0, 0
  if config.env.image and re.fullmatch(part.cnn_keys, 'image'):
    depth = 32 * part.cnn_depth
    count += _dense([feat, *part.cnn_layers, depth])
    for i, kernel in enumerate(part.cnn_kernels):
      last = len(part.cnn_kernels) - 1 - i
      after = part.cnn_depth << (last - 1) if last else 3
      size, count = (size - 1) * 2 + kernel, count + kernel**2 * depth * after
      inner, depth = inner + size**2 * after, after
  if part.mlp_keys != '$^':
    count += _dense([feat, *part.mlp_layers])
  return count, inner


def _dense(sizes):
  """Weights between layers of these sizes."""
  return sum(a * b for a, b in zip(sizes, sizes[1:]))
