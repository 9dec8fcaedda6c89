"""Data of others as our episodes: the registry of formats, and the import.

A format is one file with a Reader (see `moto_tf.data.formats`) and one call of
`register_format`. It may be of any suite.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from moto_tf import envs, rules
from moto_tf.data import episodes, inspect, lerobot, store
from moto_tf.data.formats import Format, Reader, SourceError, find_copies
from moto_tf.envs.driver import TRIES
from moto_tf.envs.worker import Worker, WorkerError
from moto_tf.errors import MotoError, warn
from moto_tf.progress import Progress
from moto_tf.registry import Registry, resolve

# Facts that only data has whose actions were scaled.
ENDS = ('action_low', 'action_high')
# What one trajectory is skipped for; anything else concerns them all.
BAD = (SourceError, episodes.EpisodeError)

FORMATS = Registry(
  'format',
  {
    name: entry
    for suite in envs.SUITES.values()
    if suite.formats
    for name, entry in resolve(suite.formats).items()
  }
  # Of no suite.
  | {
    'lerobot': Format(
      lerobot.open_reader,
      lerobot.WHERE,
      report=lerobot.report,
      relabels=False,
    ),
  },
)


def register_format(
  name: str,
  open: str | Callable,
  *,
  where: str = '',
  suite: str = '',
  report: str | Callable | None = None,
  relabels: bool = True,
) -> Format:
  """Adds a format of one's own to those that `dataset import` reads.

  Args:
    name: of the format.
    open, where, suite, report, relabels: see `Format`.

  Raises:
    RegistryError: the name is taken, or is none.
  """
  return FORMATS.register(name, Format(open, where, suite, report, relabels))


@dataclasses.dataclass(frozen=True)
class Import:
  """Everything that decides what an imported episode looks like.

  Attributes:
    format: a key of FORMATS.
    path: file or folder that it reads.
    task: name with its suite.
    env: the `env` part of a Config.
    relabel: stored rewards need not be those of the task.
  """

  format: str
  path: Path
  task: str
  env: object
  relabel: bool = False

  def settings(self) -> dict:
    """Plain values, as stored in dataset.json."""
    values = {
      'task': self.task,
      'format': self.format,
      'source': '/'.join(Path(self.path).absolute().parts[-2:]),
      'env': dict(self.env),
    }
    return json.loads(json.dumps(values))


def full_task(kind: str, task: str) -> str:
  """Name of a task with its suite, which the format may know.

  Raises:
    RegistryError: there is no such format.
    SourceError: the format has data of another suite.
  """
  suite = FORMATS[kind].suite
  if not suite:
    return envs.full_task(task)
  if '_' not in task:
    return f'{suite}_{task}'
  if task.partition('_')[0] != suite:
    raise SourceError(
      f'The format {kind} has data of tasks {suite}_<name>, not of {task}.'
    )
  return task


def open_reader(recipe: Import) -> Reader:
  """The reader of an import.

  Raises:
    RegistryError: there is no such format.
    EnvError: there is no such suite.
    MotoError: there is nothing at the path, or nothing of this format.
  """
  envs.find_suite(recipe.task)
  return _open(FORMATS[recipe.format], recipe)


def import_dataset(
  recipe: Import, directory: Path, workers: int = 1
) -> inspect.Info:
  """Turns files of others into a directory of episodes, going on if it has any.

  Episode i is trajectory i, whatever the number of worker processes. One that
  cannot be used, or whose file is a copy of another one, is named and skipped.

  Returns:
    The numbers of the whole directory.

  Raises:
    MotoError: the files cannot be read or are of something else, or none of
      the trajectories can be used. Then nothing is written.
    StoreError: the directory holds something else.
    WorkerError: reading failed in a worker process.
  """
  with contextlib.closing(open_reader(recipe)) as reader:
    names, facts = list(reader.names), reader.check()
    copies = find_copies(reader.files)
  target = _Target(directory, recipe.settings(), names, facts)
  skipped = {
    index: f'{names[index]}: is an identical copy of {path.name}.'
    for index, path in copies.items()
    if index not in target.kept
  }
  left = [i for i in range(len(names)) if i not in {*target.kept, *skipped}]
  name = recipe.task.partition('_')[2]
  with (
    Progress(name, len(names), len(target.kept)) as progress,
    contextlib.closing(_read(recipe, left, workers)) as found,
  ):
    for index, episode in found:
      try:
        if isinstance(episode, BAD):
          raise episode
        target.add(index, episode)
      except BAD as error:
        skipped[index] = f'{names[index]}: {error}'
      progress.show(len(target.kept))
  for problem in skipped.values():
    warn(f'skipped, {problem}')
  if not target.kept:
    problem = next(iter(skipped.values()), f'{recipe.path}: holds nothing.')
    raise SourceError(
      f'None of {len(names)} trajectories can be used. The first: {problem}'
    )
  print(
    f'{len(target.kept)} of {len(names)} trajectories are in {directory}, '
    f'{len(skipped)} are skipped.'
  )
  return inspect.inspect(directory)


class _Target:
  """The directory of an import, which the first usable episode makes.

  Attributes:
    kept: numbers of the episodes in it.
  """

  def __init__(self, directory, settings, names, facts):
    self._directory, self._settings = Path(directory), settings
    named = hashlib.sha256('\n'.join(names).encode()).hexdigest()
    self._facts = {'trajectories': len(names), 'names': named, **facts}
    self._recorded, self.kept = False, set()
    if not self._directory.exists():
      return
    self.kept, _ = store.open_directory(self._directory, settings)
    record = inspect.read_record(self._directory)
    before = record.get('trajectories')
    if not self.kept:
      return
    if before not in (None, len(names)):
      raise store.StoreError(
        f'{directory}: was made of {before} trajectories, and now there are '
        f'{len(names)}, so their numbers differ. Import into another directory.'
      )
    if record.get('names') not in (None, named):
      raise store.StoreError(
        f'{directory}: was made of trajectories of other names than there are '
        'now, so their numbers differ. Import into another directory.'
      )
    _check_facts(directory, record, facts)

  def add(self, index, episode):
    episode = _complete(episode)
    if not self._recorded:
      # Nothing is written where the first one proves to be none.
      episodes.check_episode(episode, f'trajectory {index}')
      store.open_directory(self._directory, self._settings)
      store.write_record(self._directory, self._settings, **self._facts)
      self._recorded = True
    episodes.save_episode(self._directory, f'{index:06d}', episode)
    self.kept.add(index)


def _check_facts(directory, record, facts):
  """Refuses to add episodes that are made in another way than those there."""
  facts = json.loads(json.dumps(facts))
  for key in (*ENDS, *facts):
    before, now = (x.get(key, 'none') for x in (record, facts))
    if before != now and (key in record or key in ENDS):
      raise store.StoreError(
        f'{directory}: was made with {key} {rules.brief(before)}, and now it '
        f'would be {rules.brief(now)}, so that episodes would not go together. '
        'Import into another directory.'
      )


def _open(entry, recipe):
  path = rules.expand(recipe.path)
  if not path.exists():
    raise SourceError(f'{path}: there is no such file. {entry.where}'.strip())
  return resolve(entry.open)(path, recipe.task, recipe.env, recipe.relabel)


class _Careful:
  """A reader in a worker process, which lives on after a bad trajectory."""

  def __init__(self, entry, recipe):
    self._reader = _open(entry, recipe)

  def read(self, index):
    try:
      return self._reader.read(index)
    except BAD as error:
      return error

  def close(self):
    self._reader.close()


def _read(recipe, indices, workers) -> Iterator[tuple[int, dict | MotoError]]:
  """Episodes in the order of their numbers, read by worker processes.

  Or why there is none.
  """
  # The entry goes along, because a worker may not know the format.
  make = functools.partial(_Careful, FORMATS[recipe.format], recipe)
  workers = min(workers, len(indices))
  pool = []
  try:
    for worker, index in zip(range(workers), indices):
      pool.append(Worker(make, 'reader'))
      pool[worker].send('read', index)
    for i, index in enumerate(indices):
      worker = pool[i % workers]
      episode = _result(worker, index)
      # It reads on while this one is written.
      if i + workers < len(indices):
        worker.send('read', indices[i + workers])
      yield index, episode
  except WorkerError as failure:
    if isinstance(failure.error, MotoError):
      raise failure.error from failure
    raise
  finally:
    for worker in pool:
      worker.close()


def _result(worker, index):
  """What a worker reads; one that died is replaced, and tries again."""
  for _ in range(TRIES - 1):
    try:
      return worker.result()
    except WorkerError as failure:
      if isinstance(failure.error, MotoError):
        raise
      warn(f'{failure}\nTrajectory {index} is read again.')
    worker.restart()
    worker.send('read', index)
  return worker.result()


def _complete(episode):
  """The episode in our order of keys, with flags that its reader left out."""
  if 'reward' not in episode:
    return episode
  records = np.arange(len(episode['reward']))
  flags = {
    'is_first': records == 0,
    'is_last': records == len(records) - 1,
    'is_terminal': np.zeros(len(records), bool),
  }
  rest = {k: v for k, v in episode.items() if k not in episodes.FLAGS}
  given = {k: v for k, v in episode.items() if k in episodes.FLAGS}
  return {**rest, **flags, **given}
