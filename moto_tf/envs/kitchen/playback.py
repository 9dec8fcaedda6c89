"""Public data of the kitchen as our episodes: rendered again, rewarded anew.

Images are made from stored positions by the code that makes live ones.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from moto_tf.data.formats import Reader, SourceError
from moto_tf.envs.kitchen import sources
from moto_tf.envs.kitchen.env import Places, make_painters, make_simulation
from moto_tf.envs.kitchen.tasks import TASKS, find_targets, in_place, log_key

# Share of the stored rewards that must equal the computed ones. Positions that
# were stored with the sensors' noise may differ next to the threshold.
MATCH = 0.99


class Playback(Reader):
  """Trajectories of a source, with rewards and images of our environment.

  Episodes have the observations of Kitchen, as far as the format holds them.
  """

  def __init__(self, source, path: Path, task: str, env, relabel: bool):
    """Takes the source that was opened at a path; for the rest see Format."""
    self._targets = find_targets(task)
    self._source, self._path, self._task = source, path, task
    self._env, self._relabel = env, relabel
    self._model, self._places, self._painters = None, None, None
    self.names = source.names
    self.files = getattr(source, 'files', ())

  def check(self) -> dict:
    """Compares stored rewards with those of the task.

    Raises:
      SourceError: the rewards are those of another task, or of none; or images
        are stored and live ones would look different; or no trajectory can be
        used; or steps are repeated.
    """
    if self._env.action_repeat != 1:
      raise SourceError(
        f'{self._path}: holds every step of the simulation, 80 ms each; set '
        '--env.action_repeat 1, here and to train.py.'
      )
    found = list(self._usable())
    if found[0].qpos is None and self._env.image:
      self._check_rendering()
    shares = agreement(found)
    self._check_rewards(shares)
    return {'equal_rewards': shares}

  def read(self, index: int) -> dict[str, np.ndarray]:
    """Episode of a trajectory, arrays [T + 1, ...]."""
    stored = self._read(index)
    where = placed(stored, self._targets)
    episode = self._observations(stored, where)
    records = len(stored.action) + 1
    if where is None:
      reward = stored.reward.copy()
      wins = reward >= len(self._targets)
    else:
      reward = where.sum(-1).astype(np.float32)
      # Targets in place at the reset are no achievement.
      where = where & (np.arange(records) > 0)[:, None]
      wins = np.maximum.accumulate(where).all(-1)
    # The reset has no reward, and nothing is achieved by then.
    reward[0], wins[0] = 0, False
    first = np.zeros_like(stored.action[:1])
    return {
      **episode,
      'action': np.concatenate([first, stored.action]),
      'reward': reward,
      'success': np.maximum.accumulate(wins),
    }

  def close(self) -> None:
    for painter in (self._painters or {}).values():
      painter.close()
    self._painters = None

  def _usable(self):
    """Trajectories, without those that the import will name and skip."""
    problem, count = None, 0
    for index in range(len(self.names)):
      try:
        trajectory = self._read(index)
      except SourceError as error:
        problem = problem or error
        continue
      count += 1
      yield trajectory
    if not count:
      raise problem or SourceError(f'{self._path}: holds no trajectory.')

  def _read(self, index):
    """A trajectory whose rewards are stored or can be computed."""
    stored = self._source.read(index)
    if stored.reward is None and placed(stored, self._targets) is None:
      found = sorted(stored.rewards or ())
      missing = sorted({*self._targets} - {*found})
      raise SourceError(
        f'{self._path}, {self.names[index]}: has no rewards for '
        f'{", ".join(missing)}, only for {", ".join(found) or "nothing"}; '
        f'{self._task} needs those of {", ".join(self._targets)}. Rename what '
        'the file calls otherwise.'
      )
    return stored

  def _observations(self, stored, where):
    found = {}
    if stored.qpos is not None:
      found['qpos'] = stored.qpos.astype(np.float32)
      if self._places is None:
        self._places = Places(self._simulation())
      found['places'] = np.stack([self._places(x) for x in found['qpos']])
    if stored.state is not None:
      found['state'] = stored.state.astype(np.float32)
      found['proprio'] = found['state'][:, :18]
    if where is not None:
      for i, target in enumerate(self._targets):
        found[log_key(target)] = where[:, i].astype(np.float32)
    if self._env.image:
      found |= self._images(stored)
    return found

  def _simulation(self):
    if self._model is None:
      self._model = make_simulation(self._targets).model
    return self._model

  def _images(self, stored):
    if stored.qpos is None:
      return {'image': stored.image(self._env.image_size)}
    if self._painters is None:
      self._painters = make_painters(self._simulation(), self._env)
    qpos = stored.qpos.astype(np.float32)
    return {
      key: np.stack([painter(x) for x in qpos])
      for key, painter in self._painters.items()
    }

  def _check_rewards(self, shares):
    task = self._task.removeprefix('kitchen_')
    if not shares or shares[task] >= MATCH or self._relabel:
      return
    text = ', '.join(f'{k} {100 * v:.1f} %' for k, v in shares.items())
    best = max(shares, key=shares.get)
    advice = 'The file may be of another format, or damaged.'
    if shares[best] >= MATCH:
      advice = (
        f'Give --task kitchen_{best}, or --relabel to have the rewards of '
        f'{self._task} computed from the positions.'
      )
    raise SourceError(
      f'{self._path}: the stored rewards are not those of {self._task}. They '
      f'equal the computed ones in: {text}. {advice}'
    )

  def _check_rendering(self):
    """Refuses stored images where live ones would look different."""
    if self._env.camera != 'default':
      raise SourceError(
        f'{self._path}: holds images of the default camera; leave out '
        '--env.camera.'
      )
    if self._env.extra_size:
      raise SourceError(
        f'{self._path}: holds no positions to render a second image from; set '
        '--env.extra_size 0.'
      )
    if self._env.fast_render:
      raise SourceError(
        f'{self._path}: holds images with shadows, which the environment does '
        'not make with env.fast_render; give --env.fast_render False, here and '
        'to train.py.'
      )


def placed(
  trajectory: sources.Trajectory, targets: tuple[str, ...]
) -> np.ndarray | None:
  """Which targets are in place, bool [T + 1, targets]; None if unknown."""
  if trajectory.qpos is not None:
    return in_place(trajectory.qpos, targets)
  if trajectory.rewards and set(targets) <= set(trajectory.rewards):
    return np.stack([trajectory.rewards[x] > 0 for x in targets], -1)
  return None


def agreement(trajectories: Iterable) -> dict[str, float]:
  """Share of stored rewards that equal those of each task.

  Empty where nothing is stored that could be compared.
  """
  equal, count = dict.fromkeys(TASKS, 0), 0
  for trajectory in trajectories:
    if trajectory.reward is None:
      continue
    known = np.isfinite(trajectory.reward)
    for task, targets in TASKS.items():
      where = placed(trajectory, targets)
      if where is None:
        return {}
      same = where.sum(-1)[known] == trajectory.reward[known]
      equal[task] += int(same.sum())
    count += int(known.sum())
  return {task: equal[task] / count for task in equal} if count else {}
