"""A trained policy, from a log directory."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np

from moto_tf import rules
from moto_tf.config import Config
from moto_tf.errors import MotoError
from moto_tf.training import meta, provenance
from moto_tf.training.checkpoint import CheckpointError, Checkpoints


class ObservationError(MotoError, ValueError):
  """A policy cannot act on an observation; the message names its key."""


class Policy:
  """A trained policy, for one environment.

  Example:
    policy = load_policy('~/logdir/metaworld_drawer-open/moto/0')
    action = policy(observation)   # observation of one time step
    policy.reset()                 # before each episode

  Attributes:
    state: what it remembers, as the agent's `policy` returns it; None before
      an episode.
  """

  def __init__(self, agent, mode: str = 'eval', seed: int = 0):
    """Args: mode eval acts as in evaluation, train samples."""
    self._agent = agent
    self._mode = mode
    self._seed = seed
    self._episode = -1
    self.reset()

  def reset(self) -> None:
    """Forgets the past; the next observation starts an episode."""
    self.state = None
    self._step = 0
    self._episode += 1

  def __call__(self, observation: dict | np.ndarray) -> np.ndarray:
    """Action [A] within [-1, 1] for one observation.

    Args:
      observation: array by key, or the array itself if the policy uses one
        key alone. Other keys are ignored.

    Raises:
      ObservationError: a key is missing, a shape or dtype is not the one the
        policy was trained on, or numbers are not finite or so large that the
        policy cannot take them in. What it remembers stays as it was.
    """
    agent = self._agent
    keys = agent.input_keys
    if not isinstance(observation, Mapping):
      if len(keys) != 1:
        raise ObservationError(f'The policy needs a dict with the keys {keys}.')
      observation = {keys[0]: observation}
    obs = {'is_first': np.array([self._step == 0])}
    for key in keys:
      if key not in observation:
        raise ObservationError(
          f'Observation {key!r} is missing; the policy needs {keys}.'
        )
      obs[key] = _check(key, observation[key], agent.obs_space[key])[None]
    lanes = (
      np.array([self._seed * 100_003 + self._episode]),
      np.array([self._step]),
    )
    action, state = agent.policy(obs, self.state, lanes, self._mode)
    # Infinite numbers inside may still give an action that looks normal.
    inside = state.values() if isinstance(state, Mapping) else ()
    for value in (action, *inside):
      if not np.isfinite(value).all():
        raise ObservationError(
          f'The policy cannot act on this observation: {_extent(obs)}. Its '
          'numbers are far from those it was trained on.'
        )
    self.state = state
    self._step += 1
    return action[0]


def _check(key, value, space):
  """An observation as an array of its space."""
  try:
    value = np.asarray(value)
  except ValueError as error:  # Lists of several lengths.
    raise ObservationError(f'Observation {key!r}: {error}.') from error
  image = space.dtype == np.uint8
  if (
    value.shape != space.shape
    or value.dtype.kind not in 'biuf'
    or image != (value.dtype == np.uint8)
  ):
    raise ObservationError(
      f'Observation {key!r} has shape {value.shape} and dtype {value.dtype}, '
      f'expected {space.shape} {space.dtype}.'
    )
  with np.errstate(over='ignore'):
    value = value.astype(space.dtype)
  if not image and not np.isfinite(value).all():
    wrong = np.argwhere(~np.isfinite(value))
    raise ObservationError(
      f'Observation {key!r} has {len(wrong)} of {value.size} numbers that are '
      f'not finite as {space.dtype}, the first at {wrong[0].tolist()}.'
    )
  return value


def _extent(obs):
  """The range of the numbers of each observation."""
  return ', '.join(
    f'{key} from {value.min():.3g} to {value.max():.3g}'
    for key, value in obs.items()
    if key != 'is_first'
  )


def load_policy(
  logdir: str | Path,
  checkpoint: str | Path | int | None = None,
  mode: str = 'eval',
  seed: int = 0,
) -> Policy:
  """Loads the newest, or the given, checkpoint of a run as a policy.

  Needs neither the simulator nor the data.

  Args:
    logdir: of the run, or the .npz file of a published policy.
    checkpoint: file, its name, or its gradient step; by default the newest.
    mode: eval acts as in evaluation (`eval_action`), train samples.
  """
  if rules.expand(logdir).is_file():
    from moto_tf.results import published

    if checkpoint is not None:
      raise CheckpointError(
        f'{logdir} is the file of one policy, and a checkpoint is of a run; '
        'leave it out.'
      )
    return Policy(published.load(str(logdir))[0], mode, seed)
  agent, _, _ = load_agent(logdir, checkpoint)
  return Policy(agent, mode, seed)


def load_agent(
  logdir: str | Path,
  checkpoint: str | Path | int | None = None,
  policy_only: bool = True,
  settings: Mapping[str, Any] = MappingProxyType({}),
) -> tuple:
  """Agent, configuration and checkpoint meta of a run.

  The meta has the name of the checkpoint, too, as of provenance.of_run.

  Args:
    checkpoint: file, its name, or its gradient step; by default the newest.
    policy_only: leaves out critics and optimizers, for acting alone.
    settings: that take the place of the run's, such as its precision.

  Raises:
    CheckpointError: there is none, it is damaged, or of another run.
  """
  from moto_tf.agents import make_agent

  logdir = rules.expand(logdir)
  if not (logdir / 'config.yaml').exists():
    raise CheckpointError(
      f'{logdir} holds no config.yaml, so it is no log directory of a run; '
      'give the directory that --logdir of the command train named.'
    )
  config = Config.load(logdir / 'config.yaml')
  checkpoints = Checkpoints(logdir / 'checkpoints', 1, meta.check)
  named = None if checkpoint is None else Path(str(checkpoint))
  loaded = checkpoints.load(named)
  if loaded is None:
    raise CheckpointError(
      f'{logdir / "checkpoints"} holds no checkpoint yet; the first is '
      f'written after {config.checkpoint_every} gradient steps.'
    )
  arrays, said, path = loaded
  config, name = provenance.of_run(logdir, config, path, said)
  config = config.replace(settings)
  agent = make_agent(config, *spaces_from_meta(said['spaces']))
  agent.load(arrays, policy_only)
  return agent, config, {**said, 'checkpoint': name}


def spaces_to_meta(obs_space: dict, act_space) -> dict:
  """Spaces as JSON, so that a checkpoint can be used without simulator."""
  return {
    'observations': {
      k: [list(v.shape), np.dtype(v.dtype).name] for k, v in obs_space.items()
    },
    'action': list(act_space.shape),
  }


def spaces_from_meta(meta: dict) -> tuple[dict, gymnasium.spaces.Box]:
  """Spaces that `spaces_to_meta` wrote; bounds of vectors are not kept."""
  obs_space = {}
  for key, (shape, dtype) in meta['observations'].items():
    low, high = (0, 255) if dtype == 'uint8' else (-np.inf, np.inf)
    obs_space[key] = gymnasium.spaces.Box(low, high, shape, np.dtype(dtype))
  return obs_space, gymnasium.spaces.Box(-1, 1, meta['action'], np.float32)
