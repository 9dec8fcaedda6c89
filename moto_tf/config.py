"""Hyperparameters: read from YAML, composed from presets, overridden, checked.

`configs.yaml` holds every key with its default and, as the comment behind it,
its help text. Three ways lead to the same checked, immutable `Config`:

  config = parse()  # --configs metaworld small --seed 1 --rssm.deter 512
  config = make_config('metaworld', 'small', {'seed': 1, 'rssm.deter': 512})
  config = Config.load('logdir/config.yaml')
"""

import dataclasses
import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from moto_tf import rules
from moto_tf.rules import ConfigError


class Config(Mapping):
  """Immutable nested settings.

  Read as `config.rssm.deter` or `config['rssm.deter']`; a group such as
  `config.rssm` is again a Config. Lists are kept as tuples.
  """

  __slots__ = ('_flat', '_prefix')

  def __init__(self, values: Mapping[str, Any], prefix: str = ''):
    """Takes nested maps, dotted keys or both; prefix names a group."""
    flat = {k: rules.plain(prefix + k, v) for k, v in flatten(values).items()}
    object.__setattr__(self, '_flat', flat)
    object.__setattr__(self, '_prefix', prefix)

  @property
  def flat(self) -> dict[str, Any]:
    """All settings as a new dictionary from dotted key to value."""
    return dict(self._flat)

  def update(self, overrides: Mapping[str, Any] = (), /, **keys) -> 'Config':
    """Returns a checked copy with some values replaced.

    A key is a dotted name or, if there is no such name, a regular expression
    that is matched against all of them. Values take the type of the setting.
    Raises ConfigError for unknown keys, wrong types and impossible values.
    """
    config = self._replace({**dict(overrides), **keys})
    rules.check(config._named(), self._named())
    return config

  def path(self, key: str) -> Path | None:
    """Returns the setting as a path with ~ expanded; None if it is ''."""
    return Path(self[key]).expanduser() if self[key] else None

  def save(self, path: str | Path) -> Path:
    """Writes the settings as YAML, whole or not at all."""
    path = Path(path).expanduser()
    temp = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      try:
        with temp.open('w', encoding='utf-8') as f:
          f.write(str(self))
          f.flush()
          os.fsync(f.fileno())
        os.replace(temp, path)
      finally:
        temp.unlink(missing_ok=True)
    except OSError as error:
      raise ConfigError(
        f'cannot write {path}: {error.strerror}. Check --logdir and the disk.'
      ) from None
    return path

  @classmethod
  def load(cls, path: str | Path) -> 'Config':
    """Reads what `save` wrote; keys it lacks have their default."""
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
    return type(self), (self._flat, self._prefix)

  def __repr__(self) -> str:
    return f'Config({self._flat!r})'

  def __str__(self) -> str:
    """YAML text, one dotted key per line."""
    yaml = YAML(typ='safe', pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 1000
    lists = {
      k: list(v) if rules.is_list(v) else v for k, v in self._flat.items()
    }
    stream = StringIO()
    yaml.dump(lists, stream)
    return stream.getvalue()

  def _get(self, key: str) -> Any:
    if key in self._flat:
      return self._flat[key]
    start = f'{key}.'
    size = len(start)
    group = {k[size:]: v for k, v in self._flat.items() if k.startswith(start)}
    if not group:
      raise _unknown(key, self._flat)
    return Config(group, self._prefix + start)

  def _named(self) -> dict[str, Any]:
    return {self._prefix + key: value for key, value in self._flat.items()}

  def _match(self, pattern: str) -> list[str]:
    """Returns the keys that an exact name or a regular expression means."""
    if pattern in self._flat:
      return [pattern]
    try:
      found = [key for key in self._flat if re.fullmatch(pattern, key)]
    except re.error as error:
      raise ConfigError(
        f'{pattern!r} is neither a key nor a regular expression: {error}.'
      ) from None
    if not found:
      raise _unknown(pattern, self._flat)
    return found

  def _replace(self, overrides: Mapping[str, Any]) -> 'Config':
    flat = self.flat
    for pattern, value in flatten(overrides).items():
      for key in self._match(pattern):
        flat[key] = rules.convert(self._prefix + key, value, self._flat[key])
    return Config(flat, self._prefix)


@dataclasses.dataclass(frozen=True)
class Configs:
  """Content of a configs file.

  defaults holds every key, presets the overrides of each preset; comments maps
  keys and presets to their comments, and sections headings to keys.
  """

  path: Path
  defaults: Config
  presets: dict[str, dict[str, Any]]
  comments: dict[str, str]
  sections: dict[str, list[str]]

  def make(self, *parts: str | Path | Mapping[str, Any]) -> Config:
    """Composes the defaults with parts, from left to right.

    A part is a preset's name, the path of a YAML file of overrides, or a map
    of overrides. Values are checked once, when all of them are in place.
    """
    config = self.defaults
    methods = {}  # Key to the preset of a method that has set it.
    for part in parts:
      source, overrides = self._part(part)
      preset = isinstance(part, str) and part in self.presets
      for key in overrides if preset else ():
        if part in rules.METHODS:
          methods[key] = part
        elif key in methods:
          raise ConfigError(
            f'preset {part} sets {key} and would undo {methods[key]}; name '
            f'{methods[key]} after {part}.'
          )
      try:
        config = config._replace(overrides)
      except ConfigError as error:
        raise ConfigError(f'{source}{error}') from None
    rules.check(config.flat, self.defaults.flat)
    return config

  def _part(self, part: str | Path | Mapping) -> tuple[str, Mapping]:
    if isinstance(part, Mapping):
      return '', part
    name = str(part)
    if (
      isinstance(part, Path) or '/' in name or name.endswith(('.yaml', '.yml'))
    ):
      return f'{name}: ', _read(Path(name).expanduser())[0]
    if name == 'defaults':
      return '', {}
    if name not in self.presets:
      near = rules.nearest(name, self.presets)
      raise ConfigError(
        f'unknown preset {name!r}{near} Presets are '
        f'{", ".join(self.presets)}; a file of overrides ends in .yaml.'
      )
    return f'preset {name}: ', self.presets[name]

  def usage(self, prog: str) -> str:
    """Returns the --help text: every preset and key with its comment."""
    lines = [f'usage: {prog} [--configs NAME|FILE.yaml ...] [--KEY VALUE ...]']
    lines += _wrap(
      'Presets and files are composed from left to right, then keys are '
      'set. A KEY may be a regular expression over the names below. Lists '
      f'are written as 256,256. Defaults and presets are in {self.path}.'
    )
    lines += ['', 'Presets']
    for name, overrides in self.presets.items():
      text = self.comments[name]
      if len(overrides) <= 2:
        text += ''.join(f' [{k} {rules.show(v)}]' for k, v in overrides.items())
      lines += _wrap(text, name)
    for section, keys in self.sections.items():
      lines += ['', section]
      for key in keys:
        value = self.defaults[key]
        left = f'--{key} {rules.show(value)}'
        lines += _wrap(f'{self.comments[key]} ({rules.kind(value)})', left)
    return '\n'.join(lines)


def load_configs(path: str | Path | None = None) -> Configs:
  """Reads a configs file, by default the one that comes with moto_tf."""
  path = Path(path).expanduser() if path else _packaged()
  data, lines = _read(path)
  if not isinstance(data.get('defaults'), Mapping):
    raise ConfigError(f"{path}: expected the map 'defaults' with all keys.")
  defaults, comments, sections, section = {}, {}, {}, 'Settings'
  for key, value, line, comment in _walk(data['defaults']):
    section = _heading(lines, line) or section
    sections.setdefault(section, []).append(key)
    defaults[key], comments[key] = value, comment
  presets, above = {}, ''
  for name, overrides in data.items():
    if name == 'defaults':
      continue
    line = data.lc.key(name)[0]
    # Presets without a blank line between them share the comment on top.
    blank = not lines[line - 1].strip()
    above = _heading(lines, line) or ('' if blank else above)
    presets[name] = flatten(overrides)
    comments[name] = above
  return Configs(path, Config(defaults), presets, comments, sections)


def make_config(*parts: str | Path | Mapping[str, Any], **overrides) -> Config:
  """Composes presets, YAML files and maps of overrides from left to right.

  make_config('metaworld', 'small', {'rssm.deter': 512}, seed=1)
  """
  return load_configs().make(*parts, overrides)


def parse(argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
  """Returns the settings of a command line.

  Takes --configs with presets or YAML files and --key value or --key=value.
  Prints all keys and exits for --help; a mistake exits with status 2.
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  prog = prog or Path(sys.argv[0]).name
  try:
    configs = load_configs()
    if '--help' in argv or '-h' in argv:
      print(configs.usage(prog))
      sys.exit(0)
    return configs.make(*_parts(argv, configs.defaults))
  except ConfigError as error:
    print(f'{prog}: error: {error}', file=sys.stderr)
    sys.exit(2)


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
  """Turns nested maps into one with dotted keys."""
  flat = {}
  for key, value in values.items():
    if not isinstance(key, str):
      raise ConfigError(f'key {key!r} is not a name; write it in quotes.')
    nested = isinstance(value, Mapping)
    inner = flatten(value) if nested else {'': value}
    for rest, leaf in inner.items():
      name = f'{key}.{rest}' if nested else key
      if name in flat:
        raise ConfigError(f'{name} is given twice; remove one of them.')
      flat[name] = leaf
  return flat


def _parts(argv: list[str], defaults: Config) -> list[str | dict[str, str]]:
  """Splits a command line into presets and, after them, overrides."""
  names, overrides, rest = [], [], list(argv)
  while rest:
    flag = rest.pop(0)
    if not flag.startswith('--') or len(flag) < 3:
      raise ConfigError(
        f'unexpected argument {flag!r}. Write --key value, lists as '
        '256,256 and values with spaces in quotes.'
      )
    key, equals, value = flag[2:].partition('=')
    values, limit = [value] if equals else [], 1
    if key == 'configs':
      example, limit = 'metaworld small', len(argv)
    elif difflib.get_close_matches(key, ['configs'], cutoff=0.8):
      raise ConfigError(f'unknown option --{key}; did you mean --configs?')
    else:
      example = rules.show(defaults[defaults._match(key)[0]])
    while len(values) < limit and rest and not rest[0].startswith('--'):
      values.append(rest.pop(0))
    if not values:
      raise ConfigError(f'--{key} needs a value, such as --{key} {example}')
    if key == 'configs':
      names += values
    else:
      overrides.append({key: values[0]})
  return names + overrides


def _packaged() -> Path:
  """Finds configs.yaml: in a wheel in the package, in a checkout above it."""
  here = Path(__file__).resolve().parent
  inside = here / 'configs.yaml'
  return inside if inside.exists() else here.parent / 'configs.yaml'


def _read(path: Path) -> tuple[Mapping[str, Any], list[str]]:
  """Returns the map in a YAML file and the lines of the file."""
  try:
    text = path.read_text(encoding='utf-8')
    data = YAML().load(text)
  except OSError as error:
    raise ConfigError(
      f'cannot read {path}: {error.strerror}. Check the path.'
    ) from None
  except (YAMLError, ValueError) as error:
    mark = getattr(error, 'problem_mark', None)
    where = f', line {mark.line + 1}' if mark else ''
    problem = getattr(error, 'problem', None) or str(error).split('\n')[0]
    raise ConfigError(
      f'{path}{where}: not valid YAML: {problem}. Write one `key: value` '
      'per line.'
    ) from None
  if data is None:
    data = {}
  if not isinstance(data, Mapping):
    raise ConfigError(f'{path}: expected a map; write `key: value` lines.')
  return data, text.splitlines()


def _walk(data: Any, prefix: str = '') -> Iterator[tuple[str, Any, int, str]]:
  """Yields dotted key, value, line number and comment of a YAML map."""
  for key, value in data.items():
    line = data.lc.key(key)[0]
    if isinstance(value, Mapping):
      yield from _walk(value, f'{prefix}{key}.')
      continue
    token = data.ca.items.get(key, [None] * 3)[2]
    same = token and token.start_mark.line == data.lc.value(key)[0]
    comment = token.value.split('\n')[0].lstrip('# ') if same else ''
    yield f'{prefix}{key}', value, line, comment


def _heading(lines: list[str], line: int) -> str:
  """Returns the comment lines that stand directly above a line."""
  found = []
  while line > 0 and lines[line - 1].lstrip().startswith('#'):
    line -= 1
    found.insert(0, lines[line].strip().lstrip('# '))
  return ' '.join(found)


def _unknown(key: str, names: Iterable[str]) -> ConfigError:
  near = rules.nearest(key, names)
  return ConfigError(f'unknown key {key!r}{near} --help lists all keys.')


def _wrap(text: str, left: str = '') -> list[str]:
  """Lays out one help entry: left column, then the text beside or below."""
  indent = ' ' * (34 if left else 0)
  width = max(60, min(shutil.get_terminal_size().columns, 110))
  body = textwrap.wrap(
    text, width, initial_indent=indent, subsequent_indent=indent
  )
  left = f'  {left}'
  if not body or not left.strip():
    return body or [left]
  if len(left) < 33:
    return [left + body[0][len(left) :], *body[1:]]
  return [left, *body]
