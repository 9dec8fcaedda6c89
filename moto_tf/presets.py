"""Presets: what configs.yaml and registered methods offer, and composition.

Three kinds of presets are told apart by what they set: one that sets `task` is
a suite, one that sets `method` a method, all others are sizes and the like.
Of several suites only the last one counts, so that none leaves settings behind;
two methods are refused.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moto_tf import rules, yamlfile
from moto_tf.agents import METHODS
from moto_tf.config import Config, flatten, require_method
from moto_tf.envs import SUITES
from moto_tf.renames import upgrade
from moto_tf.rules import ConfigError


@dataclasses.dataclass(frozen=True)
class Part:
  """Overrides of one part of a composition.

  kind is 'preset', 'file' or 'values'; name is '' for values.
  """

  kind: str
  name: str
  overrides: Mapping[str, Any]

  @property
  def method(self) -> str | None:
    """The method, if this is the preset of one."""
    return self.overrides.get('method') if self.kind == 'preset' else None

  @property
  def suite(self) -> bool:
    """Whether this is the preset of a suite."""
    return self.kind == 'preset' and 'task' in self.overrides


@dataclasses.dataclass(frozen=True)
class Configs:
  """Content of a configs file, and the settings of registered methods.

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

    Raises:
      ConfigError: a part or a value cannot be used, or has no effect.
    """
    found = [self._part(part) for part in parts]
    _check_methods(found)
    last = [part for part in found if part.suite][-1:]
    config = self.defaults
    for part in found:
      if part.suite and part not in last:
        continue
      where = {'preset': 'preset ', 'file': ''}.get(part.kind, '')
      try:
        config = config.replace(part.overrides, part.name)
      except ConfigError as error:
        where = f'{where}{part.name}: ' if part.name else ''
        raise ConfigError(f'{where}{error}') from None
    config.check(self.defaults)
    for part in found:
      _check_effect(part, config)
    return config

  def _part(self, part: str | Path | Mapping) -> Part:
    if isinstance(part, Mapping):
      return Part('values', '', part)
    name = str(part)
    if is_file(part):
      content = yamlfile.read(rules.expand(name))[0]
      try:
        values = upgrade(flatten(content))
        if isinstance(values.get('method'), str):
          # Before its settings turn out to be unknown.
          require_method(values['method'], values.get('plugins'))
        return Part('file', name, values)
      except ConfigError as error:
        raise ConfigError(f'{name}: {error}') from None
    if name == 'defaults':
      return Part('preset', name, {})
    if name not in self.presets:
      near = rules.nearest(name, self.presets)
      raise ConfigError(
        f'unknown preset {name!r}{near} Presets are '
        f'{", ".join(self.presets)}; a file of overrides ends in .yaml.'
      )
    return Part('preset', name, self.presets[name])


def is_file(part: str | Path) -> bool:
  """Whether a word of --configs is a file of overrides, not a preset."""
  name = str(part)
  named = '/' in name or name.endswith(('.yaml', '.yml'))
  return isinstance(part, Path) or named


def load_configs(path: str | Path | None = None) -> Configs:
  """Reads a configs file, by default the one that comes with moto_tf."""
  packaged = path is None
  path = _packaged() if packaged else rules.expand(path)
  data, lines = yamlfile.read(path)
  if not isinstance(data.get('defaults'), Mapping):
    raise ConfigError(f"{path}: expected the map 'defaults' with all keys.")
  defaults, comments, sections, section = {}, {}, {}, 'Settings'
  for key, value, line, comment in yamlfile.walk(data['defaults']):
    section = yamlfile.heading(lines, line) or section
    sections.setdefault(section, []).append(key)
    defaults[key], comments[key] = value, comment
  presets, above = {}, ''
  for name, overrides in data.items():
    if name == 'defaults':
      continue
    line = data.lc.key(name)[0]
    # Presets without a blank line between them share the comment on top.
    blank = not lines[line - 1].strip()
    above = yamlfile.heading(lines, line) or ('' if blank else above)
    presets[name] = flatten(overrides)
    comments[name] = above
  if packaged:
    _add_registered(defaults, comments, sections, presets)
  return Configs(path, Config(defaults), presets, comments, sections)


def make_config(*parts: str | Path | Mapping[str, Any], **overrides) -> Config:
  """Composes presets, YAML files and maps of overrides from left to right.

  make_config('metaworld', 'small', {'rssm.deter': 512}, seed=1)
  """
  return load_configs().make(*parts, overrides)


def _add_registered(defaults, comments, sections, presets):
  """Settings and presets of methods and suites that configs.yaml lacks."""
  for name, method in METHODS.items():
    if name in presets and presets[name].get('method') != name:
      raise ConfigError(
        f'The method {name} has the name of a preset; register it by another.'
      )
    for key, (value, comment) in method.settings.items():
      if key in defaults or key.split('.')[0] not in method.groups:
        raise ConfigError(
          f'The method {name} may not register the setting {key}: its own have '
          f'a new name that begins with one of its groups, {method.groups}.'
        )
      defaults[key], comments[key] = value, comment
      sections.setdefault(method.label, []).append(key)
    if name not in presets:
      presets[name] = {'method': name, **flatten(method.preset)}
      comments[name] = f'The method {method.label}.'
  for name, suite in SUITES.items():
    if name not in presets and suite.preset:
      presets[name] = flatten(suite.preset)
      comments[name] = f'The suite {name}.'


def _check_methods(parts):
  """At most one method, whose settings no later preset changes."""
  methods = [part for part in parts if part.method]
  if len({part.name for part in methods}) > 1:
    names = [part.name for part in methods]
    raise ConfigError(
      f'presets {" and ".join(names)} are methods, of which a run has one; '
      f'name one of {", ".join(METHODS)}.'
    )
  for method in methods:
    for part in parts[parts.index(method) + 1 :]:
      undone = sorted({*method.overrides} & {*part.overrides})
      if part.kind == 'preset' and part.name != method.name and undone:
        raise ConfigError(
          f'preset {part.name} sets {undone[0]} and would undo {method.name}; '
          f'name {method.name} after {part.name}.'
        )


def _check_effect(part, config):
  """What a user gives by name must have an effect."""
  whole = part.kind == 'file' and 'method' in part.overrides
  if part.kind == 'preset' or whole:
    return
  try:
    config.check_effect(part.overrides)
  except ConfigError as error:
    where = f'{part.name}: ' if part.name else ''
    raise ConfigError(f'{where}{error}') from None


def _packaged() -> Path:
  """Finds configs.yaml: in a wheel in the package, in a checkout above it."""
  here = Path(__file__).resolve().parent
  inside = here / 'configs.yaml'
  return inside if inside.exists() else here.parent / 'configs.yaml'
