"""What values a setting may take: its type, and the rules for its name."""

import difflib
import math
import numbers
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moto_tf.errors import MotoError


class ConfigError(MotoError, ValueError):
  """A setting that cannot be used; the message says what to do."""


def plain(key: str, value: Any) -> Any:
  """Turns YAML's own scalar and list types into Python's."""
  for cast in (bool, int, float, str):
    if isinstance(value, cast):
      return cast(value)
  if is_list(value) and not any(map(is_list, value)):
    return tuple(plain(key, x) for x in value)
  raise ConfigError(
    f'{key}: {brief(value)} is not a setting; give true or false, a number, a '
    "text or a list. Empty text is ''."
  )


def convert(key: str, value: Any, default: Any) -> Any:
  """Returns the value as the type of the default."""
  try:
    if not isinstance(default, tuple):
      return _CASTS[type(default)](value)
    parts = value
    if isinstance(value, str):
      text = value.strip().removeprefix('[').removesuffix(']')
      parts = text.split(',') if text.strip() else []
    if not is_list(parts):
      raise TypeError
    cast = _CASTS[_item(default)]
    return tuple(cast(x.strip() if isinstance(x, str) else x) for x in parts)
  except (KeyError, TypeError, ValueError, OverflowError):
    raise ConfigError(
      f'{key}: expected {kind(default)}, got {brief(value)}. '
      f'Example: --{key} {show(default)}'
    ) from None


def _to_bool(value: Any) -> bool:
  if isinstance(value, str):
    return {'true': True, 'false': False}[value.lower()]
  if not isinstance(value, bool):
    raise TypeError
  return value


def _to_float(value: Any) -> float:
  number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if not number and not isinstance(value, str):
    raise TypeError
  if not math.isfinite(float(value)):
    raise ValueError
  return float(value)


def _to_int(value: Any) -> int:
  if isinstance(value, str) and re.fullmatch(r'\s*[+-]?\d+\s*', value):
    return int(value)
  number = _to_float(value)
  if not number.is_integer():
    raise ValueError
  return int(value) if isinstance(value, numbers.Integral) else int(number)


def _to_str(value: Any) -> str:
  text = str(os.fspath(value))
  text.encode()  # A ValueError for what is no Unicode, and cannot be saved.
  return text


_CASTS = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}
_KINDS = {
  bool: 'true or false',
  int: 'whole number',
  float: 'number',
  str: 'text',
}


def kind(value: Any) -> str:
  """Names the type of a setting."""
  if isinstance(value, tuple):
    return f'list of {_KINDS[_item(value)]}s'
  return _KINDS[type(value)]


def _item(values: tuple) -> type:
  """Type of what a list holds; of an empty one, sizes of layers."""
  return type(values[0]) if values else int


def is_list(value: Any) -> bool:
  """Tells whether a value is a list or tuple."""
  return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def show(value: Any) -> str:
  """Writes a value as one would type it in a shell."""
  text = ','.join(map(str, value)) if is_list(value) else str(value)
  return text if text.startswith('~') else shlex.quote(text)


def expand(path: str | Path) -> Path:
  """A path with ~ expanded.

  Raises:
    ConfigError: there is no such user.
  """
  try:
    return Path(path).expanduser()
  except RuntimeError:
    raise ConfigError(
      f'{path}: nobody has this home directory; write ./ before a name that '
      'begins with ~.'
    ) from None


def brief(value: Any) -> str:
  """A value for a message, whatever its length."""
  try:
    return cut(repr(value))
  except ValueError:
    return 'a number of thousands of digits'


def cut(text: str, most: int = 120) -> str:
  """A text of others for a message: one line, or its beginning."""
  text = ' '.join(text.split())
  return text if len(text) <= most else f'{text[: most - 20]}...'


def nearest(name: str, names: Iterable[str]) -> str:
  """Returns the end of a sentence about an unknown name: what is near it."""
  names, last = list(names), name.split('.')[-1]
  near = [x for x in names if x.startswith(f'{name}.')]
  near = near or [x for x in names if x.split('.')[-1] == last]
  near = near or difflib.get_close_matches(name, names, 3, 0.5)
  return f'; did you mean {" or ".join(near[:8])}?' if near else '.'


def split_names(text: str) -> list[str]:
  """Names from a text that has commas between them; none from ''."""
  return [name.strip() for name in text.split(',')] if text.strip() else []


def at_least(low: float) -> tuple[Callable, str]:
  """Rule: a test of a value, and its wording."""
  return lambda x: x >= low, f'at least {low}'


def above(low: float) -> tuple[Callable, str]:
  """Rule: see `at_least`."""
  return lambda x: x > low, f'above {low}'


def between(low: float, high: float) -> tuple[Callable, str]:
  """Rule: see `at_least`; both ends are possible."""
  return lambda x: low <= x <= high, f'from {low} to {high}'


def one_of(*names: str) -> tuple[Callable, str]:
  """Rule: see `at_least`."""
  return lambda x: x in names, f'one of {", ".join(names)}'


def _is_regex(text: str) -> bool:
  try:
    re.compile(text)
  except re.error:
    return False
  return True


# Of one network; more would be a mistake.
LAYERS = 32

# Of all numbers: what floats count without gaps, and float32 can hold.
BOUND = (
  lambda x: all(
    isinstance(n, str | bool) or abs(n) <= (2**53 if type(n) is int else 1e38)
    for n in (x if is_list(x) else [x])
  ),
  'whole numbers up to 2^53 and others up to 1e38',
)

# Regular expression over dotted names -> test and its wording.
RULES = {
  'logdir': (bool, 'the path of a directory'),
  'task': (
    lambda x: re.fullmatch(r'[a-z][a-z0-9]*_\S+', x),
    'a suite and a name, such as metaworld_door-open or gym_Pendulum-v1',
  ),
  'variant': (
    lambda x: x not in ('.', '..') and not re.search(r'[/\\\0]', x),
    'a name that a directory can have, or none',
  ),
  'precision': one_of('auto', 'float32', 'mixed_float16', 'mixed_bfloat16'),
  'env_workers': one_of('process', 'none'),
  'collect': one_of('turns', 'async'),
  'eval_action': one_of('mean', 'mode', 'sample'),
  r'actor\.sample_grad': one_of('exact', 'dreamerv2'),
  r'.+\.act': one_of('elu', 'relu', 'gelu', 'silu', 'tanh'),
  r'.+\.norm': one_of('none', 'layer'),
  r'.+\.(mlp|cnn)_keys': (_is_regex, 'a regular expression'),
  r'.+\.(layers|mlp_layers|cnn_kernels)': (
    lambda x: 0 < len(x) <= LAYERS and min(x) > 0,
    f'one or more whole numbers above 0, {LAYERS} at most',
  ),
  r'.+\.cnn_layers': (
    lambda x: len(x) <= LAYERS and all(units > 0 for units in x),
    f'whole numbers above 0, or none, {LAYERS} at most',
  ),
  'seed': between(0, 2**31 - 1),
  r'(offline|online)_steps|prefill_episodes|(eval|report)_every': at_least(0),
  r'checkpoint_milestones|replay\.offline_episodes': at_least(0),
  r'env\.(time_limit|extra_size)|env_timeout|replay\.prefetch': at_least(0),
  r'updates_per_episode|(log|checkpoint)_every|eval_episodes': at_least(1),
  r'checkpoint_keep|envs|env\.(image_size|action_repeat)': at_least(1),
  r'collectors|replicas': at_least(1),
  r'replay\.(batch|capacity)|(en|de)coder\.cnn_depth': at_least(1),
  r'rssm\.(ensemble|hidden|deter|stoch)|horizon': at_least(1),
  r'slow_target_update': at_least(1),
  r'replay\.length': at_least(2),
  r'rssm\.discrete': (lambda x: x == 0 or x >= 2, '0, or at least 2'),
  r'replay\.offline_share': (
    lambda x: x == -1 or 0 <= x <= 1,
    '-1, or from 0 to 1',
  ),
  'collect_std': above(0),
  'policy_average': (lambda x: 0 <= x < 1, 'from 0 to below 1'),
  r'replay\.success_share': between(0, 1),
  'bc_onward': (
    lambda x: len(split_names(x)) < 2 and all(split_names(x)),
    "one name, such as light switch, or ''",
  ),
  'bc_targets': (
    lambda x: all(split_names(x)),
    'names between commas, such as microwave,kettle',
  ),
  r'bc_threshold|actor_ent|kl\.free|loss_scales\..+': at_least(0),
  r'encoder\.noise': at_least(0),
  r'actor\.min_std|.+_opt\.(lr|eps|clip)': above(0),
  'discount': (lambda x: 0 <= x < 1, 'from 0 to below 1'),
  r'discount_lambda|kl\.balance|.+_opt\.wd': between(0, 1),
  'slow_target_fraction': (lambda x: 0 < x <= 1, 'above 0 and at most 1'),
}


def check_rules(
  values: Mapping[str, Any],
  examples: Mapping[str, Any],
  rules: Mapping[str, tuple[Callable, str]] = RULES,
) -> None:
  """Raises ConfigError for impossible values of dotted keys.

  Args:
    values: by dotted key.
    examples: possible ones, for the message.
    rules: by regular expression over the keys; by default those of settings
      that all methods share.
  """
  for key, value in values.items():
    for pattern, (test, wording) in (*rules.items(), (r'.+', BOUND)):
      if re.fullmatch(pattern, key) and not test(value):
        raise ConfigError(
          f'{key}: {cut(show(value))} is not possible; give {wording}. '
          f'Example: --{key} {show(examples[key])}'
        )


def select_keys(
  shapes: dict[str, tuple], config, name: str
) -> tuple[list[str], list[str]]:
  """Image and vector keys that match the regular expressions of `config`."""
  cnn = [
    k
    for k, s in sorted(shapes.items())
    if len(s) == 3 and re.fullmatch(config.cnn_keys, k)
  ]
  mlp = [
    k
    for k, s in sorted(shapes.items())
    if len(s) == 1 and re.fullmatch(config.mlp_keys, k)
  ]
  if not cnn and not mlp:
    raise ConfigError(
      f'{name}.cnn_keys {config.cnn_keys!r} and {name}.mlp_keys '
      f'{config.mlp_keys!r} match none of the observations '
      f'{ {k: tuple(s) for k, s in shapes.items()} }; images have three '
      f'dimensions, vectors one. Set --{name}.cnn_keys or --{name}.mlp_keys.'
    )
  return cnn, mlp
