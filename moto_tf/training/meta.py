"""What a checkpoint says beside its arrays, and whether that can be."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from moto_tf.config import Config
from moto_tf.training.rows import is_number

COUNTERS = ('gradient_step', 'agent_step', 'env_step', 'episode')
LOST = 'lost_episodes'
PHASES = ('offline', 'online')
DTYPES = r'uint8|u?int(8|16|32|64)|float(16|32|64)|bool'
MOST = 2**53  # No count of a run is beyond.
LARGEST = 2**28  # Numbers in an observation, likewise.


def settings(config: Config) -> dict[str, Any]:
  """Settings of a run for its checkpoints, which may move elsewhere."""
  return {k: v for k, v in config.flat.items() if k != 'logdir'}


def check(arrays: Mapping[str, np.ndarray], meta: Any, step: int) -> None:
  """Raises ValueError where a checkpoint cannot be that of a run.

  Checkpoints of version 0.1 have no `settings`, `rows`, `unfinished`,
  `unlogged`, `action_range` and lost episodes.

  Args:
    arrays: by name.
    meta: what JSON holds.
    step: gradient step in the name of the file; -1 if it has another name.
  """
  for name, value in arrays.items():
    if value.dtype.kind == 'c':
      raise ValueError(f'{name} is of complex numbers')
  meta = _group(meta, 'meta')
  counters = check_counters(meta.get('counters'))
  _count(meta.get('prefill'), 'prefill')
  if step not in (-1, counters['gradient_step']):
    raise ValueError(
      f'gradient_step is {counters["gradient_step"]}, its name says {step}'
    )
  if meta.get('phase') not in PHASES:
    raise ValueError(f'phase is {meta.get("phase")!r}, not one of {PHASES}')
  _check_episodes(meta.get('episodes'), counters)
  check_spaces(meta.get('spaces'))
  _check_range(meta.get('action_range', {}), meta['spaces']['action'])
  for name, value in _group(meta.get('rows', {}), 'rows').items():
    _count(value, f'rows.{name}')
  if not isinstance(meta.get('unfinished', False), bool):
    raise ValueError('unfinished is neither true nor false')
  for name, value in _group(meta.get('unlogged', {}), 'unlogged').items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(f'unlogged.{name} is no number')
  if 'settings' in meta:
    check_settings(meta['settings'])


def check_counters(value: Any) -> Mapping[str, int]:
  """The counters of a run; raises ValueError where they are none."""
  counters = _group(value, 'counters')
  if counters.keys() - {LOST} != {*COUNTERS}:
    raise ValueError(f'counters has {sorted(counters)}, not {COUNTERS}')
  for name, count in counters.items():
    _count(count, name)
  return counters


def _check_episodes(names, counters):
  """Their names end in their transitions, which are all that were collected."""
  if not isinstance(names, list):
    raise ValueError('episodes is no list')
  total = 0
  for name in names:
    found = isinstance(name, str) and re.fullmatch(r'[^/]+-(\d{1,9})', name)
    if not found:
      raise ValueError(f'{str(name)[:50]!r} is no name of an episode')
    total += int(found[1])
  if len({*names}) < len(names):
    raise ValueError('episodes has a name twice')
  # Fewer where the files of some were gone.
  count, steps = counters['episode'], counters['agent_step']
  if len(names) > count or total > steps or counters['env_step'] < steps:
    raise ValueError(
      f'{len(names)} episodes of {total} transitions do not go with {count} '
      f'episodes, {steps} agent steps and {counters["env_step"]} env steps'
    )
  if len(names) == count and total != steps:
    raise ValueError(f'agent_step is {steps}, the episodes have {total}')


def check_spaces(value: Any) -> None:
  """Raises ValueError for what are no spaces of policy.spaces_to_meta."""
  spaces = _group(value, 'spaces')
  _check_shape(spaces.get('action'), 'action')
  for key, space in _group(spaces.get('observations'), 'observations').items():
    if not isinstance(space, list) or len(space) != 2:
      raise ValueError(f'the space of {key} is no shape and dtype')
    _check_shape(space[0], key)
    dtype = space[1]
    if not isinstance(dtype, str) or not re.fullmatch(DTYPES, dtype):
      raise ValueError(f'{key} has the dtype {str(dtype)[:50]!r}')


def _check_range(value, shape):
  ends = _group(value, 'action_range')
  if ends and ends.keys() != {'low', 'high'}:
    raise ValueError(f'action_range has {sorted(ends)}, not low and high')
  for name, numbers in ends.items():
    fits = isinstance(numbers, list) and len(numbers) == math.prod(shape)
    if not fits or not all(map(is_number, numbers)):
      raise ValueError(
        f'action_range.{name} is no number for each of an action'
      )


def _check_shape(shape, name):
  if not isinstance(shape, list) or len(shape) > 8:
    raise ValueError(f'{name} has no shape')
  for size in shape:
    _count(size, f'a length of {name}')
  if math.prod(shape) > LARGEST:
    raise ValueError(f'{name} has the shape {shape}')


def check_settings(value: Any) -> None:
  """Raises ValueError for what are no settings of a run."""
  values = _group(value, 'settings')
  for key in ('task', 'method'):
    if not isinstance(values.get(key), str):
      raise ValueError(f'settings.{key} is {str(values.get(key))[:50]!r}')
  for key in ('seed', 'offline_steps', 'online_steps', 'updates_per_episode'):
    _count(values.get(key), f'settings.{key}')
  plain = bool | int | float | str
  for key, value in values.items():
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, plain) for part in parts):
      raise ValueError(f'settings.{key} is no setting')


def _group(value: Any, name: str) -> Mapping[str, Any]:
  if not isinstance(value, dict):
    raise ValueError(f'{name} is no group of values')
  return value


def _count(value, name):
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not whole or not 0 <= value <= MOST:
    raise ValueError(f'{name} is {str(value)[:50]!r}, not a count')
