"""Settings: immutable, checked, read by attribute or dotted key.

`configs.yaml` holds every key with its default and, as the comment behind it,
its help text. Three ways lead to the same checked `Config`:

  config = parse()  # --configs metaworld small --seed 1 --rssm.deter 512
  config = make_config('metaworld', 'small', {'seed': 1, 'rssm.deter': 512})
  config = Config.load('logdir/config.yaml')

What presets are and how they compose is in moto_tf/presets.py.
"""

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from moto_tf import files, rules
from moto_tf.agents import METHODS
from moto_tf.agents.settings import check_cloning, check_replicas
from moto_tf.renames import RENAMED
from moto_tf.rules import ConfigError

# Settings that are places on a machine.
PATHS = ('logdir', 'offline_data', 'heldout_data', 'plugins')
DATA = ('offline_data', 'heldout_data')
# Names that may stand in braces in a path.
PLACES = ('task', 'method', 'seed')


class Config(Mapping):
  """Immutable nested settings.

  Read as `config.rssm.deter` or `config['rssm.deter']`; a group such as
  `config.rssm` is again a Config. Lists are kept as tuples.
  """

  __slots__ = ('_flat', '_prefix', '_sources')

  def __init__(
    self,
    values: Mapping[str, Any],
    prefix: str = '',
    sources: Mapping[str, str] | None = None,
  ):
    """Takes nested maps, dotted keys or both.

    Args:
      values: of the settings.
      prefix: of the names, if these are a group of settings.
      sources: which preset or file set a value, by dotted key; '' for values
        given one by one.
    """
    flat = {k: rules.plain(prefix + k, v) for k, v in flatten(values).items()}
    object.__setattr__(self, '_flat', flat)
    object.__setattr__(self, '_prefix', prefix)
    object.__setattr__(self, '_sources', dict(sources or {}))

  @property
  def flat(self) -> dict[str, Any]:
    """All settings as a new dictionary from dotted key to value."""
    return dict(self._flat)

  @property
  def sources(self) -> dict[str, str]:
    """What set each value that is no default: see `__init__`."""
    return dict(self._sources)

  @property
  def name(self) -> str:
    """Name of the run's method in figures and results."""
    return self.variant or self.method

  def update(self, overrides: Mapping[str, Any] = (), /, **keys) -> 'Config':
    """Returns a checked copy with some values replaced.

    A key is a dotted name or, if there is no such name, a regular expression
    that is matched against all of them. Values take the type of the setting.
    Raises ConfigError for unknown keys, wrong types and impossible values.
    """
    overrides = {**dict(overrides), **keys}
    config = self.replace(overrides)
    config.check(self)
    config.check_effect(overrides)
    return config

  def check(self, examples: Mapping[str, Any]) -> None:
    """Raises ConfigError for impossible values; examples are possible ones."""
    values = self._named()
    examples = examples._named() if isinstance(examples, Config) else examples
    rules.check_rules(values, examples)
    for key in PATHS:
      _check_places(key, values.get(key, ''))
    if 'method' in values:
      check_method(values, examples)

  def check_effect(self, overrides: Mapping[str, Any]) -> None:
    """Raises ConfigError for overrides that the method does not read."""
    if 'method' not in self._flat:
      return  # A group of settings.
    for pattern in flatten(overrides):
      if not any(is_read(self._flat, k) for k in self.match(pattern)):
        raise ConfigError(
          f'{pattern} has no effect on {self.method}; leave it out, or choose '
          'another method.'
        )

  def path(self, key: str) -> Path | None:
    """Returns the setting as a path, None if it is ''.

    ~ is expanded, and so are {task}, {method} and {seed}.
    """
    if not self[key]:
      return None
    names = {'task': self.task, 'method': self.name, 'seed': self.seed}
    return rules.expand(self[key].format(**names))

  def with_whole_paths(self) -> 'Config':
    """The same for any working directory: where data lies, from the root on."""
    here = brace(str(Path.cwd()))
    whole = {}
    for key in DATA:
      path = self[key]
      named = path and (key, path) != ('offline_data', 'auto')
      if named and not path.startswith(('/', '~')):
        whole[key] = f'{here}/{path}'
    return self.update(whole) if whole else self

  def save(self, path: str | Path) -> Path:
    """Writes the settings as YAML, whole or not at all.

    Raises:
      FileError: the file cannot be written.
    """
    return files.write_atomic(rules.expand(path), str(self).encode())

  @classmethod
  def load(cls, path: str | Path) -> 'Config':
    """Reads what `save` wrote; keys it lacks have their default.

    Files of older versions load, see moto_tf/renames.py.

    Raises:
      ConfigError: it is no such file, or of a method that is not registered.
    """
    from moto_tf.presets import load_configs

    return load_configs().make(Path(path))

  def __getitem__(self, key: str) -> Any:
    try:
      return self._get(key)
    except ConfigError as error:
      raise KeyError(str(error)) from None

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):
      raise AttributeError(name)
    try:
      return self._get(name)
    except ConfigError as error:
      raise AttributeError(str(error)) from None

  def __setattr__(self, name: str, value: Any):
    raise AttributeError(
      f'settings are immutable; use config.update({{{name!r}: ...}})'
    )

  def __iter__(self) -> Iterator[str]:
    return iter(dict.fromkeys(key.split('.')[0] for key in self._flat))

  def __len__(self) -> int:
    return sum(1 for _ in self)

  def __reduce__(self):
    return type(self), (self._flat, self._prefix, self._sources)

  def __repr__(self) -> str:
    return f'Config({self._flat!r})'

  def __str__(self) -> str:
    """YAML text, one dotted key per line."""
    from moto_tf import yamlfile

    return yamlfile.write(
      {k: list(v) if rules.is_list(v) else v for k, v in self._flat.items()}
    )

  def _get(self, key: str) -> Any:
    if key in self._flat:
      return self._flat[key]
    start = f'{key}.'
    size = len(start)
    group = {k[size:]: v for k, v in self._flat.items() if k.startswith(start)}
    if not group:
      raise unknown(key, self._flat)
    return Config(group, self._prefix + start)

  def _named(self) -> dict[str, Any]:
    return {self._prefix + key: value for key, value in self._flat.items()}

  def match(self, pattern: str) -> list[str]:
    """Returns the keys that an exact name or a regular expression means.

    Raises:
      ConfigError: there are none.
    """
    if pattern in self._flat:
      return [pattern]
    if pattern in RENAMED:
      raise ConfigError(f'{pattern} is called {RENAMED[pattern]} now.')
    try:
      found = [key for key in self._flat if re.fullmatch(pattern, key)]
    except re.error as error:
      raise ConfigError(
        f'{pattern!r} is neither a key nor a regular expression: {error}.'
      ) from None
    if not found:
      raise unknown(pattern, self._flat)
    return found

  def replace(self, overrides: Mapping[str, Any], source: str = '') -> 'Config':
    """Like `update`, but unchecked; notes what set the values."""
    flat, sources = self.flat, self.sources
    for pattern, value in flatten(overrides).items():
      for key in self.match(pattern):
        flat[key] = rules.convert(self._prefix + key, value, self._flat[key])
        # In the order of the parts, also where one overrides another.
        sources.pop(key, None)
        sources[key] = source
    return Config(flat, self._prefix, sources)


def require_method(name: str, plugins: str | None) -> None:
  """Raises ConfigError for a method that is not registered.

  Args:
    name: of the method.
    plugins: what the run was given, to be given again.
  """
  if name not in METHODS:
    raise ConfigError(
      f'method: {name} is not registered; there are {", ".join(METHODS)}. One '
      f'of your own is registered by --plugins {plugins or "FILE"}.'
    )


def check_method(
  values: Mapping[str, Any], examples: Mapping[str, Any]
) -> None:
  """Raises ConfigError where settings and method do not go together."""
  name = values['method']
  require_method(name, values.get('plugins'))
  method = METHODS[name]
  for key, wanted in method.fixed.items():
    if values[key] != wanted:
      raise ConfigError(
        f'{key}: {rules.show(values[key])} is not {method.label}, which has '
        f'{rules.show(wanted)}; name the preset {name} after the others, as in '
        f'--configs small {name}.'
      )
  if method.check:
    method.check(values, examples)
  if is_read(values, 'bc_targets'):
    check_cloning(values)
  starts = not without_effect(name, 'moto.start_states')
  check_replicas(values, method.replicas, starts)


def without_effect(name: str, key: str) -> bool:
  """Whether a method does not read a setting."""
  method, group = METHODS[name], key.split('.')[0]
  owned = {group for other in METHODS.values() for group in other.groups}
  other = group in owned - set(method.groups)
  return other or bool(re.fullmatch(method.ignores, key))


def is_read(values: Mapping[str, Any], key: str) -> bool:
  """Whether a setting has an effect in a run of these settings, by dotted key.

  What the settings bc_* ask for is what replay.success_share draws, also for
  methods that clone nothing.
  """
  drawn = key.startswith('bc_') and values['replay.success_share'] > 0
  return drawn or not without_effect(values['method'], key)


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
  """Turns nested maps into one with dotted keys."""
  flat = {}
  for key, value in values.items():
    if not isinstance(key, str) or not key.isprintable():
      raise ConfigError(f'key {key!r} is not a name; write it in quotes.')
    nested = isinstance(value, Mapping)
    inner = flatten(value) if nested else {'': value}
    for rest, leaf in inner.items():
      name = f'{key}.{rest}' if nested else key
      if name in flat:
        raise ConfigError(f'{name} is given twice; remove one of them.')
      flat[name] = leaf
  return flat


def unknown(key: str, names: Iterable[str]) -> ConfigError:
  """The error for a key that is none of the names."""
  near = rules.nearest(key, names)
  return ConfigError(f'unknown key {key!r}{near} --help lists all keys.')


def brace(path: str) -> str:
  """A path as a setting, in which braces stand for names."""
  return path.replace('{', '{{').replace('}', '}}')


def _check_places(key, path):
  try:
    fields = [field[1:] for field in string.Formatter().parse(path)]
  except ValueError:
    fields = [('',)]
  for field in fields:
    if field[0] is not None and field not in [(x, '', None) for x in PLACES]:
      raise ConfigError(
        f'{key}: {rules.brief(path)} has braces around something else than '
        f'{", ".join(PLACES)}; write braces of a path twice.'
      )
  if '\0' in path:
    raise ConfigError(f'{key}: {rules.brief(path)} is not the name of a place.')
