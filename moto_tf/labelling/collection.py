"""The episodes of a directory, for somebody who watches and labels them."""

import datetime
import json
import threading
from pathlib import Path

import numpy as np

from moto_tf import files, ownership
from moto_tf.data import episodes
from moto_tf.labelling import labels
from moto_tf.labelling.labels import LabelError
from moto_tf.progress import Progress

# Beside the episodes: a line per label, with who gave it and when.
RECORD = 'labels.jsonl'


class UnknownEpisodeError(LabelError):
  """There is no such episode; the message names it."""


class Collection:
  """Episodes with their images and labels. Its methods may run in threads.

  A context manager. Until its end, the directory, or the run whose episodes
  they are, is this process's own.

  Attributes:
    directory: of the episodes.
    key: of the images.
    keys: all that are images.
    reward: whether rewards follow the labels.
  """

  def __init__(
    self, directory: Path, key: str = '', reward: bool = False, who: str = ''
  ):
    """Reads what is said of every episode.

    Args:
      directory: of episodes, or the log directory of a run.
      key: of the images, by default the first one.
      reward: as in `labels.set_label`.
      who: is noted with every label.

    Raises:
      EpisodeError: there is no such directory, or it has no episodes.
      LabelError: none of them has such images.
      OwnedError: another process has the directory, or the run.
      FileError: it cannot be written.
    """
    self.directory, owned = _find(Path(directory))
    self.reward, self._who = reward, who
    self._lock, self._seen = threading.Lock(), {}
    self._owner = ownership.Owner(owned)
    try:
      files.sweep([self.directory], files.STALE)
      self._update()
      self.keys = sorted({k for s in self._states() for k in s.images})
      self.key = key or next(iter(self.keys), 'image')
      if self.key not in self.keys:
        raise LabelError(self._without_images())
    except BaseException:
      self._owner.close()
      raise

  def rows(self) -> list[dict]:
    """All episodes as plain values, in the order of their names.

    Of each: name, and what is wrong with it as problem ('' for nothing); if
    nothing is, records, shape of its images, labelled, rewarded, start and
    recorded, see EpisodeState.

    Raises:
      EpisodeError: the directory is gone.
    """
    with self._lock:
      self._update()
      return [self._row(name) for name in self._seen]

  def frames(self, name: str) -> np.ndarray:
    """The images [records, H, W, C] of an episode, uint8.

    Raises:
      UnknownEpisodeError: there is no such episode.
      EpisodeError: it cannot be read.
      LabelError: it has no such images.
    """
    path = self._path(name)
    return np.ascontiguousarray(episodes.load_episode(path)[self.key])

  def label(
    self,
    name: str,
    label: str | None,
    start: int | None = None,
    reward: bool | None = None,
  ) -> dict:
    """Labels an episode, and notes who did.

    Args:
      name: of the file.
      label: 'success', 'failure', or None for what was recorded.
      start: first record of a success, by default the last record.
      reward: whether rewards follow this label, by default as those of the
        collection do.

    Returns:
      Its row, as in `rows`.

    Raises:
      UnknownEpisodeError: there is no such episode.
      LabelError: it has no record `start`, or no images to judge it by.
      EpisodeError: it cannot be read.
      FileError: it cannot be written. The episode is unchanged after any error.
    """
    with self._lock:
      path = self._path(name)
      records = labels.look(path).records
      if label != 'success':
        start = None
      elif start is None:
        start = records - 1
      labels.check_start(start, records)
      self._owner.check()
      reward = self.reward if reward is None else reward
      # First, so that every label has its line, whenever this process ends.
      self._note(episode=name, label=label, start=start, reward=reward)
      if label is None:
        labels.clear_label(path)
      else:
        labels.set_label(path, start, reward)
      self._seen[name] = self._look(path)
      return self._row(name)

  def close(self) -> None:
    """Waits for a label that is being written, and leaves the directory."""
    with self._lock:
      self._owner.close()

  def __enter__(self) -> 'Collection':
    return self

  def __exit__(self, *error) -> None:
    self.close()

  def _update(self):
    """Looks at new and changed files."""
    paths, seen = episodes.find_episodes(self.directory), {}
    with Progress('reading', len(paths), delay=5.0) as progress:
      for path in paths:
        seen[path.name] = self._look(path)
        progress.show(len(seen))
    self._seen = seen

  def _look(self, path):
    """Version and state of a file, or an error in the place of the state."""
    try:
      status = path.stat()
    except OSError as error:
      return None, LabelError(f'{path}: {error.strerror}.')
    version = status.st_mtime_ns, status.st_size, status.st_ino
    known = self._seen.get(path.name)
    if known and known[0] == version:
      return known
    if path.resolve().parent != self.directory:
      return version, LabelError(
        f'{path} is a link to {path.resolve()}; label it in that directory.'
      )
    return version, episodes.attempt(labels.look)(path)

  def _states(self):
    found = [state for _, state in self._seen.values()]
    return [x for x in found if isinstance(x, labels.EpisodeState)]

  def _path(self, name):
    if name not in self._seen:
      raise UnknownEpisodeError(
        f'{self.directory} has no episode {name!r}; load the page again.'
      )
    if problem := self._row(name)['problem']:
      raise LabelError(problem)
    return self.directory / name

  def _row(self, name):
    _, state = self._seen[name]
    if not isinstance(state, labels.EpisodeState):
      return {'name': name, 'problem': str(state)}
    shape = state.images.get(self.key, ())
    problem = ''
    if not shape:
      problem = f'{name}: there are no images {self.key!r}.'
    elif shape[2] not in (1, 3):
      problem = f'{name}: images have {shape[2]} channels, expected 1 or 3.'
    return {
      'name': name,
      'problem': problem,
      'records': state.records,
      'shape': list(shape),
      'labelled': state.labelled,
      'rewarded': state.rewarded,
      'start': state.start,
      'recorded': state.recorded,
    }

  def _without_images(self):
    states = self._states()
    if not states:
      _, problem = next(iter(self._seen.values()))
      return f'{self.directory}: no episode can be used. {problem}'
    if self.keys:
      names = ', '.join(self.keys)
      return (
        f'{self.directory}: there are no images {self.key!r}; image keys here: '
        f'{names}. Example: --key {self.keys[0]}'
      )
    names = ', '.join(x for x in states[0].keys if x not in episodes.RESERVED)
    return (
      f'{self.directory}: its episodes have no images to look at, only '
      f'{names}. Record them with images (--env.image True), or label them in '
      'Python; see docs/labelling.md.'
    )

  def _note(self, **values):
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    line = json.dumps({'time': now, 'who': self._who, **values}).encode()
    path = self.directory / RECORD
    with files.writing(path), path.open('ab+') as stream:
      if stream.tell():
        stream.seek(-1, 2)
        if stream.read(1) != b'\n':  # What a power failure left of a line.
          line = b'\n' + line
      stream.write(line + b'\n')


def _find(directory):
  """Where the episodes lie, and the directory to be owned for them."""
  paths = episodes.find_episodes(directory)
  inside = directory / 'episodes'
  if not paths and inside.is_dir() and episodes.find_episodes(inside):
    directory = inside
  elif not paths:
    where = episodes.folders_with_episodes(directory)
    raise episodes.EpisodeError(
      f'{directory}: there are no episodes (*.npz) here{where}.'
    )
  directory = directory.resolve()
  run = directory.parent
  marks = [run / x for x in ('config.yaml', 'checkpoints', ownership.NAME)]
  if directory.name == 'episodes' and any(path.exists() for path in marks):
    return directory, run
  return directory, directory
