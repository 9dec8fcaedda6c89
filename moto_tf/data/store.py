"""Directories that are filled with episodes, and go on where they stopped.

They hold '<number>-<transitions>.npz' files and dataset.json, which says by
what settings they were made; others cannot be mixed in.
"""

import json
import pathlib
import re
import sys
import time
from importlib import metadata

import moto_tf
from moto_tf.data import episodes, inspect
from moto_tf.errors import MotoError


class StoreError(MotoError, ValueError):
  """A directory cannot be filled, or filled further; the message says why."""


def open_directory(directory: pathlib.Path, settings: dict) -> tuple[set, set]:
  """Numbers of the episodes kept and dropped so far.

  Creates the directory if it is missing. Raises StoreError when it was filled
  by other settings or by somebody else, or when an episode is damaged.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  record = inspect.read_record(directory)
  paths = episodes.find_episodes(directory)
  if paths and not record:
    raise StoreError(
      f'{directory}: holds episodes but no dataset.json, so they were not '
      'made by this tool. Choose another directory.'
    )
  differing = inspect.differences(record, settings)
  if differing and not paths:
    # Nothing is lost, for example after a first try with a wrong camera.
    write_record(directory, settings, dropped=[])
    return set(), set()
  if differing:
    raise StoreError(
      f'{directory}: was made with other settings: {"; ".join(differing)}. '
      'Use those settings, or another directory.'
    )
  kept = set()
  for path in paths:
    match = re.fullmatch(r'(\d{6,})-\d+', path.stem)
    if not match:
      raise StoreError(f'{path}: not made by this tool; move it elsewhere.')
    try:
      episodes.load_episode(path)
    except episodes.EpisodeError as error:
      raise StoreError(
        f'{str(error).rstrip(".")}. Remove the file to have it made again.'
      ) from error
    kept.add(int(match[1]))
  return kept, set(record.get('dropped', ()))


def write_record(directory: pathlib.Path, settings: dict, **facts):
  """Write dataset.json: settings, facts about the episodes, versions."""
  packages = {
    name: metadata.version(name)
    for name in ('metaworld', 'gymnasium-robotics', 'mujoco', 'numpy')
  }
  record = {
    **settings,
    **facts,
    'versions': {'moto_tf': moto_tf.__version__, **packages},
  }
  text = json.dumps(record, indent=2) + '\n'
  episodes.write_atomic(pathlib.Path(directory) / 'dataset.json', text.encode())


class Progress:
  """One line that is rewritten on a terminal, and repeated elsewhere."""

  def __init__(self, task: str, done: int, total: int, every: float = 10.0):
    self._task, self._start, self._total = task, done, total
    self._stream, self._every = sys.stdout, every
    self._began = self._shown = time.monotonic()

  def show(self, kept: int, dropped: int):
    """Print the state, at most every few seconds when not on a terminal."""
    now = time.monotonic()
    fresh = kept - self._start
    terminal = self._stream.isatty()
    finished = kept >= self._total
    if not (terminal or finished or now - self._shown >= self._every):
      return
    self._shown = now
    rate = fresh / max(now - self._began, 1e-6)
    left = f'{(self._total - kept) / rate:.0f} s left' if fresh else '? s left'
    line = (
      f'{self._task:<14} {kept}/{self._total} episodes, {dropped} dropped, '
      f'{60 * rate:.1f}/min, {left}'
    )
    line = f'\r{line:<79}' if terminal else f'{line}\n'
    print(line, end='', flush=True, file=self._stream)

  def close(self):
    """End the line on a terminal."""
    if self._stream.isatty():
      print(file=self._stream, flush=True)
