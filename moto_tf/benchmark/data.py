"""Synthetic episodes, and the replay measured on them."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np

from moto_tf import envs
from moto_tf.config import Config
from moto_tf.data.cloning import Cloning
from moto_tf.data.episodes import save_episode
from moto_tf.data.replay import Replay
from moto_tf.envs import render
from moto_tf.envs.driver import Driver
from moto_tf.policy import spaces_from_meta
from moto_tf.training.machine import peak_memory_gib

TRANSITIONS = 100
DISTINCT = 10  # Episodes that differ; more are links to these.
DRAWS = 50
LARGE_CAPACITY = 100_000


def task_spaces(config: Config) -> tuple[dict, gymnasium.Space]:
  """Observation and action spaces of the task, without rendering."""
  plain = config.env.update({'image': False})
  make_env = envs.env_maker(config.task, plain)
  driver = Driver(make_env)
  driver.close()
  # As the replay has them: what is only logged is not held.
  spaces = {
    k: v for k, v in driver.obs_space.items() if not k.startswith('log_')
  }
  return {**render.image_spaces(config.env), **spaces}, driver.act_space


def write_episodes(
  directory: Path, count: int, obs_space: dict, act_space: gymnasium.Space
) -> Path:
  """Writes episodes of 100 transitions; every second one is successful.

  Images are as large on disk, and as slow to read, as those of Meta-World.
  """
  rng = np.random.default_rng(0)
  written = []
  for index in range(min(count, DISTINCT)):
    episode = _episode(rng, obs_space, act_space)
    episode['success'][-1] = index % 2 == 0
    written.append(save_episode(directory, f'{index:06d}', episode))
  for index in range(len(written), count):
    source = written[index % len(written)]
    target = directory / f'{index:06d}-{TRANSITIONS}.npz'
    try:
      os.link(source, target)
    except OSError:  # A file system without hard links.
      shutil.copy(source, target)
  return directory


def open_replay(
  config: Config,
  directory: str | Path,
  obs_space: dict,
  act_space: gymnasium.Space,
  **overrides,
) -> Replay:
  """The replay of a run on offline episodes alone.

  Args:
    config: gives all that `overrides` do not.
    directory: of the episodes.
    obs_space: observations that are held.
    act_space: of the actions.
  """
  settings = {k: v for k, v in config.replay.items() if k != 'prefetch'}
  settings['offline_episodes'] = 0  # All of the synthetic ones.
  return Replay(
    Path(directory),
    None,
    obs_space,
    act_space,
    **{**settings, **overrides},
    seed=config.seed,
    # Targets of the task are not in synthetic episodes.
    cloning=Cloning(config.bc_threshold),
  )


def measure(
  say: Callable[[str], None],
  times: dict[str, float],
  config: dict,
  spaces: dict,
  episodes: str,
  large: bool = False,
) -> dict:
  """Measures loading, drawing and memory of a replay.

  Args:
    say: shows progress.
    times: not used.
    config: flat settings.
    spaces: of `policy.spaces_to_meta`.
    episodes: directory of offline episodes.
    large: with a capacity of 100,000 transitions instead of the configured.
  """
  say(f'replay{" larger than its capacity" if large else ""}')
  config = Config(config)
  obs_space, act_space = spaces_from_meta(spaces)
  before, begin = peak_memory_gib(), time.perf_counter()
  overrides = {'capacity': LARGE_CAPACITY} if large else {}
  replay = open_replay(config, episodes, obs_space, act_space, **overrides)
  seconds = time.perf_counter() - begin
  growth = peak_memory_gib() - before
  draws = []
  for step in range(DRAWS):
    begin = time.perf_counter()
    replay.sample(step)
    draws.append(time.perf_counter() - begin)
  held = replay.stats()
  return {
    'files': len(list(Path(episodes).iterdir())),
    'episodes_held': held['episodes'],
    'transitions_held': held['transitions'],
    'load_seconds': seconds,
    'memory_growth_mib': growth * 2**10,
    'batches_per_second': 1 / float(np.median(draws)),
  }


def _episode(rng, obs_space, act_space):
  records = TRANSITIONS + 1
  flag = lambda index: np.arange(records) == index % records
  episode = {
    'action': rng.uniform(-1, 1, (records, *act_space.shape)),
    'reward': rng.integers(0, 2, records),
    'is_first': flag(0),
    'is_last': flag(-1),
    'is_terminal': np.zeros(records, bool),
    'success': np.zeros(records, bool),
  }
  episode['action'][0] = 0
  for key, space in obs_space.items():
    if len(space.shape) == 3:
      episode[key] = _video(rng, records, space.shape)
    else:
      episode[key] = rng.normal(size=(records, *space.shape))
  return episode


def _video(rng, records, shape):
  """A still background with two blocks that move."""
  rows, cols, _ = shape
  video = np.empty((records, *shape), np.uint8)
  video[:] = rng.integers(0, 256, shape) // 16 + np.arange(cols)[:, None]
  side = max(1, rows // 6)
  for _ in range(2):
    start = rng.integers(0, rows - side + 1, 2)
    moves = rng.integers(-1, 2, (records, 2)).cumsum(0)
    for t, (row, col) in enumerate((start + moves).clip(0, rows - side)):
      video[t, row : row + side, col : col + side] ^= 0xF0
  return video
