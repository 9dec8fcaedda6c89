"""What the settings say about a log directory, and it about them."""

from pathlib import Path

from moto_tf.config import Config, ConfigError


def offline_dir(config: Config, logdir: Path) -> Path | None:
  """Where a run in `logdir` looks for demonstrations, None for none."""
  if config.offline_data == 'auto':
    return logdir.absolute().parent.parent / 'demos'
  return config.path('offline_data')


def check_changes(path: Path, config: Config, meta: dict) -> dict:
  """Says which settings of a continued run differ; some must not.

  Returns:
    Value before and now by key, without logdir.

  Raises:
    ConfigError: a setting changed that the run's counters rest on.
  """
  if not path.exists():
    return {}
  before, now = Config.load(path).flat, config.flat
  changed = [k for k in now if before.get(k) != now[k] and k != 'logdir']
  fixed = ['task', 'seed']
  if meta['phase'] == 'online':
    fixed += ['offline_steps', 'updates_per_episode']
  for key in fixed:
    if key in changed:
      raise ConfigError(
        f'{key} was {before[key]} in the run in {path.parent} and cannot '
        f'become {now[key]} in the middle of it; use --{key} {before[key]}, '
        'or another --logdir.'
      )
  if changed:
    print(f'Continuing {path.parent} with other settings:')
  for key in changed:
    print(f'  {key}: {before.get(key)} -> {now[key]}')
  return {key: (before.get(key), now[key]) for key in changed}
