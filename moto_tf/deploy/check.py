"""Whether exported formats act as load_policy does."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moto_tf.data.episodes import EpisodeError, find_episodes, load_episode
from moto_tf.deploy.protocol import DeployError
from moto_tf.errors import warn
from moto_tf.training import rundir

EPISODES = 4
STEPS = 50  # Observations of each that are compared.
# Share of steps that may jump: a latent that is nearly a tie falls otherwise
# after the last digit changed, about once in some ten thousand steps.
JUMPS = 0.005


class Bounds(NamedTuple):
  """What a format may differ by.

  Attributes:
    mean: absolute difference of actions, over all steps and entries.
    largest: of any number of an action, or of what is remembered, there as a
      share of the largest number if that is above 1. A step beyond it is a
      jump, after which the format goes on from load_policy's state.
  """

  mean: float
  largest: float


BOUNDS = {
  'saved_model': Bounds(1e-5, 1e-4),
  'float32': Bounds(1e-5, 1e-4),
  'int8': Bounds(0.05, math.inf),
}


def find_observations(
  logdir: Path, config: Any, agent: Any, data: Path | None = None
) -> tuple[list[dict[str, np.ndarray]], str]:
  """Sequences of observations to act on, and where they are from.

  Those of `data`; else of episodes that the run collected or began with; else
  random ones.

  Args:
    logdir, config: of the run.
    agent: made for the observations.
    data: directory of episodes.

  Returns:
    EPISODES dicts of arrays [T, ...], and a text.

  Raises:
    DeployError: `data` holds no episodes.
    EpisodeError: they are of other observations.
  """
  spaces = {key: agent.obs_space[key] for key in agent.input_keys}
  places = [logdir / 'episodes', rundir.offline_dir(config, logdir)]
  for place in [data] if data else filter(None, places):
    paths = find_episodes(place)[:EPISODES] if place.is_dir() else []
    try:
      episodes = [load_episode(path, spaces) for path in paths]
    except EpisodeError as error:
      if data:
        raise
      warn(f'the check does not use the episodes of {place}. {error}')
      continue
    if episodes:
      # Some of them again where they are few: each has noise of its own.
      episodes = itertools.islice(itertools.cycle(episodes), EPISODES)
      found = [{k: e[k][:STEPS] for k in spaces} for e in episodes]
      return found, 'recorded observations'
  if data:
    raise DeployError(f'{data} holds no episodes to compare the policy on.')
  return [_random(spaces, seed) for seed in range(EPISODES)], (
    'random observations, since no recorded ones were found'
  )


def compare(
  policy: Any,
  runners: Mapping[str, Any],
  sequences: list[dict[str, np.ndarray]],
) -> dict[str, dict]:
  """Differences of runners from a policy, each with what it remembers.

  Args:
    policy: of moto_tf.load_policy.
    runners: ExportedPolicy by the name of its format, of the same seed.
    sequences: of `find_observations`; each is an episode.

  Returns:
    Of each format: steps, jumps, the mean and the largest difference of
    actions in the other steps, and whether they are within BOUNDS.
  """
  found = {name: [] for name in runners}
  jumps = dict.fromkeys(runners, 0)
  for sequence in sequences:
    policy.reset()
    for runner in runners.values():
      runner.reset()
    for step in range(len(next(iter(sequence.values())))):
      obs = {key: values[step] for key, values in sequence.items()}
      action = policy(obs)
      for name, runner in runners.items():
        off = np.abs(runner(obs) - action)
        state = {k: np.asarray(policy.state[k]) for k in runner.state}
        away = [_away(runner.state[k], v) for k, v in state.items()]
        if max([off.max(), *away]) <= BOUNDS[name].largest:
          found[name].append(off)
        else:
          jumps[name] += 1
          runner.state = state
  return {
    name: _summary(np.array(off), jumps[name], name, runners[name].card)
    for name, off in found.items()
  }


def _away(value, exact):
  """Largest difference, as a share of the largest number if that is above 1."""
  off = np.abs(1.0 * value - exact).max()
  return off / max(1.0, np.abs(1.0 * exact).max())


def _summary(off, jumps, name, card):
  steps, bounds = len(off) + jumps, BOUNDS[name]
  mean, largest = (off.mean(), off.max()) if len(off) else (0.0, 0.0)
  # Only what is drawn can fall otherwise.
  most = max(1, JUMPS * steps) if card['interface']['noise'] else 0
  few = jumps <= most and len(off) > 0
  return {
    'steps': steps,
    'jumps': jumps,
    'mean': float(mean),
    'largest': float(largest),
    'passed': bool(few and mean <= bounds.mean and largest <= bounds.largest),
  }


def _random(spaces, seed):
  rng = np.random.default_rng(seed)
  return {
    key: rng.integers(0, 256, (STEPS, *space.shape), np.uint8)
    if space.dtype == np.uint8
    else rng.normal(size=(STEPS, *space.shape)).astype(space.dtype)
    for key, space in spaces.items()
  }
