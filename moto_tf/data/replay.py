"""Replay of offline and online episodes, sampled as windows of records.

A batch is a pure function of the seed, the step and the episodes held, so a
continued run draws the batches that an uninterrupted one would have drawn.
"""

import collections
import concurrent.futures
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np

from moto_tf import files
from moto_tf.data import episodes as storage
from moto_tf.data.cloning import Cloning, why_uncloned
from moto_tf.data.pool import Episode, Pool, ReplayError, draw_files
from moto_tf.errors import warn
from moto_tf.progress import Progress

KEYS = ('action', 'reward', 'is_first', 'is_last', 'is_terminal')
THREADS = 4
CONTEXT = 8  # Records before those to clone, to see where the robot is.
CHUNK = 32  # Files read at once; bounds what is read beyond the capacity.


class _Contents(NamedTuple):
  """What a batch is drawn from; replaced as a whole by `Replay.add`."""

  version: int
  offline: Pool
  online: Pool
  both: Pool
  clones: Pool  # What there is to clone, episodes and parts of others.
  achieved: Pool  # Of this, the episodes marked successful.


class Replay:
  """Offline episodes (read only) and online episodes (kept as files)."""

  def __init__(
    self,
    offline: Path | None,
    online: Path | None,
    obs_space: dict[str, gymnasium.spaces.Box],
    act_space: gymnasium.spaces.Box,
    *,
    batch: int,
    length: int,
    capacity: int,
    offline_share: float,
    success_share: float = 0.0,
    offline_episodes: int = 0,
    seed: int,
    cloning: Cloning,
    keep: list[str] | None = None,
  ):
    """Loads the episodes in both directories.

    Unusable files are named in a warning and stay where they are. Beyond the
    capacity, the first offline and the newest online episodes are held, at
    least one of each.

    Args:
      offline: directory of demonstrations, which must hold some, or None.
      online: directory of collected episodes, created by the first `add`, or
        None if there will be no `add`.
      obs_space: observations to hold; others in the files are not read.
      act_space: what actions must fit into.
      batch: windows per batch.
      length: records per window.
      capacity: transitions held in memory.
      offline_share: share of windows drawn from offline episodes, 0 to 1; -1
        draws from all records alike.
      success_share: share of windows drawn first from what there is to clone,
        half of them from episodes marked successful, while there are any.
      offline_episodes: files of `offline` that are used, drawn by the seed
        whatever is in them (paper A.2); 0: all. Of one seed, more hold fewer.
      seed: of the batches and of that draw, 0 or more.
      cloning: which records are cloned.
      keep: names of the online episodes to load, in order, as returned by
        `online_names` for a checkpoint. Later ones move to `superseded/`. By
        default all are loaded, in the order of their names.

    Raises:
      ReplayError: an argument is out of range, or `offline` has no episode
        that can be used, or fewer than are asked for.
    """
    for name, value in dict(
      batch=batch, length=length, capacity=capacity
    ).items():
      if value < 1:
        raise ReplayError(f'replay.{name} is {value}, expected 1 or more.')
    if offline_share != -1 and not 0 <= offline_share <= 1:
      raise ReplayError(
        f'replay.offline_share is {offline_share}, expected 0 to 1, or -1 for '
        'uniform sampling.'
      )
    if not 0 <= success_share <= 1:
      raise ReplayError(
        f'replay.success_share is {success_share}, expected 0 to 1.'
      )
    if not 0 <= seed < 2**64:
      raise ReplayError(f'The replay seed is {seed}, expected 0 to 2^64 - 1.')
    self._online = Path(online) if online else None
    self._act_space = act_space
    self._obs_space = dict(obs_space)
    self._batch = batch
    self._length = length
    self._capacity = capacity
    self._offline_share = offline_share
    self._success_share = success_share
    self._offline_episodes = offline_episodes
    self._seed = seed
    self._cloning = cloning
    if offline and online and Path(offline).resolve() == self._online.resolve():
      raise ReplayError(
        f'{offline} is given for offline and for online episodes; use a '
        'directory of its own for each.'
      )
    offline_pool = Pool(self._load_offline(Path(offline)) if offline else ())
    paths = self._online_paths(keep)
    self._names = [path.stem for path in paths]
    # The newest come first, so that the oldest are those without room.
    room = capacity - offline_pool.transitions
    loaded, _ = self._load(paths[::-1], room)
    self._contents = self._combine(0, offline_pool, loaded[::-1])
    print(self._summary())

  @property
  def version(self) -> int:
    """Grows with every change of the episodes held."""
    return self._contents.version

  def online_names(self) -> list[str]:
    """Names of all online episodes on disk, in the order of addition.

    Includes those that no longer fit into memory.
    """
    return list(self._names)

  def stats(self) -> dict[str, int]:
    """Counts of what is held in memory."""
    contents = self._contents
    offline, online, both = contents.offline, contents.online, contents.both
    return {
      'episodes': len(both.episodes),
      'transitions': both.transitions,
      'offline_episodes': len(offline.episodes),
      'offline_transitions': offline.transitions,
      'online_episodes': len(online.episodes),
      'online_transitions': online.transitions,
      'successes': sum(e.success for e in both.episodes),
    }

  @property
  def uncloned(self) -> str:
    """Why no offline episode is one to clone, '' if some are."""
    return why_uncloned(self._contents.offline, self._cloning)

  def records(self, key: str) -> np.ndarray:
    """All records [N, ...] of an observation that are held."""
    episodes = self._contents.both.episodes
    return np.concatenate([e.arrays[key] for e in episodes])

  def add(self, episode: dict[str, np.ndarray], name: str) -> Path:
    """Writes an online episode to disk, then holds it in memory.

    The oldest online episodes leave memory beyond the capacity; their files
    stay. The newest is always held.

    Returns:
      The file, `<name>-<transitions>.npz`.

    Raises:
      ReplayError: there is no online directory, or the name is taken.
      EpisodeError: the episode does not fit the spaces.
      FileError: it cannot be written. The replay is unchanged after any of
        these.
    """
    if self._online is None:
      raise ReplayError('This replay has no online directory to add to.')
    path = self._online / f'{name}-{len(episode.get("reward", ())) - 1}.npz'
    if path.exists():
      raise ReplayError(f'{path} exists already; give the episode a new name.')
    path = storage.save_episode(self._online, name, episode)
    try:
      # From the file, so that memory holds what a continued run will load.
      loaded = self._read(path)
    except storage.EpisodeError:
      path.unlink(missing_ok=True)
      raise
    self._names.append(path.stem)
    contents = self._contents
    offline = contents.offline
    online = collections.deque((*contents.online.episodes, loaded))
    excess = offline.transitions - self._capacity
    excess += sum(e.records - 1 for e in online)
    while excess > 0 and len(online) > 1:
      excess -= online.popleft().records - 1
    self._contents = self._combine(contents.version + 1, offline, online)
    return path

  def sample(self, step: int) -> dict[str, np.ndarray]:
    """Draws the batch of a gradient step.

    The same seed, step and episodes give the same batch in any process.

    Args:
      step: gradient step, 0 or more.

    Returns:
      Arrays [batch, length, ...] in new memory: the observations, action,
      reward, is_first, is_last, is_terminal, and success, 1.0 for the records
      to clone. is_first marks the start of a window and of each
      episode inside; at the start of a window, action and reward are those on
      record.

    Raises:
      ReplayError: there are no episodes.
    """
    contents = self._contents
    if not contents.both.episodes:
      raise ReplayError(
        'There are no episodes to train on. Record demonstrations with '
        'python -m moto_tf collect and pass their directory as offline_data, '
        'or set prefill_episodes.'
      )
    if step < 0:
      raise ReplayError(f'The step is {step}, expected 0 or more.')
    key = np.array([self._seed, step], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    shape = (self._batch, self._length)
    example = contents.both.episodes[0].arrays
    batch = {
      key: np.empty(shape + value.shape[1:], value.dtype)
      for key, value in example.items()
    }
    for lane, pool in enumerate(self._lanes(contents)):
      for episode, start, position, size in pool.window(rng, self._length):
        target = slice(position, position + size)
        for key, value in episode.arrays.items():
          batch[key][lane, target] = value[start : start + size]
    batch['is_first'][:, 0] = True
    return batch

  def _lanes(self, contents):
    """The pool of each window of a batch."""
    offline, online, both = contents.offline, contents.online, contents.both
    clones, achieved = contents.clones, contents.achieved
    count = round(self._success_share * self._batch) if clones.episodes else 0
    first = count // 2 if achieved.episodes else 0
    lanes = [achieved] * first + [clones] * (count - first)
    rest = self._batch - count
    if self._offline_share < 0 or not offline.episodes or not online.episodes:
      return lanes + [both] * rest
    count = round(self._offline_share * rest)
    return lanes + [offline] * count + [online] * (rest - count)

  def _combine(self, version, offline, online):
    online = Pool(online)
    both = Pool(offline.episodes + online.episodes)
    cloned = [e for e in both.episodes if e.cloned]
    clones = Pool(e if e.success else e.cut(CONTEXT) for e in cloned)
    achieved = Pool(e for e in cloned if e.success and e.achieved)
    return _Contents(version, offline, online, both, clones, achieved)

  def _load_offline(self, directory):
    paths = storage.find_episodes(directory) if directory.is_dir() else []
    paths = draw_files(paths, self._offline_episodes, self._seed)
    loaded, full = self._load(paths, self._capacity)
    if not loaded:
      problem = (
        f'{directory} has {len(paths)} episode files (*.npz) and none can be '
        'used'
      )
      if not directory.is_dir():
        problem = f'There is no directory {directory}'
      problem += storage.folders_with_episodes(directory)
      raise ReplayError(
        f'{problem}. Record demonstrations with python -m moto_tf collect, or '
        'set offline_data to a directory that has some.'
      )
    if full:
      warn(
        f'Only the first {len(loaded)} of {len(paths)} episodes in {directory} '
        f'fit into replay.capacity = {self._capacity} transitions, which '
        'leaves room for one online episode. Raise replay.capacity.',
      )
    return loaded

  def _online_paths(self, keep):
    """Online episode files in order, after moving away those not to keep."""
    paths = []
    if self._online and self._online.is_dir():
      paths = storage.find_episodes(self._online)
    if keep is None:
      return paths
    known = {path.stem: path for path in paths}
    names = dict.fromkeys(keep)
    moved = [path for path in paths if path.stem not in names]
    if moved:
      target = self._online / 'superseded'
      with files.writing(target):
        files.move_into(moved, target)
      print(
        f'Moved {len(moved)} online episodes from after the checkpoint to '
        f'{target}, {moved[0].stem} to {moved[-1].stem}.'
      )
    missing = [name for name in names if name not in known]
    if missing:
      warn(
        f'{len(missing)} of {len(names)} online episodes of the checkpoint are '
        f'not in {self._online}: {_shorten(missing)}. Training goes on '
        'without them.',
      )
    return [known[name] for name in names if name in known]

  def _load(self, paths, room):
    """Loads files in order until `room` transitions are used.

    The first is always loaded. Sizes come from file headers, so that one
    episode at most is read in vain.

    Returns:
      The episodes, and whether some were left out for want of room.
    """
    episodes, problems, done, full = [], [], 0, False
    with (
      Progress('loading', len(paths), delay=5.0) as progress,
      concurrent.futures.ThreadPoolExecutor(THREADS) as threads,
    ):
      while done < len(paths) and not full:
        chosen, ahead = [], room
        chunk = paths[done : done + CHUNK]
        lengths = threads.map(storage.attempt(storage.episode_length), chunk)
        for path, length in zip(chunk, lengths, strict=True):
          # Up to the first that should not fit, since it may be a broken one.
          if ahead < 0 and chosen:
            break
          done += 1
          if isinstance(length, storage.EpisodeError):
            problems.append(length)
            continue
          chosen.append(path)
          ahead -= length
        for episode in threads.map(storage.attempt(self._read), chosen):
          if isinstance(episode, storage.EpisodeError):
            problems.append(episode)
            continue
          full = full or (episode.records - 1 > room and bool(episodes))
          if not full:
            episodes.append(episode)
            room -= episode.records - 1
        progress.show(done)
    if problems:
      texts = [str(problem).removesuffix('.') for problem in problems]
      warn(
        f'{len(problems)} of {len(paths)} episode files are skipped and left '
        f'in place. {_shorten(texts, "; ")}.',
      )
    return episodes, full

  def _read(self, path):
    episode = storage.load_episode(
      path, self._obs_space, self._act_space, self._cloning.logs
    )
    arrays = {
      key: np.ascontiguousarray(episode[key])
      for key in (*self._obs_space, *KEYS)
    }
    cloned = self._cloning.of(episode)
    arrays['success'] = np.zeros(len(arrays['reward']), np.float32)
    arrays['success'][cloned.start : cloned.stop] = 1
    return Episode(arrays, bool(np.any(episode['success'])))

  def _summary(self):
    contents = self._contents
    offline, online, both = contents.offline, contents.online, contents.both
    size = sum(v.nbytes for e in both.episodes for v in e.arrays.values())
    parts = []
    for name, pool in (('offline', offline), ('online', online)):
      successes = sum(e.success for e in pool.episodes)
      parts.append(
        f'{len(pool.episodes):,} {name} episodes ({pool.transitions:,} '
        f'transitions, {successes:,} successful)'
      )
    rest = len(self._names) - len(online.episodes)
    parts += [f'{rest:,} online on disk only'] if rest else []
    return f'Replay: {", ".join(parts)}, {size / 2**20:,.0f} MiB.'


def _shorten(items, separator=', '):
  rest = f' and {len(items) - 5} more' if len(items) > 5 else ''
  return separator.join(str(item) for item in items[:5]) + rest
