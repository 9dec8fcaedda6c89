"""Agents without a world model in loops of numpy, and small ones to compare."""

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from helpers import ACT, SPACES, make_batch

from moto_tf.agents import make_agent
from moto_tf.nn.tfutils import split, uniform_int
from moto_tf.presets import make_config

FRAMES, PAD, GAMMA = 3, 2, 0.9


def make_free(method, **overrides):
  """A new agent of 16 x 16 images and states, eager, and its settings."""
  overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
  base = {
    'precision': 'float32',
    'replay.batch': 3,
    'replay.length': 6,
    'env.image_size': 16,
    'encoder.mlp_keys': 'state',
    'model_free.pad': PAD,
    'model_free.channels': [3, 4],
    'model_free.latent': 6,
    'model_free.layers': [7, 5],
  }
  base |= {'discount': GAMMA} if method != 'bc' else {}
  config = make_config('debug', method, {**base, **overrides})
  return make_agent(config, SPACES, ACT), config


def make_data(config):
  """A batch with episode starts inside, after terminal ends and others."""
  data = make_batch(config, firsts=((0, 3), (1, 4), (2, 5)))
  data['is_terminal'][0, 2] = data['is_terminal'][1, 5] = True
  return data


def numbers(agent):
  """Weights and others by name, in float64."""
  return {k: np.asarray(v, np.float64) for k, v in agent.save().items()}


def stacks(images, first):
  """[B, L, H, W, C] to [B, L - 2, H, W, 3 C], record by record."""
  rows = []
  for window, begins in zip(images, first, strict=True):
    row = []
    for t in range(FRAMES - 1, len(window)):
      frames, at = [window[t]], t
      while len(frames) < FRAMES:
        at = at if begins[at] else at - 1
        frames.insert(0, window[at])
      row.append(np.concatenate(frames, -1))
    rows.append(np.stack(row))
  return np.stack(rows)


def crops(images, seed):
  """Crops of [N, H, W, C] by the offsets that the seed draws."""
  offsets = uniform_int([len(images), 2], seed, 2 * PAD + 1).numpy()
  found = []
  for image, (top, left) in zip(images, offsets, strict=True):
    padded = np.pad(image, ((PAD, PAD), (PAD, PAD), (0, 0)), 'edge')
    rows, columns = image.shape[:2]
    found.append(padded[top : top + rows, left : left + columns])
  return np.stack(found)


def units(agent, state):
  """States in units of their mean and spread."""
  mean, scale = (
    agent.save()[f'standardize/{x}/state'] for x in ('mean', 'scale')
  )
  return np.clip((state - mean) / scale, -10, 10)


def transitions(agent, data, seed):
  """What `ModelFreeAgent.transitions` gives, one step after the other."""
  seeds = split(seed, 2)
  vector = units(agent, data['state'])
  stacked = stacks(data['image'], data['is_first'])
  steps = []
  for b in range(len(vector)):
    for t in range(FRAMES - 1, vector.shape[1] - 1):
      steps.append(
        {
          'before': stacked[b, t - FRAMES + 1],
          'after': stacked[b, t - FRAMES + 2],
          'vector': vector[b, t],
          'next_vector': vector[b, t + 1],
          'action': data['action'][b, t + 1],
          'reward': data['reward'][b, t + 1],
          'discount': 0.0 if data['is_terminal'][b, t + 1] else GAMMA,
          'mask': 0.0 if data['is_first'][b, t + 1] else 1.0,
        }
      )
  found = {k: np.stack([step[k] for step in steps]) for k in steps[0]}
  for name, crop_seed in zip(('before', 'after'), seeds, strict=True):
    found[name] = crops(found[name], crop_seed) / 255
  return found


def convolve(x, kernel, bias):
  """Stride 2 without padding, [N, H, W, I] to [N, ., ., O]."""
  count, rows, columns, _ = x.shape
  size = len(kernel)
  out = [
    [
      np.einsum('nijc,ijco->no', x[:, i : i + size, j : j + size], kernel)
      for j in range(0, columns - size + 1, 2)
    ]
    for i in range(0, rows - size + 1, 2)
  ]
  return np.moveaxis(np.array(out), 2, 0) + bias


def encode(arrays, name, pixels):
  x, i = pixels, 0
  while f'{name}/encoder/conv/{i}/kernel' in arrays:
    kernel, bias = (
      arrays[f'{name}/encoder/conv/{i}/{x}'] for x in ('kernel', 'bias')
    )
    x = np.maximum(convolve(x, kernel, bias), 0)
    i += 1
  return x.reshape(len(x), -1)


def embed(arrays, name, features, vector):
  """Latent of convolutional features, and vectors."""
  x = features @ arrays[f'{name}/latent/kernel']
  x = x + arrays[f'{name}/latent/bias']
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1)[:, None] + 1e-3)
  x = x * arrays[f'{name}/norm/gain'] + arrays[f'{name}/norm/bias']
  return np.concatenate([np.tanh(x), vector], -1)


def perceptron(arrays, name, x):
  """ReLU between layers, none after the last one."""
  for i in range(2):
    kernel, bias = (
      arrays[f'{name}/mlp/dense/{i}/{x}'] for x in ('kernel', 'bias')
    )
    x = np.maximum(x @ kernel + bias, 0)
  return x @ arrays[f'{name}/mlp/out/kernel'] + arrays[f'{name}/mlp/out/bias']


def single(arrays, name, pixels, vector):
  """A network with an encoder of its own."""
  features = encode(arrays, name, pixels)
  x = embed(arrays, f'{name}/head', features, vector)
  return perceptron(arrays, f'{name}/head', x)


def twins(arrays, name, pixels, vector, action):
  """Q-values [2, N], one critic after the other."""
  features = encode(arrays, name, pixels)
  x = embed(arrays, f'{name}/head', features, vector)
  x = np.concatenate([x, action], -1)
  values = []
  for member in range(2):
    y = x
    for i in range(3):
      y = y @ arrays[f'{name}/head/mlp/kernel/{i}'][member]
      y = y + arrays[f'{name}/head/mlp/bias/{i}'][member]
      y = np.maximum(y, 0) if i < 2 else y
    values.append(y[:, 0])
  return np.stack(values)


def squashed(arrays, pixels, vector, noise):
  """SAC's action and its log-density by SciPy's, by change of variables."""
  features = encode(arrays, 'critic', pixels)
  x = embed(arrays, 'actor', features, vector)
  mean, log_std = np.split(perceptron(arrays, 'actor', x), 2, -1)
  std = np.exp(np.clip(log_std, -20, 2))
  inner = mean + std * noise
  density = scipy.stats.norm(mean, std).logpdf(inner)
  density = density - np.log(1 - np.tanh(inner) ** 2)
  return np.tanh(inner), density.sum(-1)


def masked_mean(values, mask):
  """Over the steps that are of one episode; the rest is left out."""
  total, count = 0.0, 0
  for row in np.atleast_2d(values):
    for value, wanted in zip(row, mask, strict=True):
      if wanted:
        total, count = total + value, count + 1
  return total / count


def gradients(tape, loss, module):
  """Gradients by name; None where the loss does not reach a weight."""
  return tape.gradient(loss, module.named_variables())


def first_adam(grad, lr=3e-4, eps=1e-8):
  """How far Adam's first step moves a weight."""
  grad = np.asarray(tf.convert_to_tensor(grad), np.float64)
  return -lr * grad / (np.abs(grad) + eps / np.sqrt(0.001))
