"""What agents without a world model share: networks, transitions, acting.

Encoder and heads as in the paper's C.4: the convolutions of D4PG, a latent of
50 with layer norm and tanh, and two layers of 256.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moto_tf.agents.base import Agent, check_mode, lane_noise
from moto_tf.agents.frames import push_frame, random_crops, stack_frames
from moto_tf.nn.kernels import shrink
from moto_tf.nn.layers import Layers, Module
from moto_tf.nn.nets import MLP, StackedMLP
from moto_tf.nn.optimizer import Optimizer
from moto_tf.nn.standardize import Standardize
from moto_tf.nn.tfutils import split
from moto_tf.rules import ConfigError, select_keys

KERNEL = 3  # Of every convolution, with stride 2 and no padding (paper C.4).


class Inputs(NamedTuple):
  """Sizes of what the networks see: a stack of images, vectors; 0 without.

  Attributes:
    rows, columns: of the images.
    channels: of a stack of all images.
    vector: numbers of all vectors.
  """

  rows: int
  columns: int
  channels: int
  vector: int


class Transitions(NamedTuple):
  """N steps of the data, of which some may lead from one episode to the next.

  Attributes:
    obs, next: what was seen before and after, 'pixels' [N, H, W, C] in [0, 1]
      and 'vector' [N, V], each if there is one. `next` has no gradient to give.
    action: [N, A], what was done in between.
    reward: [N], received with `next`.
    discount: [N], gamma, or 0 where `next` ends the task.
    mask: [N], 1 for a step within an episode, else 0.
  """

  obs: dict
  next: dict
  action: tf.Tensor
  reward: tf.Tensor
  discount: tf.Tensor
  mask: tf.Tensor

  def mean(self, values: tf.Tensor) -> tf.Tensor:
    """Mean over the steps within episodes of [..., N], and over the rest."""
    count = tf.maximum(tf.reduce_sum(self.mask), 1)
    sums = tf.reduce_sum(self.mask * values, -1) / count
    return tf.reduce_mean(sums)


class PixelEncoder(Module):
  """Convolutions over stacked images; vectors pass by as they are."""

  def __init__(self, layers: Layers, inputs: Inputs, channels: list[int]):
    self.conv, before = [], inputs.channels
    for units in channels if before else ():
      self.conv.append(layers.conv(before, units, KERNEL))
      before = units
    kernels = [KERNEL] * len(channels)
    sides = [shrink(size, kernels) for size in (inputs.rows, inputs.columns)]
    if before and min(sides) < 1:
      raise ConfigError(
        f'model_free.channels: images of {inputs.rows} x {inputs.columns} '
        f'pixels are too small for {len(channels)} stride-2 convolutions with '
        f'kernels of {KERNEL}; use larger images (env.image_size), or fewer '
        'channels, such as --model_free.channels 32,64.'
      )
    self.size = sides[0] * sides[1] * before if before else 0
    self._dtype = layers.dtype

  def __call__(self, obs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Observations to features, 'pixels' [N, size] and 'vector' [N, V]."""
    features = dict(obs)
    if self.conv:
      x = tf.cast(obs['pixels'], self._dtype)
      for conv in self.conv:
        x = tf.nn.relu(conv(x))
      features['pixels'] = tf.reshape(x, [x.shape[0], self.size])
    return features


class Head(Module):
  """Latent of the features, vectors and actions beside it, then an MLP.

  Args:
    layers: makes the weights.
    pixels: size of the features of images, 0 without.
    inputs: sizes of the observations.
    config: the settings model_free.
    outputs: numbers of the result.
    action: size A of an action that is seen, 0 without.
    members: MLPs on the same latent; 0: one, and no axis for it.
  """

  def __init__(
    self,
    layers: Layers,
    pixels: int,
    inputs: Inputs,
    config,
    outputs: int,
    action: int = 0,
    members: int = 0,
  ):
    self.latent = layers.dense(pixels, config.latent) if pixels else None
    self.norm = layers.norm(config.latent) if pixels else None
    size = (config.latent if pixels else 0) + inputs.vector + action
    shape = size, config.layers, outputs, 'relu', 'none'
    self.mlp = (
      StackedMLP(layers, members, *shape) if members else MLP(layers, *shape)
    )
    self._dtype = layers.dtype

  def __call__(
    self, features: dict[str, tf.Tensor], action: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Numbers of the head in float32.

    Args:
      features: of `PixelEncoder`, [N, ...].
      action: [..., N, A] where actions are seen, several for the same features.

    Returns:
      [..., N, outputs], with members [members, ..., N, outputs].
    """
    parts = []
    if self.latent:
      parts.append(tf.tanh(self.norm(self.latent(features['pixels']))))
    if 'vector' in features:
      parts.append(features['vector'])
    x = tf.concat([tf.cast(part, self._dtype) for part in parts], -1)
    if action is not None:
      x = tf.broadcast_to(x, [*action.shape[:-1], x.shape[-1]])
      x = tf.concat([x, tf.cast(action, self._dtype)], -1)
    return tf.cast(self.mlp(x), tf.float32)


class Net(Module):
  """Encoder and head in one; their arguments are those of `Head`."""

  def __init__(self, layers: Layers, inputs: Inputs, config, *args, **kwargs):
    self.encoder = PixelEncoder(layers, inputs, config.channels)
    self.head = Head(layers, self.encoder.size, inputs, config, *args, **kwargs)

  def __call__(
    self, obs: dict[str, tf.Tensor], action: tf.Tensor | None = None
  ) -> tf.Tensor:
    """As of `Head`, from observations."""
    return self.head(self.encoder(obs), action)


class ModelFreeAgent(Agent):
  """Base of agents that learn from transitions alone.

  Subclasses make their networks, name them by `learn`, and implement `update`
  and `act`.

  Attributes:
    inputs: sizes of the observations.
    size: A of an action.
    modules, optimizers: what learns and by what, by name.
    next_seen: whether `update` looks at the next observation.
  """

  next_seen = True

  def __init__(self, config, obs_space: dict, act_space):
    super().__init__(config, obs_space, act_space)
    self.free = config.model_free
    shapes = {k: tuple(v.shape) for k, v in obs_space.items()}
    self._images, self._vectors = select_keys(shapes, config.encoder, 'encoder')
    self.input_keys = [*self._images, *self._vectors]
    self.obs_keys = sorted(self.input_keys)
    self.inputs = measure(shapes, self._images, self._vectors, self.free)
    self.size = act_space.shape[0]
    self.standardize = Standardize({k: shapes[k] for k in self._vectors})
    self.modules, self.optimizers = {}, {}
    self.functions = {'update': self.compile(self._step, jit=True)}
    self._acting = self.compile(self._act_step)

  def learn(self, **modules: Module) -> None:
    """Gives each module an optimizer of its name, and saves both."""
    for name, module in modules.items():
      self.modules[name] = module
      self.optimizers[name] = Optimizer(
        name,
        module.named_variables(),
        **self._config.model_free_opt,
        precision=self.layers.precision,
      )

  def net(self, outputs: int, action: int = 0, members: int = 0) -> Net:
    """A new network on observations; arguments as of `Head`."""
    return Net(self.layers, self.inputs, self.free, outputs, action, members)

  def update(
    self, batch: Transitions, seed: tf.Tensor, rate: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """One gradient step of everything that learns.

    Args:
      batch: steps of the data, with images cropped at random.
      seed: [2].
      rate: factor on the actor's learning rate.

    Returns:
      Scalar metrics.
    """
    raise NotImplementedError

  def act(
    self, obs: dict[str, tf.Tensor], noise: tf.Tensor, scale: float, how: str
  ) -> tf.Tensor:
    """Actions [N, A] for observations as of `Transitions.obs`.

    Args:
      obs: what is seen.
      noise: standard normal, [N, A].
      scale: factor on the policy's standard deviation.
      how: sample, mean or mode.
    """
    raise NotImplementedError

  def fit(self, records: Callable[[str], np.ndarray]) -> None:
    """Mean and spread of vector observations; see Agent.fit."""
    units = self.standardize
    units.fit({key: records(key) for key in units.keys})

  def policy(
    self,
    obs: dict[str, np.ndarray],
    state: dict | None,
    lanes: tuple[np.ndarray, np.ndarray],
    mode: str = 'train',
  ) -> tuple[np.ndarray, dict]:
    """See Agent.policy. The state holds the stacks of frames, by image key."""
    check_mode(mode)
    first, count = obs['is_first'], self.free.frames
    frames = {
      key: push_frame(state[key] if state else None, obs[key], first, count)
      for key in self._images
    }
    seen = {**frames, **{key: obs[key] for key in self._vectors}}
    seen = {k: tf.convert_to_tensor(v) for k, v in seen.items()}
    uniform = tf.convert_to_tensor(lane_noise(lanes, self.size))
    return self._acting(seen, uniform, mode).numpy(), frames

  def variables(self) -> dict[str, tf.Variable]:
    found = self.standardize.state('standardize/')
    for name, module in self.modules.items():
      found |= module.named_variables(f'{name}/')
    for name, optimizer in self.optimizers.items():
      found |= optimizer.named_variables(f'{name}_opt/')
    return found

  def policy_variables(self) -> dict[str, tf.Variable]:
    wanted = lambda name: name.startswith(('actor/', 'standardize/'))
    return {k: v for k, v in self.variables().items() if wanted(k)}

  def traces(self, batch: dict[str, np.ndarray]) -> Iterator[tuple]:
    """See Agent.traces."""
    args = self._args(batch, 0)
    graph = self.functions['update'].get_concrete_function(*args).graph
    yield 'update', graph, None

  def transitions(
    self, data: dict[str, tf.Tensor], seed: tf.Tensor
  ) -> Transitions:
    """The steps of windows, as many as there are records after full stacks.

        record     0    1    2    3    4         frames: 3
        stack                s0   s1   s2
        step                    a0   a1          s0 with a0 and s1, ...

    A step is one that leads from record to record of an episode, so not to one
    that is first. Every step of the data is as likely as any other.

    Args:
      data: batch of the replay [B, L, ...].
      seed: [2], of the crops.
    """
    begin = self.free.frames - 1
    seeds = split(seed, 2)
    obs, after = {}, {}
    with tf.name_scope('frames'):
      stacks = [
        stack_frames(data[k], data['is_first'], begin + 1) for k in self._images
      ]
      if stacks:
        stack = tf.concat(stacks, -1)
        obs['pixels'] = self._crop(flat(stack[:, :-1]), seeds[0])
        if self.next_seen:
          after['pixels'] = self._crop(flat(stack[:, 1:]), seeds[1])
    vectors = [self.standardize(k, data[k]) for k in self._vectors]
    if vectors:
      vector = tf.concat(vectors, -1)[:, begin:]
      obs['vector'], after['vector'] = flat(vector[:, :-1]), flat(vector[:, 1:])
    record = lambda key: flat(tf.cast(data[key], tf.float32)[:, begin + 1 :])
    return Transitions(
      obs=obs,
      next=after,
      action=record('action'),
      reward=record('reward'),
      discount=self._config.discount * (1 - record('is_terminal')),
      mask=1 - record('is_first'),
    )

  def decay(self, step: int) -> float:
    """Factor on the actor's learning rate, 1 where it does not decay."""
    del step
    return 1.0

  def cosine(self, step: int) -> float:
    """From 1 to 0 over all gradient steps of the run, by a cosine."""
    config = self._config
    total = config.offline_steps + config.online_steps
    return 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1)))

  def _crop(self, images, seed):
    """In the compute precision, within [0, 1]."""
    cpu = self.layers.cpu
    return self._scale(random_crops(images, self.free.pad, seed, cpu))

  def _scale(self, images):
    return tf.cast(images, self.layers.dtype) / 255

  def _args(self, batch, step):
    data = {k: tf.convert_to_tensor(v) for k, v in batch.items()}
    return data, self._seed(1, step), tf.constant(self.decay(step))

  def _train(self, batch, step):
    return self.functions['update'](*self._args(batch, step))

  def _step(self, data, seed, rate):
    crop_seed, seed = split(seed, 2)
    return self.update(self.transitions(data, crop_seed), seed, rate)

  def _act_step(self, obs, uniform, mode):
    seen = {}
    if self._images:
      stack = tf.concat([obs[k] for k in self._images], -1)
      seen['pixels'] = self._scale(stack)
    if self._vectors:
      vectors = [self.standardize(k, obs[k]) for k in self._vectors]
      seen['vector'] = tf.concat(vectors, -1)
    train = mode == 'train'
    how = 'sample' if train else self._config.eval_action
    scale = self._config.collect_std if train else 1.0
    noise = tf.math.ndtri(uniform)
    return tf.clip_by_value(self.act(seen, noise, scale, how), -1.0, 1.0)


def measure(
  shapes: dict[str, tuple], images: list[str], vectors: list[str], config
) -> Inputs:
  """Sizes of the observations of these keys.

  Args:
    shapes: by key.
    images, vectors: keys of both kinds.
    config: the settings model_free.

  Raises:
    ConfigError: images differ in size, or are smaller than what is cropped.
  """
  sides = {shapes[k][:2] for k in images}
  if len(sides) > 1:
    raise ConfigError(
      f'encoder.cnn_keys: the images {images} are stacked along channels and '
      f'must be of one size, but have sizes {sorted(sides)}; narrow the '
      'regular expression.'
    )
  rows, columns = sides.pop() if sides else (0, 0)
  if images and config.pad >= min(rows, columns):
    raise ConfigError(
      f'model_free.pad: {config.pad} is not possible for images of {rows} x '
      f'{columns} pixels; give less, such as --model_free.pad 4.'
    )
  channels = config.frames * sum(shapes[k][2] for k in images)
  return Inputs(rows, columns, channels, sum(shapes[k][0] for k in vectors))


def flat(x: tf.Tensor) -> tf.Tensor:
  """[B, T, ...] to [B * T, ...]."""
  return tf.reshape(x, [-1, *x.shape[2:].as_list()])


def copy_weights(source: Module, target: Module, share: float = 1.0) -> None:
  """Moves the target by a share of the way to the source."""
  pairs = zip(source.variables, target.variables, strict=True)
  for source, target in pairs:
    target.assign((1 - share) * target + share * source)
