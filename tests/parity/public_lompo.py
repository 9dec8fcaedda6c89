"""LOMPO's public code on weights and noise that are given; see README."""

import contextlib
import importlib
import os
import pathlib
import sys
import types
from unittest import mock

# Its layers are those of Keras 2, which TensorFlow reads here when first used.
os.environ['TF_USE_LEGACY_KERAS'] = '1'
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions

PRECISION = types.SimpleNamespace(
  global_policy=lambda: types.SimpleNamespace(compute_dtype='float32')
)


def load(checkout: pathlib.Path):
  """Its program as a module, without the simulators that it imports."""
  mixed = types.ModuleType('mixed_precision')
  mixed.experimental = PRECISION  # That name went with TensorFlow 2.4.
  sys.modules.update(
    {
      'tensorflow.keras': tf.keras,
      'tensorflow.keras.mixed_precision': mixed,
      'wrappers': types.ModuleType('wrappers'),
    }
  )
  sys.path.insert(0, str(checkout))
  return importlib.import_module('lompo')


class Cell(tf.Module):
  """DreamerV2's GRU with layer norm, called as Keras calls its own."""

  def __init__(self, inputs, size):
    super().__init__()
    zeros = lambda *shape: tf.Variable(tf.zeros(shape))
    self.kernel, self.offset = zeros(inputs + size, 3 * size), zeros(3 * size)
    self.gain, self.bias = zeros(3 * size), zeros(3 * size)
    self._size = size

  def get_initial_state(self, inputs, batch, dtype):
    return tf.zeros([batch, self._size], dtype)

  def __call__(self, x, states):
    parts = tf.concat([x, *states], -1) @ self.kernel + self.offset
    mean, var = tf.nn.moments(parts, [-1], keepdims=True)
    parts = (parts - mean) / tf.sqrt(var + 1e-3) * self.gain + self.bias
    reset, new, update = tf.split(parts, 3, -1)
    new, update = tf.tanh(tf.sigmoid(reset) * new), tf.sigmoid(update - 1)
    state = update * new + (1 - update) * states[0]
    return state, [state]


class Public:
  """Its agent without data, logs and environments.

  Attributes:
    agent: its object.
    logged: the newest numbers that it would have logged, by their names.
    gradients: clipped gradients of the newest steps, by our names.
  """

  def __init__(self, program, ours, alpha: float):
    """Makes it of our sizes.

    Args:
      program: of `load`.
      ours: our agent.
      alpha: weight of the conservative term.
    """
    config, settings = program.define_config(), ours._config
    config.update(
      deter_size=settings.rssm.deter,
      stoch_size=settings.rssm.stoch,
      num_models=settings.rssm.ensemble,
      num_units=settings.reward_head.layers[0],
      cnn_depth=settings.encoder.cnn_depth,
      cnn_act=settings.encoder.act,
      agent_batch_size=settings.latent.batch,
      horizon=settings.horizon,
      log_every=1,
    )
    # Without its constructor, which reads a data set and trains.
    self.agent = agent = object.__new__(program.Lompo)
    agent._c, agent._actdim = config, ours.act_space.shape[0]
    agent._float, agent._metrics = 'float32', {}
    agent.lmbd, agent.alpha = config.lmbd, alpha
    agent._model_step = agent._agent_step = 0
    self.logged, self.gradients = {}, {}
    agent._write_summaries = lambda found, step: self.logged.update(found)
    agent._image_summaries = lambda *args: None
    # The Adam that TensorFlow 2 had when it was written.
    adam = tf.keras.optimizers.legacy.Adam
    with mock.patch.object(tf.optimizers, 'Adam', adam):
      agent._build_model()
    agent._dynamics._cell = Cell(config.deter_size, config.deter_size)
    self._touch(ours)
    self._pairs = list(self._find_pairs())
    for optimizer in (agent._model_opt, agent._qf_opt, agent._actor_opt):
      self._spy(optimizer._opt)

  def put(self, arrays: dict) -> None:
    """Takes over our weights."""
    for name, part, var in self._pairs:
      value = arrays[name]
      var.assign(value if part is None else value[part])

  def weights(self) -> dict:
    """Its weights by our names."""
    return self._gather(lambda var: var.numpy())

  def model_step(self, data: dict) -> None:
    self.agent._model_train_step(data)

  def behavior_step(self, batch: dict) -> None:
    """Its step on transitions, and that of the targets."""
    column = lambda key: batch[key][:, None]
    self.agent._agent_train_step(
      {
        'obs': batch['feat'],
        'actions': batch['action'],
        'next_obs': batch['next'],
        'rewards': column('reward'),
        'terminals': tf.zeros_like(column('reward')),
      }
    )
    self.agent._update_target_critics()

  def rows(self, method: str, *args, weight: float = 5.0) -> dict:
    """What it would write into its buffers.

    Args:
      method: that fills them.
      args: of it.
      weight: of the penalty.
    """
    rows = []
    add = lambda *values, sample_type: rows.append(
      [np.array(v) for v in values]
    )
    self.agent.latent_buffer = types.SimpleNamespace(add_samples=add)
    self.agent.lmbd = weight
    getattr(self.agent, method)(*args)
    names = 'feat', 'action', 'next', 'reward', 'terminal'
    parts = zip(*rows, strict=True)
    return {k: np.concatenate(v) for k, v in zip(names, parts, strict=True)}

  def _touch(self, ours):
    """Calls every network once, since layers are made when first called."""
    agent, count = self.agent, self.agent._c.num_models
    image = tf.zeros([1, *ours.obs_space['image'].shape])
    state = agent._dynamics.initial(1)
    action = tf.zeros([1, agent._actdim])
    agent._dynamics.obs_step(state, action, agent._encode({'image': image}))
    for head in range(count):
      agent._dynamics.img_step(state, action, k=head)
    feat = agent._dynamics.get_feat(state)
    for net in (agent._decode, agent._reward, agent._actor):
      net(feat)
    both = tf.concat([feat, action], -1)
    for net in (
      *(agent._qf1, agent._qf2),
      *(agent._target_qf1, agent._target_qf2),
    ):
      net(both)

  def _find_pairs(self):
    """(Our name, which member of it or None, its variable), for each."""
    agent = self.agent

    def layers(path, net, names):
      for i, name in enumerate(names):
        layer = net._modules[name]
        yield f'{path}/{i}/kernel', None, layer.kernel
        yield f'{path}/{i}/bias', None, layer.bias

    def single(path, layer, form='{}/{}'):
      yield form.format(path, 'kernel'), None, layer.kernel
      yield form.format(path, 'bias'), None, layer.bias

    def mlp(path, net, count):
      names = [f'h{i}' for i in range(count)]
      yield from layers(f'{path}/dense', net, names)
      yield from single(f'{path}/out', net._modules['hout'])

    def member(path, part, made):
      for i, layer in enumerate(made):
        yield f'{path}/kernel/{i}', part, layer.kernel
        yield f'{path}/bias/{i}', part, layer.bias

    h = [f'h{i}' for i in range(1, 6)]
    yield from layers('model/encoder/conv', agent._encode, h[:4])
    yield from single('model/decoder/dense', agent._decode._modules['h1'])
    yield from layers('model/decoder/deconv', agent._decode, h[1:])
    yield from mlp('model/reward', agent._reward, 2)
    yield from mlp('actor/mlp', agent._actor, 4)
    rssm, made = 'model/rssm', agent._dynamics._modules
    for name, layer in (('inp', 'img1'), ('post', 'obs1'), ('out', 'obs2')):
      yield from single(f'{rssm}/{name}', made[layer], '{}_{}')
    for part in ('kernel', 'offset', 'gain', 'bias'):
      cell = agent._dynamics._cell
      yield f'{rssm}/gru_{part}', None, getattr(cell, part)
    for head in range(agent._c.num_models):
      pair = made[f'img2_{head}'], made[f'img3_{head}']
      yield from member(f'{rssm}/prior', head, pair)
    critics = {
      'online': (agent._qf1, agent._qf2),
      'target': (agent._target_qf1, agent._target_qf2),
    }
    for kind, nets in critics.items():
      for i, net in enumerate(nets):
        names = 'h0', 'h1', 'h2', 'hout'
        made = [net._modules[name] for name in names]
        yield from member(f'critics/{kind}', i, made)

  def _gather(self, value):
    """Arrays by our names, members of a stack together."""
    found = {}
    for name, part, var in self._pairs:
      if part is None:
        found[name] = value(var)
      else:
        found.setdefault(name, []).append(value(var))
    return {k: np.array(v) for k, v in found.items()}

  def _spy(self, optimizer):
    """Keeps the gradients that an optimizer is given."""
    apply = optimizer.apply_gradients

    def spy(pairs):
      pairs = list(pairs)
      given = {id(v): g for g, v in pairs if g is not None}
      known = {id(v) for _, v in pairs}
      # A head that no step drew has none.
      of = lambda v: given[id(v)].numpy() if id(v) in given else 0 * v.numpy()
      found = self._gather(lambda v: of(v) if id(v) in known else None)
      self.gradients |= {k: v for k, v in found.items() if v.dtype != object}
      return apply(pairs)

    optimizer.apply_gradients = spy


@contextlib.contextmanager
def given(latents=(), heads=(), actions=(), uniforms=()):
  """Noise and heads in place of those it draws, in its order.

  Args:
    latents: standard normal noise of each state that it draws; None where the
      sample is thrown away.
    heads: number of the prior head of each step, likewise.
    actions: standard normal noise of actions.
    uniforms: uniform actions on [-1, 1].

  Yields:
    The shapes of noise that it asked for.
  """
  latents, heads, actions, uniforms = map(
    list, (latents, heads, actions, uniforms)
  )
  asked = set()

  def normal(shape, mean, std, *args):
    asked.add(tuple(shape))
    noise = latents.pop(0)
    return mean if noise is None else mean + std * noise

  def choice(count, size=None):
    head = heads.pop(0)
    return head if size is None else np.array([head])

  sample = lambda dist: dist.loc + dist.scale * actions.pop(0)
  uniform = lambda shape, minval, maxval: uniforms.pop(0)
  with contextlib.ExitStack() as stack:
    put = lambda *args: stack.enter_context(mock.patch.object(*args))
    put(tf.random, 'normal', normal)
    put(tf.random, 'uniform', uniform)
    put(np.random, 'choice', choice)
    put(distributions.Normal, 'sample', sample)
    yield asked
  assert not (latents or heads or actions or uniforms)
