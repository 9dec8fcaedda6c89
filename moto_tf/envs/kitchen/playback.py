"""Public data of the kitchen as our episodes: rendered again, rewarded anew.

A stored trajectory is played like an environment, so that images come from the
same code as live ones, several at a time in worker processes.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np
from gymnasium.spaces import Box

from moto_tf.data import episodes, inspect, store
from moto_tf.envs import Env, driver, render
from moto_tf.envs.kitchen import env as kitchen
from moto_tf.envs.kitchen import sources
from moto_tf.envs.worker import WorkerError

# Share of the stored rewards that must equal the computed ones. Positions that
# were stored with the sensors' noise may differ next to the threshold.
MATCH = 0.99
# What the policy of the player knows, and nobody else should.
NEXT = 'next_action'


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything that decides what an imported episode looks like.

  kind is a key of sources.FORMATS, path what it reads, env the `env` part of a
  Config. With relabel, stored rewards need not be those of the task.
  """

  kind: str
  path: pathlib.Path
  task: str
  env: object
  relabel: bool = False

  def settings(self) -> dict:
    """Plain values, as stored in dataset.json."""
    values = {
      'task': self.task,
      'format': self.kind,
      'source': '/'.join(self.path.absolute().parts[-2:]),
      'env': dict(self.env),
    }
    return json.loads(json.dumps(values))


def placed(
  trajectory: sources.Trajectory, targets: tuple[str, ...]
) -> np.ndarray | None:
  """Which targets are in place, bool [T + 1, targets]; None if unknown."""
  if trajectory.qpos is not None:
    return kitchen.in_place(trajectory.qpos, targets)
  if trajectory.rewards and set(targets) <= set(trajectory.rewards):
    return np.stack([trajectory.rewards[x] > 0 for x in targets], -1)
  return None


def agreement(source) -> dict[str, float]:
  """Share of stored rewards that equal those of each task.

  Empty where nothing is stored that could be compared.
  """
  equal, count = dict.fromkeys(kitchen.TASKS, 0), 0
  for index in range(len(source.names)):
    trajectory = source.read(index)
    if trajectory.reward is None:
      continue
    known = np.isfinite(trajectory.reward)
    for task, targets in kitchen.TASKS.items():
      where = placed(trajectory, targets)
      if where is None:
        return {}
      same = where.sum(-1)[known] == trajectory.reward[known]
      equal[task] += int(same.sum())
    count += int(known.sum())
  return {task: equal[task] / count for task in equal} if count else {}


def check_rewards(recipe: Recipe, source) -> dict[str, float]:
  """Compares stored rewards with those of the task, before anything is made.

  Returns:
    Shares of equal rewards by task, see `agreement`.

  Raises:
    SourceError: the rewards are those of another task, or of none.
  """
  shares = agreement(source)
  task = recipe.task.removeprefix('kitchen_')
  if not shares or shares[task] >= MATCH or recipe.relabel:
    return shares
  text = ', '.join(f'{k} {100 * v:.1f} %' for k, v in shares.items())
  best = max(shares, key=shares.get)
  advice = 'The file may be of another format, or damaged.'
  if shares[best] >= MATCH:
    advice = (
      f'Give --task kitchen_{best}, or --relabel to have the rewards of '
      f'{recipe.task} computed from the positions.'
    )
  raise sources.SourceError(
    f'{recipe.path}: the stored rewards are not those of {recipe.task}. They '
    f'equal the computed ones in: {text}. {advice}'
  )


def check_rendering(recipe: Recipe) -> None:
  """Refuses stored images where live ones would look different.

  Raises:
    SourceError: live images would have no shadows, or would be two.
  """
  if recipe.env.extra_size:
    raise sources.SourceError(
      f'{recipe.path}: holds no positions to render a second image from; set '
      '--env.extra_size 0.'
    )
  if recipe.env.fast_render:
    raise sources.SourceError(
      f'{recipe.path}: holds images with shadows, which the environment does '
      'not make with env.fast_render; give --env.fast_render False, here and '
      'to train.py.'
    )


class Player(Env):
  """Trajectories of a source; the seed of an episode is a trajectory's number.

  Observes what Kitchen does, as far as the format holds it, and NEXT, the
  stored action. It must be given back to `step`.
  """

  def __init__(self, recipe: Recipe):
    """Opens the source, and the renderer if images are made from positions."""
    self._source = sources.open_source(recipe.kind, recipe.path)
    self.targets = kitchen.find_targets(recipe.task)
    self._size = recipe.env.image and recipe.env.image_size
    self._painters = {}
    first = self._source.read(0)
    if self._size and first.qpos is not None:
      model = kitchen.make_simulation(self.targets).model
      self._painters = kitchen.make_painters(model, recipe.env)
    columns = self._columns(first)
    spaces = {
      key: Box(0, 255, value.shape[1:], np.uint8)
      if value.dtype == np.uint8
      else Box(-np.inf, np.inf, value.shape[1:], np.float32)
      for key, value in columns.items()
    }
    if self._painters:
      spaces |= render.image_spaces(recipe.env)
    super().__init__(spaces, sources.ACTIONS)

  def close(self) -> None:
    while self._painters:
      self._painters.popitem()[1].close()

  def _columns(self, stored):
    """Observations of a whole trajectory, but for rendered images."""
    self._reward = stored.reward
    self._placed = where = placed(stored, self.targets)
    last = np.zeros_like(stored.action[:1])
    columns = {NEXT: np.concatenate([stored.action, last])}
    if stored.qpos is not None:
      columns['qpos'] = stored.qpos.astype(np.float32)
    if stored.state is not None:
      columns['state'] = stored.state.astype(np.float32)
      columns['proprio'] = columns['state'][:, :18]
    if where is not None:
      for i, target in enumerate(self.targets):
        columns[kitchen.log_key(target)] = where[:, i].astype(np.float32)
    if self._size and not self._painters:
      columns['image'] = stored.image(self._size)
    return columns

  def _reset(self, seed):
    self._data, self._now = self._columns(self._source.read(seed)), 0
    self._ever = np.zeros(len(self.targets), bool)
    return self._observe()

  def _step(self, action):
    self._now += 1
    if self._placed is None:
      reward = float(self._reward[self._now])
      success = reward >= len(self.targets)
    else:
      now = self._placed[self._now]
      self._ever |= now
      reward, success = float(now.sum()), self._ever.all()
    last = self._now == len(self._data[NEXT]) - 1
    return self._observe(), reward, False, last, success

  def _observe(self):
    obs = {key: value[self._now].copy() for key, value in self._data.items()}
    for key, painter in self._painters.items():
      obs[key] = painter(obs['qpos'])
    return obs


def import_dataset(
  recipe: Recipe, directory: pathlib.Path, workers: int = 1
) -> inspect.Info:
  """Turns a source into a directory of episodes, going on if it has some.

  Episode i is trajectory i. Returns the numbers of the whole directory. Raises
  SourceError when the source cannot be read or is of another task, StoreError
  when the directory holds something else.
  """
  kitchen.find_targets(recipe.task)
  source = sources.open_source(recipe.kind, recipe.path)
  if source.read(0).qpos is None and recipe.env.image:
    check_rendering(recipe)
  shares = check_rewards(recipe, source)
  settings = recipe.settings()
  kept, _ = store.open_directory(directory, settings)
  facts = {'trajectories': len(source.names), 'equal_rewards': shares}
  store.write_record(directory, settings, **facts)
  left = [i for i in range(len(source.names)) if i not in kept]
  if left:
    _play(recipe, directory, left, len(kept), min(workers, len(left)))
  return inspect.inspect(directory)


def _play(recipe, directory, left, done, workers):
  # A copy, because the driver writes the next observations into the same array.
  policy = lambda obs, state, lanes: (obs[NEXT].copy(), state)
  name = recipe.task.partition('_')[2]
  progress = store.Progress(name, done, done + len(left))
  try:
    players = driver.Driver(functools.partial(Player, recipe), workers)
    try:
      # Few at a time, so that little is lost when this is interrupted.
      for start in range(0, len(left), 2 * workers):
        indices = left[start : start + 2 * workers]
        for index, episode in zip(indices, players.run(policy, indices)):
          del episode[NEXT]
          episodes.save_episode(directory, f'{index:06d}', episode)
          done += 1
          progress.show(done, 0)
    finally:
      players.close()
  except WorkerError as failure:
    if isinstance(failure.error, sources.SourceError):
      raise failure.error from failure
    raise
  finally:
    progress.close()
