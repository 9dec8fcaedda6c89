"""What studies look at: the agent, episodes, and their posterior states."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from moto_tf import rules
from moto_tf.config import Config
from moto_tf.data import episodes as files
from moto_tf.errors import warn
from moto_tf.model.world_model import WorldModel
from moto_tf.studies import NEEDS, StudyError
from moto_tf.studies.common import SEED, fixed_seed
from moto_tf.training import evaluation
from moto_tf.training.rundir import offline_dir

EPISODES = 32  # At most, of recorded ones.


@dataclasses.dataclass
class Context:
  """A trained agent and the episodes it is studied on.

  Episodes and states are made when they are first asked for, and kept: what one
  study has rolled out or encoded, the next one finds.

  Attributes:
    agent, config, meta: of the run, as policy.load_agent returns them.
    logdir: of the run.
    episodes: number rolled out.
    envs: environments at the same time.
    given: directory of recorded episodes instead of the run's offline_data.
    make_env: makes one environment; None: that of the run's task.
  """

  agent: object
  config: Config
  meta: dict
  logdir: Path
  episodes: int = 20
  envs: int = 2
  given: Path | None = None
  make_env: Callable | None = None

  @functools.cached_property
  def data(self) -> Path | None:
    """Directory of recorded episodes; None, with a note, if the run had none.

    Raises:
      StudyError: there is no such directory (any more).
    """
    path = find_data(self.config, self.logdir, self.given)
    if path is None:
      print(
        'No recorded episodes to look at: the run has no offline_data. Name '
        f'some by --data, such as {self.logdir / "episodes"}.'
      )
    return path

  @functools.cached_property
  def recorded(self) -> list[dict]:
    """Recorded episodes, arrays [T + 1, ...] by key; none without `data`.

    Raises:
      StudyError: none of the directory fits the agent.
    """
    return load_data(self.agent, self.data) if self.data else []

  @functools.cached_property
  def recorded_posts(self) -> list[dict[str, tf.Tensor]]:
    """Posterior states of the recorded episodes, of `encode_all`."""
    return encode_all(self.agent, self.recorded)

  @functools.cached_property
  def experts(self) -> list[dict]:
    """Successful episodes: recorded ones or, without these, the policy's own.

    The paper's are the trained agent's, since its data of `partial` has none.
    """
    found = find_successes(self.agent, self.data) if self.data else []
    return found or [e for e in self.rollouts if e['success'].any()]

  @functools.cached_property
  def rollouts(self) -> list[dict]:
    """Episodes of the evaluation policy, those of the command evaluate."""
    return evaluation.roll_out(
      self.agent,
      self.config,
      self.episodes,
      count=self.envs,
      make_env=self.make_env,
    )[1]

  @functools.cached_property
  def rollout_posts(self) -> list[dict[str, tf.Tensor]]:
    """Posterior states of the rollouts, of `encode_all`."""
    return encode_all(self.agent, self.rollouts)

  def missing(self, needs: tuple[str, ...]) -> str:
    """Why a study with these needs (of NEEDS) does not fit, '' if it does.

    Recorded episodes are loaded where they are needed; nothing is rolled out.
    """
    return next((NEEDS[need] for need in needs if not self._has(need)), '')

  def _has(self, need):
    model = getattr(self.agent, 'model', None)
    if need == 'model':
      return isinstance(model, WorldModel)
    if need == 'ensemble':
      return isinstance(model, WorldModel) and model.rssm.ensemble > 1
    if need == 'critics':
      behavior = getattr(self.agent, 'behavior', None)
      return hasattr(behavior, 'predict_values')
    if need == 'recorded':
      return bool(self.recorded)
    # A directory that is not there is told before others take their time.
    if need == 'recorded_if_any':
      return self.recorded is not None
    if need == 'experts':
      return self.data is None or self.data.is_dir()
    return True


def find_data(config, logdir: Path, given: Path | None) -> Path | None:
  """Directory of recorded episodes; None if the run had none.

  Args:
    given: what the user names instead of the run's offline_data.

  Raises:
    StudyError: there is no such directory (any more).
  """
  path = rules.expand(given) if given else offline_dir(config, logdir)
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
  loaded, problem = _load(agent, directory)
  if not loaded:
    raise StudyError(
      f'{directory} has no episode that this agent can use: {problem}. Name '
      'another directory by --data DIR.'
    )
  return loaded


def find_successes(agent, directory: Path) -> list[dict]:
  """Up to EPISODES successful episodes of a directory, likewise; may be none.

  A small part of each file says whether it is one.
  """
  success = lambda path: files.load_episode(path, {})['success'].any()
  return _load(agent, directory, success)[0]


def _load(agent, directory, wanted=lambda path: True):
  """Episodes of the files that are wanted, and the last problem of one."""
  paths = files.find_episodes(directory)
  order = np.random.default_rng(SEED).permutation(len(paths))
  spaces = {k: agent.obs_space[k] for k in agent.obs_keys}
  loaded, problem = [], 'no *.npz files'
  for path in [paths[i] for i in order]:
    if len(loaded) == EPISODES:
      break
    try:
      if wanted(path):
        loaded.append(files.load_episode(path, spaces, agent.act_space))
    except files.EpisodeError as error:
      problem = str(error)
      warn(f'{problem} Skipped.')
  return loaded, problem


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


def encode_together(agent, episodes: list[dict]) -> list[dict[str, tf.Tensor]]:
  """As `encode_all` with other samples, and much quicker: all at once."""
  model, longest = agent.model, max(len(e['reward']) for e in episodes)
  padded = {'embed': [], 'action': [], 'is_first': []}
  for episode in episodes:
    data = {k: tf.convert_to_tensor(episode[k]) for k in agent.input_keys}
    found = {
      'embed': model.encoder(model.preprocess(data)),
      'action': tf.convert_to_tensor(episode['action']),
      'is_first': tf.convert_to_tensor(episode['is_first']),
    }
    rest = longest - len(episode['reward'])
    for key, value in found.items():
      ends = [[0, rest], *[[0, 0]] * (len(value.shape) - 1)]
      padded[key].append(tf.pad(value, ends))
  padded = {k: tf.stack(v) for k, v in padded.items()}
  post = model.rssm.observe(**padded, seed=fixed_seed(6))
  post['feat'] = model.rssm.get_feat(post)
  return [
    {k: v[i, : len(episode['reward'])] for k, v in post.items()}
    for i, episode in enumerate(episodes)
  ]
