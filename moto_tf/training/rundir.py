"""What the settings say about a log directory, and it about them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moto_tf import envs, yamlfile
from moto_tf.agents import METHODS
from moto_tf.config import PATHS, Config, flatten, is_read
from moto_tf.data.inspect import action_range, read_record
from moto_tf.errors import warn
from moto_tf.presets import load_configs, make_config
from moto_tf.renames import ADDED, recorded_name, upgrade
from moto_tf.rules import ConfigError

# Where things lie, how often they are written, and on what they run.
NO_HPARAMS = (
  *PATHS,
  *('log_every', 'eval_every', 'eval_episodes', 'report_every'),
  *('checkpoint_every', 'checkpoint_keep', 'checkpoint_milestones'),
  *('envs', 'env_workers', 'env_timeout'),
)

# How two datasets of one robot get equal actions.
SAME_ENDS = (
  'For the same ends, give both datasets the same min and max of action in '
  'meta/stats.json before they are imported.'
)

# Directories of a run that training writes into.
PLACES = ('.', 'checkpoints', 'episodes', 'videos', 'env_steps')


def env_maker(config: Config) -> Callable[[], envs.Env]:
  """Makes one environment of a run's task.

  Raises:
    EnvError: there is no such suite. It may be of user code, which the run
      was started with.
  """
  if config.plugins and envs.suite_of(config.task) is None:
    raise envs.EnvError(
      f'The suite of {config.task} is not registered. The run was started with '
      f'--plugins {config.plugins}; give that again.'
    )
  return envs.env_maker(config.task, config.env)


def total_steps(config: Config) -> int:
  """Gradient steps of the whole run."""
  return config.offline_steps + config.online_steps


def is_milestone(config: Config, step: int) -> bool:
  """Whether the checkpoint of a gradient step is never deleted.

  Those of every `checkpoint_milestones` steps, and that which ends offline
  training.
  """
  every = config.checkpoint_milestones
  return bool(every and step) and (
    step % every == 0 or step == config.offline_steps
  )


def prefill_episodes(config: Config, offline: Path | None) -> int:
  """Random episodes that a new run starts with: none where it has data."""
  return 0 if offline else config.prefill_episodes


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
    # None for a task that only the caller's environment has.
    suite = envs.SUITES.get(config.task.split('_')[0])
    if suite and suite.demonstrator:
      envs.make_demonstrator(config.task)  # Names what is near a misspelt task.
    raise ConfigError(
      f'offline_data is auto, and there is no directory {path}. Record '
      'demonstrations with: python -m moto_tf collect '
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


def recorded(path: Path, meta: Mapping) -> Config | None:
  """Settings that a checkpoint was written with; None where nothing says them.

  Args:
    path: config.yaml of the run, which says where things lie, and the rest if
      the checkpoint is of a version that did not hold it.
    meta: of the checkpoint.

  Raises:
    ConfigError: they are none.
  """
  if 'settings' not in meta:
    return Config.load(path) if path.exists() else None
  try:
    return load_configs().defaults.replace(upgrade(meta['settings']))
  except ConfigError as error:
    raise ConfigError(f'checkpoints of {path.parent}: {error}') from None


def check_changes(path: Path, config: Config, meta: Mapping) -> dict:
  """Says which settings of a continued run differ; some must not.

  Args:
    path: config.yaml of the run.
    config: what it is continued with.
    meta: of the checkpoint it is continued from.

  Returns:
    Value before and now by key, without logdir.

  Raises:
    ConfigError: a setting changed that the run's counters rest on, or there is
      nothing left to train with another one.
  """
  if not path.exists():
    warn(f'{path} is missing; it is written anew.')
  before = recorded(path, meta)
  if before is None:
    warn(
      'nothing says what task, method and seed the run had; only the sizes of '
      'its networks are compared.'
    )
    return {}
  before, now = before.flat, config.flat
  changed = [
    k
    for k in now
    if before.get(k) != now[k] and k != 'logdir' and is_read(now, k)
  ]
  if 'settings' not in meta:
    if 'method' not in _saved(path):
      _check_short(path, before, now)
    if 'bc_targets' in changed and 'bc_targets' not in _saved(path):
      _check_targets(path, before)
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
  done = meta.get('counters', {}).get('gradient_step', 0)
  if 'offline_steps' in changed and now['offline_steps'] < done:
    raise ConfigError(
      f'--offline_steps {now["offline_steps"]} is less than the {done} steps '
      f'that the run in {path.parent} has done offline; use --offline_steps '
      f'{done} to begin with online episodes now, or another --logdir.'
    )
  _check_left(path, before, config, changed, meta)
  if changed:
    print(f'Continuing {path.parent} with other settings:')
  for key in changed:
    print(f'  {key}: {before.get(key)} -> {now[key]}')
  return {key: (before.get(key), now[key]) for key in changed}


def _check_left(path, before, config, changed, meta):
  """A finished run says what it was trained with."""
  done = meta.get('counters', {}).get('gradient_step', 0)
  if done < total_steps(config) or meta.get('unfinished'):
    return
  free = {*NO_HPARAMS, 'variant', 'offline_steps', 'online_steps'}
  other = [k for k in changed if k not in free]
  if other:
    lines = [f'  {key}: {before.get(key)} -> {config[key]}' for key in other]
    raise ConfigError(
      f'The run in {path.parent} is finished, so that nothing would be trained '
      'with other settings:\n'
      + '\n'.join(lines)
      + '\nFor a run of its own give '
      'another --logdir or --variant; to train this one on, more '
      f'--online_steps than {config.online_steps}.'
    )


def action_ends(
  config: Config,
  offline: Path | None,
  size: int,
  meta: Mapping = MappingProxyType({}),
) -> dict[str, list[float]]:
  """What -1 and 1 of a run's actions are in units of the robot: low and high.

  Empty where actions were not scaled when they were imported. The data may be
  gone when a run goes on.

  Args:
    config: of the run.
    offline: directory of its data.
    size: of an action.
    meta: of the checkpoint it goes on from.

  Raises:
    ConfigError: the data has other ends than the run began with, or the
      held-out data than the data, so that equal numbers would mean different
      actions.
  """
  kept, ends = meta.get('action_range'), action_range(offline, size)
  if ends and kept is not None and ends != kept:
    raise ConfigError(
      f'Actions of the run in {config.path("logdir")} are {_scaled(kept)}, '
      f'those in {offline} {_scaled(ends)}. Go on with the data it began with, '
      f'or give another --logdir. {SAME_ENDS}'
    )
  ends, heldout = ends or kept or {}, config.path('heldout_data')
  known = kept is not None or bool(offline and read_record(offline))
  if heldout and known and read_record(heldout):
    others = action_range(heldout, size)
    if others != ends:
      raise ConfigError(
        f'Actions of the held-out data in {heldout} are {_scaled(others)}, '
        f'those of the run {_scaled(ends)}. {SAME_ENDS}'
      )
  return ends


def _scaled(ends):
  if not ends:
    return 'as they were recorded'
  pairs = zip(ends['low'], ends['high'], strict=True)
  text = ', '.join(f'{low:g} to {high:g}' for low, high in pairs)
  return f'scaled from {text}'


def keep_name(
  path: Path, config: Config, meta: Mapping = MappingProxyType({})
) -> Config:
  """The settings of a continued run, under the name that it is known by.

  Before 0.2 that was the name of its directory, which nothing else recorded.
  """
  if 'settings' in meta:
    return config
  saved = _saved(path)
  if not saved or 'method' in saved:
    return config
  name = recorded_name(path.parent, saved)
  known = name == config.name
  return config if known else config.update(variant=name)


def keep_added(
  path: Path, config: Config, meta: Mapping = MappingProxyType({})
) -> Config:
  """The settings of a continued run, with what its version had no choice of.

  Defaults and the presets of methods do not change that within a run, values
  that are given by name do.
  """
  before, unnamed = recorded(path, meta), (None, *METHODS)
  if before is None:
    return config
  kept = {
    key: before[key]
    for key in ADDED
    if config.sources.get(key) in unnamed and config[key] != before[key]
  }
  for key, value in kept.items():
    print(
      f'{key} stays {value}, with which {path.parent} began; '
      f'--{key} {config[key]} would change it.'
    )
  return config.update(kept)


def _saved(path: Path) -> Mapping[str, Any]:
  """What a config.yaml holds, as it is; {} if there is none."""
  return flatten(yamlfile.read(path)[0]) if path.exists() else {}


def _check_short(path, before, now):
  """Before 0.2 `small` had the learning rates that are now in `short`."""
  plain, short = make_config().flat, make_config('short').flat
  keys = [k for k in short if short[k] != plain[k]]
  if all(before[k] == short[k] for k in keys) and any(
    now[k] != before[k] for k in keys
  ):
    raise ConfigError(
      f'The run in {path.parent} was started before version 0.2, when small '
      f'included what is now the preset short: {", ".join(keys)}. To continue '
      'it, name short after small, as in --configs metaworld small short.'
    )


def _check_targets(path, before):
  """Before 0.2 `kitchen_partial` cloned episodes of any three targets."""
  if before['bc_threshold']:
    raise ConfigError(
      f'The run in {path.parent} was started before version 0.2 and clones '
      f'episodes by bc_threshold {before["bc_threshold"]:g}. To continue it, '
      f"add --bc_targets '' --bc_threshold {before['bc_threshold']:g}."
    )


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
