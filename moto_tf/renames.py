"""Settings that were called or chosen otherwise, so that older files load."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Name before version 0.2 -> name now.
RENAMED = {
  'behavior': 'method',
  'penalty': 'moto.penalty',
  'alpha': 'moto.alpha',
  'beta': 'moto.beta',
  'start_states': 'moto.start_states',
}
# What runs did before there was a setting for it.
ADDED = {'actor.sample_grad': 'exact'}


def upgrade(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Settings by dotted key of any version, by the names of today.

  Before 0.2 no file said the method. `behavior` with the weights of penalty
  and cloning does. Files of whole runs get the settings that are new since, and
  so do those of before 0.2.
  """
  new = {RENAMED.get(key, key): value for key, value in settings.items()}
  off = {'no_bc': 'beta', 'no_unc': 'alpha'}
  names = [name for name, key in off.items() if settings.get(key) == 0]
  if settings.get('behavior') == 'dreamer':
    new['method'] = 'dreamerv2'
    # They had no effect.
    for key in ('moto.alpha', 'moto.beta', 'moto.start_states'):
      new.pop(key, None)
  elif names or 'behavior' in settings:
    new['method'] = '_'.join(names) or 'moto'
  whole = {'task', 'seed', 'offline_steps', 'online_steps'} <= new.keys()
  return {**(ADDED if whole or 'behavior' in settings else {}), **new}


def recorded_name(logdir: Path, settings: Mapping[str, Any]) -> str:
  """Name of a run's method in figures and results, as it is on record.

  Before 0.2, when none was, runs were called by their directory
  <task>/<method>/<seed>, or else by what their settings say.

  Args:
    logdir: of the run.
    settings: by dotted key, of any version.
  """
  if 'method' in settings:
    return str(settings.get('variant') or settings['method'])
  path, task = logdir.resolve(), str(settings.get('task', ''))
  if re.fullmatch(r'(seed[-_]?)?\d+', path.name):
    if path.parent.name not in (task, task.split('_', 1)[-1]):
      return path.parent.name
  return str(upgrade(settings).get('method', 'moto'))
