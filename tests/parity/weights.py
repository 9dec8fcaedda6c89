"""JAXRL2's agents with the weights that `ours.py` has written; see README."""

import contextlib
import functools

import flax.linen
import gym
import jax
import numpy as np
import optax
from flax.core import freeze
from flax.training.train_state import TrainState

# Epsilons of layer norm, and of Adam: ours stands before the correction of the
# bias, which divides it by sqrt(1 - 0.999^t) at step t.
NORM = {'ours': 1e-3, 'theirs': 1e-6}
ADAM = {'ours': 1e-8 / np.sqrt(1 - 0.999), 'theirs': 1e-8}
RATE = 3e-4
STATES = {
  'actor': '_actor',
  'critic': '_critic',
  'target': '_target_critic_params',
  'value': '_value',
  'temperature': '_temp',
}
CHANNELS = {
  'cnn_features': (32, 64, 128, 256),
  'cnn_filters': (3, 3, 3, 3),
  'cnn_strides': (2, 2, 2, 2),
}
SETTINGS = {
  'bc': {'actor_lr': RATE},
  'sac': {'init_temperature': 0.1, 'critic_reduction': 'mean'},
  'cql': {'cql_alpha': 5.0, 'tau': 0.005, 'share_encoder': True},
  'iql': {'expectile': 0.5, 'A_scaling': 3.0},
}
LayerNorm = flax.linen.LayerNorm


def pick(arrays, prefix):
  """Arrays whose name begins so, by the rest of it."""
  start = f'{prefix}/'
  return {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}


def parameters(arrays, method, seen):
  """Theirs from ours, by the names of our modules."""
  policy = 'squashed' if method in ('sac', 'cql') else 'normal'
  kinds = {
    'actor': policy,
    'critic': 'twins',
    'target': 'twins',
    'value': 'one',
  }
  found = {}
  for name, kind in kinds.items():
    part = pick(arrays, name)
    if not part:
      continue
    eyes = pick(arrays, 'critic' if kind == 'squashed' else name)
    head = part if kind == 'squashed' else pick(part, 'head')
    found[name] = _network(head, kind)
    if seen == 'pixels':
      found[name] = {
        'encoder': _encoder(pick(eyes, 'encoder')),
        'network': found[name],
        'Dense_0': pick(head, 'latent'),
        'LayerNorm_0': {'scale': head['norm/gain'], 'bias': head['norm/bias']},
      }
  if 'temperature/log' in arrays:
    found['temperature'] = {'log_temp': arrays['temperature/log']}
  return found


def _network(arrays, kind):
  """Parameters of a head after the latent."""
  if kind == 'twins':
    *hidden, out = [
      {k: arrays[f'mlp/{k}/{i}'] for k in ('kernel', 'bias')} for i in range(3)
    ]
    # Theirs sees the action before the latent.
    hidden[0]['kernel'] = np.roll(hidden[0]['kernel'], 4, 1)
  else:
    hidden = [pick(arrays, f'mlp/dense/{i}') for i in range(2)]
    out = pick(arrays, 'mlp/out')
  layers = {f'Dense_{i}': layer for i, layer in enumerate(hidden)}
  if kind == 'normal':
    return {'MLP_0': layers, 'Dense_0': out}
  if kind == 'squashed':
    halves = {k: np.split(v, 2, -1) for k, v in out.items()}
    heads = {f'Dense_{i}': {k: v[i] for k, v in halves.items()} for i in (0, 1)}
    return {'MLP_0': layers, **heads}
  whole = {'MLP_0': {**layers, 'Dense_2': out}}
  return {'VmapStateActionValue_0': whole} if kind == 'twins' else whole


def _encoder(arrays):
  found = {f'Conv_{i}': pick(arrays, f'conv/{i}') for i in range(4)}
  # Theirs has the frames of a color together, ours the colors of a frame.
  kernel = found['Conv_0']['kernel']
  parts = kernel.reshape(*kernel.shape[:2], 3, 3, kernel.shape[-1])
  found['Conv_0']['kernel'] = parts.swapaxes(2, 3).reshape(kernel.shape)
  return found


def make_learner(agents, method, seen, arrays, epsilons):
  """Their agent of a method, with our weights and the epsilons of one side.

  Args:
    agents: the module jaxrl2.agents.
    method, seen: as of the file's name.
    arrays: of the file.
    epsilons: ours or theirs.
  """
  flax.linen.LayerNorm = functools.partial(LayerNorm, epsilon=NORM[epsilons])
  action = arrays['action'][:1]
  name = {'bc': 'BC', 'sac': 'SAC', 'cql': 'CQL', 'iql': 'IQL'}[method]
  settings = dict(SETTINGS[method])
  if seen == 'pixels':
    name = 'DrQ' if method == 'sac' else f'Pixel{name}'
    images = np.moveaxis(arrays['images'][:1], 1, -1)
    inputs = {'pixels': images[..., :3]}, action
    settings |= CHANNELS
  elif method == 'sac':
    box = functools.partial(gym.spaces.Box, dtype=np.float32)
    shape = arrays['before'].shape[1:]
    inputs = box(-9, 9, shape), box(-1, 1, action.shape[1:])
  else:
    inputs = arrays['before'][:1], action
    settings |= {'distr': 'unitstd_normal'} if method == 'bc' else {}
  with contextlib.redirect_stdout(None):
    learner = getattr(agents, f'{name}Learner')(0, *inputs, **settings)
  weights = parameters(pick(arrays, 'old'), method, seen)
  for name, attribute in STATES.items():
    if not hasattr(learner, attribute):
      continue
    before, new = getattr(learner, attribute), freeze(weights[name])
    shapes = [
      jax.tree.map(np.shape, dict(x))
      for x in (before if name == 'target' else before.params, weights[name])
    ]
    assert shapes[0] == shapes[1], (name, shapes)
    if name != 'target':
      adam = optax.adam(RATE, eps=ADAM[epsilons])
      new = TrainState.create(apply_fn=before.apply_fn, params=new, tx=adam)
    setattr(learner, attribute, new)
  return learner
