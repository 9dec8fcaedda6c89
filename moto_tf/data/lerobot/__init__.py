"""Datasets of LeRobot, format v3: what they look like, and the way in and out.

  meta/info.json        version, fps, features with their shapes, counts
  meta/stats.json       smallest, largest, mean, ... of each feature
  meta/tasks.parquet    instructions
  meta/episodes/...     a row per episode: which files hold it, and where
  data/...              a row per frame: state, action, reward, ...
  videos/<camera>/...   frames of many episodes after each other

Files are chunk-000/file-000.parquet or .mp4 and so on. Frame t holds what was
seen at time t and the action taken then. Our record i holds the action that led
to it, so the action, reward and success of frame t are those of record t + 1.

An episode of N frames has N actions, and what was seen after the last one is
lost. Our exports keep it in a table of their own, which others ignore:

  meta/last_observations.parquet    a row per episode

This package needs pyarrow and av, and is imported without them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from moto_tf.data.formats import Reader
from moto_tf.errors import MotoError
from moto_tf.rules import cut

# The version that is written; all of v3 is read.
VERSION = 'v3.0'
INFO = 'meta/info.json'
STATS = 'meta/stats.json'
TASKS = 'meta/tasks.parquet'
EPISODES = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
LAST = 'meta/last_observations.parquet'
DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
# Columns that every dataset has beside those of the robot.
COLUMNS = {
  'timestamp': 'float32',
  'frame_index': 'int64',
  'episode_index': 'int64',
  'index': 'int64',
  'task_index': 'int64',
}
OBSERVATION = 'observation.'
CAMERAS = 'observation.images.'

WHERE = (
  'Get a dataset by `hf download --repo-type dataset USER/NAME --local-dir '
  'FOLDER`, and give the folder.'
)


class PackageError(MotoError, ImportError):
  """A package that a format needs is not installed."""


def open_reader(path: Path, task: str, env, relabel: bool) -> Reader:
  """The reader of a dataset; see `moto_tf.data.formats.Format`.

  Raises:
    PackageError: pyarrow or av is missing.
    SourceError: there is no such dataset at the path.
  """
  del task, relabel
  with _packages():
    from moto_tf.data.lerobot.reader import LeRobotReader
  return LeRobotReader(path, env)


def export(
  directory: Path, root: Path, name: str, fps: float = 0, images: str = 'video'
) -> Path:
  """Writes all episodes of a directory as the dataset <root>/<name>.

  Args:
    directory: of intact episodes.
    root: folder of datasets.
    name: user/name.
    fps: frames per second; 0: as the suite of the episodes says.
    images: video, or png, which loses nothing.

  Returns:
    The folder of the dataset.

  Raises:
    PackageError: pyarrow or av is missing.
    DatasetError: the name is none or is taken, an episode is damaged, or an
      observation is none that LeRobot has.
    EpisodeError: there is no such directory.
    FileError: it cannot be written.
  """
  with _packages():
    from moto_tf.data.lerobot import writer
  return writer.export(directory, root, name, fps, images)


def report(info) -> str:
  """What an import says at its end, from the data.inspect.Info of it."""
  facts = info.record
  lines = [f'{v} is {k}.' for k, v in facts['features'].items()]
  if len(said := facts['instructions']) > 1:
    lines.append(
      f'{len(said)} instructions, which all became the task {info.task}: '
      f'{cut("; ".join(said))}. Where these are other tasks, keep the episodes '
      'of one alone before you import.'
    )
  if 'action_low' in facts:
    lines.append(
      'Actions beyond -1 and 1 were scaled; action_low and action_high in '
      'dataset.json say from where. An environment to train in must have the '
      'same ends, as Box(action_low, action_high).'
    )
  if facts['last_observation'] == 'repeated':
    lines.append(
      'What was seen after the last action is not in the data; the last frame '
      'stands for it.'
    )
  if not facts['successes']:
    lines.append(
      'The data does not say which episodes succeeded. Look at them and say it '
      'by `python -m moto_tf label` (docs/labelling.md)'
      + (
        ', or set --bc_threshold to the reward of a success.'
        if facts['rewards']
        else '.'
      )
    )
  return '\n'.join(lines)


@contextlib.contextmanager
def _packages() -> Iterator[None]:
  try:
    yield
  except ModuleNotFoundError as error:
    if (error.name or '').partition('.')[0] not in ('av', 'pyarrow'):
      raise
    raise PackageError(
      f'The format lerobot needs {error.name}, which is not installed: pip '
      "install 'moto_tf[lerobot]', or pip install pyarrow av."
    ) from None
