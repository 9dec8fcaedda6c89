"""Directories that are filled with episodes, and go on where they stopped.

They hold '<number>-<transitions>.npz' files and dataset.json, which says by
what settings they were made; others cannot be mixed in.
"""

import contextlib
import pathlib
import re
from importlib import metadata

import moto_tf
from moto_tf import files
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
  with files.writing(directory):
    directory.mkdir(parents=True, exist_ok=True)
  files.sweep([directory], files.STALE)
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


def write_record(directory: pathlib.Path, settings: dict, **facts) -> None:
  """Write dataset.json: settings, facts about the episodes, versions."""
  versions = {'moto_tf': moto_tf.__version__}
  for name in ('metaworld', 'gymnasium-robotics', 'mujoco', 'numpy'):
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  record = {**settings, **facts, 'versions': versions}
  files.write_json(pathlib.Path(directory) / 'dataset.json', record)
