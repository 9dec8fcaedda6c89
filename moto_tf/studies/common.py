"""Recorded episodes, posterior states, fixed seeds and correlations."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from moto_tf.data import episodes as files
from moto_tf.errors import MotoError
from moto_tf.nn.tfutils import make_seed
from moto_tf.results import curves
from moto_tf.train.rundir import offline_dir

# Fixes all randomness, so that a second diagnosis gives the same numbers.
SEED = 0
EPISODES = 32  # At most, of recorded ones.
STATES = 512  # At most, that imagination starts from.


class StudyError(MotoError, ValueError):
  """Something cannot be diagnosed; the message says what to do."""


def find_data(config, logdir: Path, given: Path | None) -> Path | None:
  """Directory of recorded episodes; None if the run had none.

  Args:
    given: what the user names instead of the run's offline_data.

  Raises:
    StudyError: there is no such directory (any more).
  """
  path = given.expanduser() if given else offline_dir(config, logdir)
  if path is None or path.is_dir():
    return path
  if given:
    raise StudyError(
      f'There is no directory {path}; --data names one with episodes (*.npz).'
    )
  raise StudyError(
    f'There is no directory {path} any more, the offline_data of '
    f'{logdir / "config.yaml"}. Name one with episodes by --data DIR, such as '
    f'{logdir / "episodes"}.'
  )


def load_data(agent, directory: Path) -> list[dict]:
  """Up to EPISODES episodes of a directory that fit the agent.

  Damaged and mismatched files are named and skipped.

  Raises:
    StudyError: none is left.
  """
  paths = files.find_episodes(directory)
  order = np.random.default_rng(SEED).permutation(len(paths))
  spaces = {k: agent.obs_space[k] for k in agent.obs_keys}
  loaded, problem = [], 'no *.npz files'
  for path in [paths[i] for i in order]:
    if len(loaded) == EPISODES:
      break
    try:
      loaded.append(files.load_episode(path, spaces, agent.act_space))
    except files.EpisodeError as error:
      problem = str(error)
      curves.warn(f'{problem} Skipped.')
  if not loaded:
    raise StudyError(
      f'{directory} has no episode that this agent can use: {problem}. Name '
      'another directory by --data DIR.'
    )
  return loaded


def encode(agent, episode: dict, number: int) -> dict[str, tf.Tensor]:
  """Posterior states of a whole episode.

  Args:
    episode: arrays [T + 1, ...], as Driver.run returns them.
    number: of the episode, the seed of its sampled latents.

  Returns:
    deter, stoch, logit and feat, [T + 1, ...].
  """
  model = agent.model
  keys = (*agent.input_keys, 'action', 'is_first')
  data = {k: tf.convert_to_tensor(episode[k][None]) for k in keys}
  data = model.preprocess(data)
  embed, seed = model.encoder(data), fixed_seed(1, number)
  post = model.rssm.observe(embed, data['action'], data['is_first'], seed)
  post['feat'] = model.rssm.get_feat(post)
  return {k: v[0] for k, v in post.items()}


def encode_all(agent, episodes: list[dict]) -> list[dict[str, tf.Tensor]]:
  """Posterior states of each episode, its place in the list as its number."""
  return [encode(agent, episode, i) for i, episode in enumerate(episodes)]


def open_loop(
  rssm, state: dict, act: Callable, members: tf.Tensor, noise: tf.Tensor
) -> Iterator[dict[str, tf.Tensor]]:
  """States that follow one [N, ...], by one prior member per step.

  Args:
    act: action [N, A] of step k, counted from 0, in a state.
    members, noise: of all K steps, [K, ...].
  """
  weights = rssm.weights()
  for k in range(len(members)):
    state = rssm.img_step(state, act(k, state), members[k], noise[k], weights)
    yield state


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  """Correlation of x and y [N]; None where one of them does not vary."""
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return None
  return float(np.corrcoef(x, y)[0, 1])


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
  """Correlation of the ranks of x and y [N], equal values sharing theirs."""
  return pearson(_ranks(x), _ranks(y))


def show(correlation: float | None) -> str:
  """Two decimals, or a dash where there is no correlation."""
  return '-' if correlation is None else f'{correlation:.2f}'


def fixed_seed(*numbers: int) -> tf.Tensor:
  """Stateless seed [2] of a use, told from others by its numbers."""
  return tf.convert_to_tensor(make_seed(SEED, *numbers))


def _ranks(x):
  _, index, counts = np.unique(x, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[index]
