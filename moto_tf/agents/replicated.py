"""Gradient steps that replicas share; see docs/distributed.md."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from moto_tf.agents.base import Agent, fetch
from moto_tf.nn import replicas
from moto_tf.nn.crew import Crew

# The argument of a function of a gradient step that all its randomness is from.
SEED = 'seed'


class Shares:
  """What each replica of this process has of an argument or a result."""

  def __init__(self, *parts: Any):
    self.parts = parts


class Replicated:
  """An agent whose gradient steps are shared by replicas.

  Each replica is an agent with weights of its own on its own device. All start
  equal and apply the same mean gradient, so they stay equal; what one saves is
  what a single one would. All but training is left to the first of them.

  A gradient step is the agent's own. Each of its `functions` runs in every
  replica, on the rows of the batch that are the replica's, and with a seed of
  its own; the scalars that it returns, metrics, are averaged.

  Args:
    crew: where replicas are.
    make: makes an agent, always an equal one.

  Attributes:
    agents: of the replicas of this process.
    seconds: spent in `train` so far."""

  def __init__(self, crew: Crew, make: Callable[[], Agent]):
    self._crew = crew
    self.agents = crew.on_devices(make)
    self._first = first = self.agents[0]
    first.functions = {
      name: self._joint([agent.functions[name] for agent in self.agents])
      for name in first.functions
    }
    self.seconds = 0.0
    self._equal = False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._first, name)

  def fit(self, records: Callable[[str], np.ndarray]) -> None:
    """See Agent.fit."""
    self._first.fit(records)
    self._equal = False

  def load(
    self, arrays: dict[str, np.ndarray], policy_only: bool = False
  ) -> None:
    """See Agent.load."""
    self._first.load(arrays, policy_only)
    self._equal = False

  def train(self, batch: dict[str, np.ndarray], step: int) -> dict[str, float]:
    """See Agent.train; the chief's, who tells the other processes."""
    begin = time.perf_counter()
    with self._crew.together():
      if not self._equal:
        arrays = self._first.save()
        self._crew.tell({'do': 'load'}, arrays)
        self._copy(self.agents[1:], arrays)
        self._equal = True
      self._crew.tell({'do': 'train', 'step': step}, batch)
      metrics = self._step(batch, step)
    self.seconds += time.perf_counter() - begin
    return metrics

  def follow(self, head: dict, arrays: dict[str, np.ndarray]) -> None:
    """Does what the chief has told."""
    if head['do'] == 'load':
      self._copy(self.agents, arrays)
    else:
      with self._crew.together():
        self._step(arrays, head['step'])

  def _copy(self, agents, arrays):
    for agent in agents:
      agent.load(arrays)

  def _step(self, batch, step):
    return fetch(self._first._train(self._rows(batch), step))

  def _rows(self, batch):
    """Every n-th row is a replica's, since rows of a kind lie together."""
    rows = {key: [] for key in batch}
    places = zip(self._crew.numbers, self._crew.devices, strict=True)
    for number, device in places:
      with tf.device(device):
        for key, value in batch.items():
          mine = value[number :: self._crew.size]
          rows[key].append(tf.convert_to_tensor(mine))
    return {key: Shares(*parts) for key, parts in rows.items()}

  def _joint(self, steps):
    """What runs one function of a gradient step in all replicas."""
    bodies = [step.python_function for step in steps]
    names = list(inspect.signature(bodies[0]).parameters)

    def run(shares):
      def one(here):
        args = dict(zip(names, shares[here], strict=False))
        if SEED in args:
          args[SEED] = replicas.fold(args[SEED], self._crew.numbers[here])
        return _average_scalars(bodies[here](**args))

      return self._crew.run(one)

    joint = self._first.compile(run)

    def call(*args):
      mine = lambda x, i: x.parts[i] if isinstance(x, Shares) else x
      shares = [
        tf.nest.map_structure(lambda x, i=i: mine(x, i), args)
        for i in range(len(self.agents))
      ]
      gather = lambda *x: Shares(*x) if x[0].shape.rank else x[0]
      return tf.nest.map_structure(gather, *joint(shares))

    return call


def _average_scalars(result):
  """Metrics become those of the whole batch, by one all-reduce."""
  leaves = tf.nest.flatten(result)
  places = [i for i, x in enumerate(leaves) if not x.shape.rank]
  if places:
    scalars = [tf.cast(leaves[i], tf.float32) for i in places]
    for i, value in zip(
      places, tf.unstack(replicas.average(tf.stack(scalars))), strict=True
    ):
      leaves[i] = value
  return tf.nest.pack_sequence_as(result, leaves)
