"""Demonstrations recorded with the scripted experts of a suite.

Attempt i depends only on the seed, i and the settings, never on the number of
worker processes. A recording can therefore stop anywhere and go on later: the
directory ends up with the same files as if it had not been interrupted.
"""

import dataclasses
import itertools
import json
import pathlib

import numpy as np

from moto_tf import envs
from moto_tf.data import episodes, inspect, store
from moto_tf.envs import driver
from moto_tf.errors import MotoError, warn
from moto_tf.progress import Progress

# Attempts per wanted episode before a recording gives up.
PATIENCE = 10


class RecordError(MotoError, ValueError):
  """A recording cannot start or go on; the message says why."""


@dataclasses.dataclass(frozen=True)
class Recording:
  """Everything that decides what an attempt looks like.

  task is a name with its suite such as 'metaworld_drawer-open', noise the
  standard deviation of Gaussian noise on the actions, env the `env` part of a
  Config. Without all_outcomes only the attempts are kept that the suite calls
  demonstrations, for most tasks the successful ones. order is that of
  `envs.make_demonstrator`.
  """

  task: str
  env: object
  seed: int = 0
  noise: float = 0.0
  all_outcomes: bool = False
  order: str = ''

  def settings(self) -> dict:
    """Plain values, as stored in dataset.json."""
    values = {
      'task': self.task,
      'seed': self.seed,
      'noise': self.noise,
      'all_outcomes': self.all_outcomes,
      'order': self.order,
      'env': dict(self.env),
      'policy': 'scripted',
    }
    return json.loads(json.dumps(values))


class Recorder:
  """Makes attempts of a recording, several at a time in worker processes."""

  def __init__(self, recording: Recording, workers: int):
    self._recording = recording
    self._demonstrator = envs.make_demonstrator(recording.task, recording.order)
    self._policies, self._over = {}, np.zeros(workers, bool)
    self._seeds = []
    make_env = envs.env_maker(recording.task, recording.env)
    self._driver = driver.Driver(make_env, workers, 'process')

  def attempts(self, indices: list[int]) -> list[dict | None]:
    """Return the episodes of some attempts, [records, ...] per key each.

    None for one that the environment cannot finish, which is named.
    """
    seeds = [_seed(self._recording.seed, index) for index in indices]
    self._seeds = seeds
    lose = lambda seed, problem: warn(
      f'attempt {indices[seeds.index(seed)]} is lost and dropped. {problem}'
    )
    over = lambda: self._over
    return self._driver.run(self._policy, seeds, over=over, on_lost=lose)

  def close(self) -> None:
    """End the worker processes."""
    self._driver.close()

  def _policy(self, obs, state, lanes):
    actions = []
    for i, (seed, step) in enumerate(zip(*lanes, strict=True)):
      if seed not in self._seeds:  # A worker without an attempt of its own.
        actions.append(np.zeros(self._driver.act_space.shape))
        continue
      if step == 0:
        self._policies[i] = self._demonstrator.policy(int(seed))
      action = self._policies[i]({key: obs[key][i] for key in obs})
      self._over[i] = action is None
      if self._over[i]:
        action = np.zeros(self._driver.act_space.shape, np.float32)
      noise = np.random.default_rng([seed, step]).standard_normal(len(action))
      actions.append(action + self._recording.noise * noise)
    return np.clip(actions, -1, 1), state


def _seed(seed, index):
  """Seed of the environment for an attempt."""
  # Half of the range, since not every generator takes seeds above 2 ** 31.
  return int(np.random.SeedSequence([seed, index]).generate_state(1)[0] // 2)


def collect(
  recording: Recording,
  directory: pathlib.Path,
  count: int,
  workers: int = 1,
) -> inspect.Info:
  """Record until a directory holds `count` episodes, going on if it has some.

  Writes '<attempt>-<transitions>.npz' files and dataset.json, and returns the
  numbers of the whole directory. Raises RecordError when too few attempts
  succeed, StoreError when the directory belongs to another recording or an
  episode is damaged.
  """
  if (
    count < 1
    or workers < 1
    or not 0 <= recording.noise < np.inf
    or recording.seed < 0
  ):
    raise RecordError(
      f'Got {count} episodes, {workers} workers, noise {recording.noise} and '
      f'seed {recording.seed}; expected at least 1, 1, 0 and 0.'
    )
  # An unknown task must not leave an empty directory behind.
  demonstrator = envs.make_demonstrator(recording.task, recording.order)
  kept, dropped = store.open_directory(directory, recording.settings())
  if len(kept) < count:
    left = (i for i in itertools.count() if i not in kept | dropped)
    name = recording.task.partition('_')[2]
    progress = Progress(name, count, len(kept))
    recorder = Recorder(recording, min(workers, count - len(kept)))
    try:
      while len(kept) < count:
        # Never more than are missing, so the last one is the last attempt.
        indices = list(itertools.islice(left, min(workers, count - len(kept))))
        for index, episode in zip(indices, recorder.attempts(indices)):
          if episode is not None and (
            recording.all_outcomes or demonstrator.keep(episode)
          ):
            episodes.save_episode(directory, f'{index:06d}', episode)
            kept.add(index)
          else:
            dropped.add(index)
            settings = recording.settings()
            store.write_record(directory, settings, dropped=sorted(dropped))
          progress.show(len(kept), f'{len(dropped)} dropped')
        tries = len(kept | dropped)
        if len(kept) < count and tries >= PATIENCE * count:
          raise RecordError(
            f'{recording.task}: only {len(kept)} of {tries} attempts were '
            f'kept, {count} are wanted. Lower --noise ({recording.noise}), or '
            'keep failures too with --all_outcomes.'
          )
    finally:
      recorder.close()
      progress.close()
  return inspect.inspect(directory)
