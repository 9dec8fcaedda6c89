"""Small spaces, configurations, batches and agents shared by the tests."""

import numpy as np
import scipy.stats
from gymnasium.spaces import Box

from moto_tf.agents import make_agent as make
from moto_tf.agents.base import Agent
from moto_tf.config import Config
from moto_tf.presets import make_config

SPACES = {
  'image': Box(0, 255, (16, 16, 3), np.uint8),
  'state': Box(-np.inf, np.inf, (5,), np.float32),
}
ACT = Box(-1, 1, (2,), np.float32)


def tiny_config(**overrides) -> Config:
  """The debug preset for `SPACES`, in float32 and eager.

  Dots in the names of overrides are written as two underscores, such as
  rssm__deter=8.
  """
  base = {
    'precision': 'float32',
    'env.image_size': 16,
    r'encoder\.cnn_kernels': [4, 4],
    r'decoder\.cnn_kernels': [5, 8],
  }
  overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
  return make_config('debug', base, overrides)


def make_batch(
  config: Config, seed: int = 0, firsts: tuple = (), success=None
) -> dict[str, np.ndarray]:
  """A random batch with the keys and types of Replay.sample, [B, T, ...].

  Args:
    config: gives B and T.
    seed: of the random content.
    firsts: (b, t) where an episode starts inside a window; the record before
      ends one. Every window is marked as a start at t = 0.
    success: flags, broadcast to [B, T]; by default lane b is successful where
      b is even.
  """
  rng = np.random.default_rng(seed)
  shape = (config.replay.batch, config.replay.length)
  batch = {
    'image': rng.integers(0, 256, (*shape, 16, 16, 3), np.uint8),
    'state': rng.normal(size=(*shape, 5)).astype(np.float32),
    'action': rng.uniform(-0.9, 0.9, (*shape, 2)).astype(np.float32),
    'reward': rng.uniform(0, 1, shape).astype(np.float32),
    'is_first': np.zeros(shape, bool),
    'is_last': np.zeros(shape, bool),
    'is_terminal': np.zeros(shape, bool),
  }
  batch['is_first'][:, 0] = True
  for b, t in firsts:
    batch['is_first'][b, t] = True
    batch['is_last'][b, t - 1] = True
    batch['action'][b, t] = 0
    batch['reward'][b, t] = 0
  if success is None:
    success = (np.arange(shape[0]) % 2 == 0)[:, None]
  batch['success'] = np.broadcast_to(success, shape).astype(np.float32)
  return batch


def make_agent(config: Config) -> Agent:
  """A new agent for `SPACES` and `ACT`."""
  return make(config, SPACES, ACT)


def randomize(agent: Agent, seed: int = 0, scale: float = 0.3) -> None:
  """Adds noise to all weights, so that no bias is zero, no gain one.

  The target critics get noise of their own and differ from the critics.
  """
  rng = np.random.default_rng(seed)
  for name, value in agent.variables().items():
    if '_opt/' not in name and value.dtype.is_floating:
      value.assign_add(rng.normal(0, scale, value.shape).astype(np.float32))


def naive_mlp(arrays: dict, prefix: str, x: np.ndarray) -> np.ndarray:
  """Forward pass of an elu MLP without normalisation from its arrays."""
  i = 0
  while f'{prefix}/dense/{i}/kernel' in arrays:
    kernel = arrays[f'{prefix}/dense/{i}/kernel'].astype(np.float64)
    x = naive_elu(x @ kernel + arrays[f'{prefix}/dense/{i}/bias'])
    i += 1
  out = arrays[f'{prefix}/out/kernel'].astype(np.float64)
  return x @ out + arrays[f'{prefix}/out/bias']


def naive_stack(arrays: dict, prefix: str, x: np.ndarray) -> np.ndarray:
  """Forward pass of stacked elu MLPs, one member after the other."""
  count = sum(k.startswith(f'{prefix}/kernel/') for k in arrays)
  outputs = []
  for member in range(len(arrays[f'{prefix}/kernel/0'])):
    y = np.asarray(x, np.float64)
    for i in range(count):
      kernel = arrays[f'{prefix}/kernel/{i}'][member].astype(np.float64)
      y = y @ kernel + arrays[f'{prefix}/bias/{i}'][member]
      y = naive_elu(y) if i < count - 1 else y
    outputs.append(y)
  return np.stack(outputs)


def naive_elu(x: np.ndarray) -> np.ndarray:
  return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def naive_policy(arrays: dict, feat: np.ndarray):
  """The truncated normal of DreamerV2's actor, as SciPy's distribution."""
  mean, std = np.split(naive_mlp(arrays, 'actor/mlp', feat), 2, -1)
  mean, std = np.tanh(mean), 2 / (1 + np.exp(-std / 2)) + 0.1
  return scipy.stats.truncnorm((-1 - mean) / std, (1 - mean) / std, mean, std)


def snapshot(agent: Agent) -> dict:
  """Weights of an agent, without those of its optimizers."""
  return {k: v for k, v in agent.save().items() if '_opt/' not in k}


def changed(agent: Agent, before: dict) -> set[str]:
  """First parts of the names of changed arrays, such as critics/online."""
  return {
    '/'.join(k.split('/')[:2]) if k.startswith('critics') else k.split('/')[0]
    for k, v in snapshot(agent).items()
    if np.any(v != before[k])
  }


STILL = 1e-30  # A learning rate that moves nothing in float32.
