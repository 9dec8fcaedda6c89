"""What an agent gives away of itself to be exported."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from moto_tf.errors import MotoError

# Kinds of noise that moto_tf.deploy.runner makes from uniform numbers.
NOISE = ('uniform', 'gumbel', 'normal')


class DeployError(MotoError, ValueError):
  """A policy cannot be exported; the message says why and what to do."""


class ActingStep(NamedTuple):
  """Acting in one environment as a function that keeps nothing.

  Attributes:
    step: step(obs, state, noise) to the action [1, A] and the next state, of
      tensors by name. `obs` has the agent's input_keys [1, ...] as they are
      observed, and is_first [1]; where that is true, the state does not matter.
    state: shape [1, ...] and dtype of each part of the state, a subset of what
      `policy` returns, by the same names.
    noise: kind, one of NOISE, and shape [1, ...] of each noise. They are made
      of the uniform numbers of `moto_tf.agents.base.lane_noise`, in this order.
  """

  step: Callable
  state: Mapping[str, tuple[tuple[int, ...], str]]
  noise: Mapping[str, tuple[str, tuple[int, ...]]]
