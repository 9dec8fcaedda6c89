"""Demonstrations of a grid: checked, and recorded where they are missing."""

import dataclasses
import time
from pathlib import Path

from moto_tf import envs, memory
from moto_tf.config import Config
from moto_tf.data import episodes, inspect, record
from moto_tf.grid import GridError
from moto_tf.grid.spec import Demos, Grid
from moto_tf.ownership import OwnedError, Owner
from moto_tf.presets import load_configs
from moto_tf.training import rundir

WAIT = 2.0  # Seconds between looks at demonstrations of another process.


@dataclasses.dataclass(frozen=True)
class DemoState:
  """Demonstrations of one task.

  Attributes:
    directory: where they lie.
    have, want: episodes; of those of others `want` is `have`.
    recording: what makes them; None for those that somebody else made.
  """

  task: str
  directory: Path
  have: int
  want: int
  recording: record.Recording | None

  @property
  def ready(self) -> bool:
    return self.have >= self.want > 0


def look(grid: Grid) -> list[DemoState]:
  """Demonstrations that the runs of a grid start with; writes nothing.

  Raises:
    GridError: some are missing and cannot be recorded.
    EpisodeError: dataset.json of a directory is damaged.
  """
  found = {}
  for run in grid.runs:
    config = run.config
    directory = rundir.offline_dir(config, run.logdir)
    if directory is None:
      continue
    key = (config.task, directory)
    # Of runs with and without images, the data of the first serves both.
    if key not in found or (config.env.image and not found[key].env.image):
      found[key] = config
  states = []
  for (task, directory), config in found.items():
    own = config.offline_data != 'auto'
    states.append(
      _look(task, directory, config.env, grid.demonstrations[task], own)
    )
  return states


def _look(task: str, directory: Path, env, demos: Demos, own: bool):
  have = len(episodes.find_episodes(directory)) if directory.is_dir() else 0
  kept = inspect.read_record(directory) if have else {}
  others = have and kept.get('policy') != 'scripted'
  if own and not have:
    raise GridError(
      f'There are no episodes in {directory}, the offline_data of {task}.'
    )
  if own or others:
    return DemoState(task, directory, have, have, None)
  env = dict(env)
  if kept.get('env', {}).get('image'):
    env['image'] = True  # It serves those who learn from state, too.
  noise = demos.noise
  try:
    expert = envs.make_demonstrator(task, demos.order)
  except envs.EnvError as error:
    raise GridError(
      f'{task} has no demonstrations in {directory}: {error} Put episodes '
      'there, set offline_data to their directory, or to an empty text with '
      'offline_steps 0 and prefill_episodes 5.'
    ) from None
  recording = record.Recording(
    task,
    Config(env, 'env.'),
    demos.seed,
    expert.noise if noise is None else noise,
    order=demos.order,
  )
  return DemoState(task, directory, have, demos.episodes, recording)


def make(states: list[DemoState], workers: int) -> None:
  """Records what is missing; what is there is read and checked.

  Another process that records there is waited for.

  Raises:
    MotoError: episodes are damaged or of other settings, or too few attempts
      succeed.
  """
  for state in states:
    if state.recording is None:
      continue
    env = {f'env.{k}': v for k, v in state.recording.env.items()}
    memory.check_rollouts(load_configs().defaults.replace(env), workers)
    with _own(state.directory):
      record.collect(state.recording, state.directory, state.want, workers)


def _own(directory):
  """The directory, as soon as no other process has it."""
  said = ''
  while True:
    try:
      return Owner(directory)
    except OwnedError as error:
      if str(error) != said:
        said = str(error)
        print(f'{said} Waiting.', flush=True)
      time.sleep(WAIT)
