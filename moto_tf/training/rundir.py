"""What the settings say about a log directory, and it about them."""

from pathlib import Path

from moto_tf.config import Config
from moto_tf.rules import ConfigError

# Where things lie, how often they are written, and on what they run.
NO_HPARAMS = (
  *('logdir', 'offline_data', 'heldout_data', 'plugins'),
  *('log_every', 'eval_every', 'eval_episodes', 'report_every'),
  *('checkpoint_every', 'checkpoint_keep', 'envs', 'env_workers'),
)


def offline_dir(config: Config, logdir: Path) -> Path | None:
  """Where a run in `logdir` looks for demonstrations, None for none."""
  if config.offline_data == 'auto':
    return logdir.absolute().parent.parent / 'demos'
  return config.path('offline_data')


def find_offline(config: Config) -> Path | None:
  """Directory of demonstrations, None without.

  Raises:
    ConfigError: it is missing, or there is nothing to start on.
  """
  path = offline_dir(config, config.path('logdir'))
  if config.offline_data == 'auto' and not path.is_dir():
    raise ConfigError(
      f'offline_data is auto, and there is no directory {path}. Record '
      'demonstrations with: python scripts/collect.py '
      f'--task {config.task} --outdir {path}; or set --offline_data DIR; '
      "or learn online only with --offline_data '' --offline_steps 0 "
      '--prefill_episodes 5.'
    )
  if path is None and not config.prefill_episodes:
    raise ConfigError(
      'offline_data is empty: set --offline_data DIR, or start from random '
      'episodes with --prefill_episodes 5.'
    )
  return path


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
  fixed = ['task', 'seed', 'method']
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


def hparams(config: Config) -> dict:
  """What tells a run from others: task, method, seed, presets, overrides."""
  sources = config.sources
  presets = dict.fromkeys(name for name in sources.values() if name)
  given = {k: config[k] for k, source in sources.items() if not source}
  return {
    'task': config.task,
    'method': config.name,
    'seed': config.seed,
    'presets': ' '.join(presets),
    **{k: v for k, v in given.items() if k not in NO_HPARAMS},
  }
