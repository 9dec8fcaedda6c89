"""Which run a checkpoint is of."""

from collections.abc import Mapping
from pathlib import Path

from moto_tf.config import Config
from moto_tf.errors import warn
from moto_tf.renames import upgrade
from moto_tf.training.checkpoint import CheckpointError
from moto_tf.training.rundir import NO_HPARAMS


def of_run(
  logdir: Path, config: Config, path: Path, meta: Mapping
) -> tuple[Config, str]:
  """Settings that a checkpoint was trained with, and its name in results.

  The name is a path below `logdir`, and a whole one for a file that is none of
  its checkpoints, such as one that the run has gone back behind.

  Args:
    logdir: of the run.
    config: its config.yaml.
    path: of the checkpoint.
    meta: of the checkpoint; of version 0.1, it does not say of what run it is.

  Raises:
    CheckpointError: it is of another task, method or seed.
  """
  name = f'checkpoints/{path.name}'
  if path.resolve().parent != (logdir / 'checkpoints').resolve():
    name = str(path.resolve())
    warn(
      f'{path} does not lie in {logdir / "checkpoints"}; results name it as '
      f'{name}.'
    )
  before = config.replace(upgrade(meta.get('settings', {})))
  identity = ('task', 'method', 'seed')
  if any(before[key] != config[key] for key in identity):
    say = lambda values: ', '.join(f'{k} {values[k]}' for k in identity)
    raise CheckpointError(
      f'{path} is of a run with {say(before)}, and {logdir / "config.yaml"} '
      f'says {say(config)}. Name the --logdir that the checkpoint is of.'
    )
  keys = [k for k in config.flat if k not in NO_HPARAMS]
  keys = [k for k in keys if before[k] != config[k]]
  if keys:
    more = f' and {len(keys) - 5} more' if len(keys) > 5 else ''
    warn(
      f'{logdir / "config.yaml"} and {path.name} differ in '
      f'{", ".join(keys[:5])}{more}; what the checkpoint says counts.'
    )
  return config.replace({k: before[k] for k in keys}), name
