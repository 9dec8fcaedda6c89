"""What studies look at: the agent, episodes, and their posterior states."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

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
    if need == 'recorded_if_any':
      # A directory that is not there is told before others take their time.
      return self.recorded is not None
    return True


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
      warn(f'{problem} Skipped.')
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
