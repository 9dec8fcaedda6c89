"""What exports of our episodes to the formats of others share."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from moto_tf import files, rules
from moto_tf.data import episodes, inspect
from moto_tf.errors import MotoError


class DatasetError(MotoError, ValueError):
  """A dataset cannot be written; the message says why."""


@dataclasses.dataclass(frozen=True)
class Exporter:
  """A format that `dataset export` writes.

  Attributes:
    write: 'module:attribute' of a function from (directory, root, name) and
      `options` to the path that it has written.
    options: names of settings that it takes beside these.
  """

  write: str
  options: tuple[str, ...] = ()


EXPORTERS = {
  'minari': Exporter('moto_tf.data.minari_export:export'),
  'lerobot': Exporter('moto_tf.data.lerobot:export', ('fps', 'images')),
}


def read_source(directory: Path) -> inspect.Info:
  """Numbers of a directory whose episodes are all intact.

  Raises:
    DatasetError: an episode is damaged, or there are none.
    EpisodeError: there is no such directory.
  """
  info = inspect.inspect(directory)
  if info.damage:
    raise DatasetError(
      f'{directory}: damaged: {", ".join(info.damage)}. Look at them with '
      '`python -m moto_tf dataset info`, and move them elsewhere.'
    )
  if not len(info.lengths):
    where = episodes.folders_with_episodes(directory)
    raise DatasetError(f'{directory}: there are no episodes here{where}.')
  return info


@contextlib.contextmanager
def appearing(root: Path, name: str) -> Iterator[Path]:
  """An empty folder that becomes <root>/<name> at the end of the `with` block.

  It appears whole or not at all.

  Raises:
    DatasetError: the name is taken.
    FileError: it cannot be written.
  """
  path = rules.expand(root) / name
  if path.exists():
    raise DatasetError(f'{path}: exists already; remove it, or change --id.')
  with files.appearing(path) as partial:
    yield partial
