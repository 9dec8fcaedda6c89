"""What agents without a world model share: transitions, seeing, acting."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moto_tf.agents.base import Agent, check_mode, lane_noise, to_tensors
from moto_tf.agents.frames import push_frame, random_crops, stack_frames
from moto_tf.agents.pixel_nets import Net, measure
from moto_tf.deploy.protocol import ActingStep
from moto_tf.nn import replicas
from moto_tf.nn.dists import DiagNormal
from moto_tf.nn.layers import Module
from moto_tf.nn.optimizer import Optimizer
from moto_tf.nn.standardize import Standardize
from moto_tf.nn.tfutils import split
from moto_tf.rules import select_keys


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
    count = replicas.divisor(tf.reduce_sum(self.mask))
    sums = tf.reduce_sum(self.mask * values, -1) / count
    return tf.reduce_mean(sums)


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
    if state is None:
      shapes = self._stacks(len(obs['is_first']))
      state = {k: tf.zeros(shape, tf.uint8) for k, shape in shapes.items()}
    action, state = self._acting(
      {k: tf.convert_to_tensor(obs[k]) for k in (*self.input_keys, 'is_first')},
      state,
      tf.convert_to_tensor(lane_noise(lanes, self.size)),
      mode,
    )
    return action.numpy(), state

  def acting_step(self, cdf: Callable[[tf.Tensor], tf.Tensor]) -> ActingStep:
    """See Agent.acting_step. No noise: nothing is drawn in evaluation."""
    del cdf
    how = self._exported_action()

    def step(obs, state, noise):
      del noise
      return self._decide(obs, state, tf.zeros([1, self.size]), 1.0, how)

    state = {k: (shape, 'uint8') for k, shape in self._stacks(1).items()}
    return ActingStep(step, state, {})

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
    args = self._args(to_tensors(batch), 0)
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
    return batch, self._seed(1, step), tf.constant(self.decay(step))

  def _train(self, batch, step):
    return self.functions['update'](*self._args(batch, step))

  def _step(self, data, seed, rate):
    crop_seed, seed = split(seed, 2)
    return self.update(self.transitions(data, crop_seed), seed, rate)

  def _stacks(self, count):
    """Shapes of the stacks of frames of N environments, by image key."""
    shapes = {k: self.obs_space[k].shape for k in self._images}
    return {
      k: (count, *sides, self.free.frames * channels)
      for k, (*sides, channels) in shapes.items()
    }

  def _act_step(self, obs, state, uniform, mode):
    train = mode == 'train'
    how = 'sample' if train else self._config.eval_action
    scale = self._config.collect_std if train else 1.0
    return self._decide(obs, state, tf.math.ndtri(uniform), scale, how)

  def _decide(self, obs, state, noise, scale, how):
    """Actions, and the stacks that the images have been put on."""
    first, seen = obs['is_first'], {}
    state = {
      key: push_frame(state[key], obs[key], first, self.free.frames)
      for key in self._images
    }
    if self._images:
      stack = tf.concat([state[k] for k in self._images], -1)
      seen['pixels'] = self._scale(stack)
    if self._vectors:
      vectors = [self.standardize(k, obs[k]) for k in self._vectors]
      seen['vector'] = tf.concat(vectors, -1)
    action = self.act(seen, noise, scale, how)
    return tf.clip_by_value(action, -1.0, 1.0), state


class UnitPolicyAgent(ModelFreeAgent):
  """One whose policy has a deviation of 1, as in JAXRL2: BC and IQL.

  Subclasses implement `mean`.

  Attributes:
    decays: whether the actor's learning rate falls to 0 over the run.
  """

  decays = False

  def mean(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Mean [N, A] of the actions for observations as of `Transitions.obs`."""
    raise NotImplementedError

  def dist(self, obs: dict[str, tf.Tensor], scale: float = 1.0) -> DiagNormal:
    """The policy, with `scale` times its standard deviation."""
    mean = self.mean(obs)
    return DiagNormal(mean, scale * tf.ones_like(mean))

  def act(
    self, obs: dict[str, tf.Tensor], noise: tf.Tensor, scale: float, how: str
  ) -> tf.Tensor:
    """See ModelFreeAgent.act; mean and mode are the same."""
    dist = self.dist(obs, scale)
    return dist.sample(noise=noise) if how == 'sample' else dist.mean()

  def decay(self, step: int) -> float:
    """See ModelFreeAgent.decay."""
    return self.cosine(step) if self.decays else 1.0


def flat(x: tf.Tensor) -> tf.Tensor:
  """[B, T, ...] to [B * T, ...]."""
  return tf.reshape(x, [-1, *x.shape[2:].as_list()])
