"""Command lines of settings: --configs, --key value, --help."""

import difflib
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from moto_tf import registry, rules
from moto_tf.config import Config
from moto_tf.presets import Configs, load_configs
from moto_tf.rules import ConfigError

PRINT = '--print-config'
FLAGS = {PRINT: 'Print all settings with what set them, and stop.'}


def parse(
  argv: Sequence[str] | None = None,
  prog: str | None = None,
  flags: Mapping[str, str] | None = None,
) -> Config:
  """Returns the settings of a command line.

  Takes --configs with presets or YAML files and --key value or --key=value.
  Prints all keys for --help, or all values for --print-config, and exits; a
  mistake exits with status 2.

  Args:
    argv: words, by default those of this process.
    prog: name of the command, for messages.
    flags: options of the command without a value, and their help texts; they
      are not looked at here.
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  prog = prog or Path(sys.argv[0]).name
  try:
    plugins = load_plugins(argv)
    configs = load_configs()
    if '--help' in argv or '-h' in argv:
      print(usage(configs, prog, {**FLAGS, **(flags or {})}))
      sys.exit(0)
    rest = [word for word in argv if word not in {PRINT, *(flags or ())}]
    config = configs.make(*parts(rest, configs.defaults))
    # For whoever continues, evaluates or exports the run from elsewhere.
    config = config.with_whole_paths()
    if plugins:
      config = config.update(plugins=plugins)
    if PRINT in argv:
      print(show_config(config))
      sys.exit(0)
    return config
  except (ConfigError, registry.RegistryError) as error:
    print(f'{prog}: error: {error}', file=sys.stderr)
    sys.exit(2)


def load_plugins(argv: Sequence[str]) -> str:
  """Imports what --plugins names, before settings are read.

  Returns:
    As registry.load_plugins.
  """
  names = ''
  for i, word in enumerate(argv):
    if word == '--plugins' and i + 1 < len(argv):
      names = argv[i + 1]
    elif word.startswith('--plugins='):
      names = word.partition('=')[2]
  return registry.load_plugins(names)


def show_config(config: Config) -> str:
  """YAML of all settings, with what set each value that is no default."""
  lines, sources = str(config).splitlines(), config.sources
  result = []
  for key, line in zip(config.flat, lines, strict=True):
    source = sources.get(key)
    origin = '' if source is None else f'  # {source or "given"}'
    result.append(line + origin)
  return '\n'.join(result)


def usage(configs: Configs, prog: str, flags: Mapping[str, str]) -> str:
  """Returns the --help text: every preset, flag and key with its comment."""
  lines = [f'usage: {prog} [--configs NAME|FILE.yaml ...] [--KEY VALUE ...]']
  lines += _wrap(
    'Presets and files are composed from left to right, then keys are '
    'set. A KEY may be a regular expression over the names below. Lists '
    f'are written as 256,256. Defaults and presets are in {configs.path}.'
  )
  lines.append('')
  for flag, text in flags.items():
    lines += _wrap(text, flag)
  lines += ['', 'Presets']
  for name, overrides in configs.presets.items():
    text = configs.comments[name]
    if len(overrides) <= 2:
      text += ''.join(f' [{k} {rules.show(v)}]' for k, v in overrides.items())
    lines += _wrap(text, name)
  for section, keys in configs.sections.items():
    lines += ['', section]
    for key in keys:
      value = configs.defaults[key]
      left = f'--{key} {rules.show(value)}'
      lines += _wrap(f'{configs.comments[key]} ({rules.kind(value)})', left)
  return '\n'.join(lines)


def split(
  argv: Sequence[str] | None, own: Collection[str]
) -> tuple[list[str], list[str]]:
  """Words of a command, and apart from them the settings with their values.

  Otherwise argparse takes such a value for a word that stands without a flag.

  Args:
    argv: words, by default those of this process.
    own: settings that are options of the command.
  """
  rest = sys.argv[1:] if argv is None else list(argv)
  known, words, found = load_configs().defaults.flat, [], []
  while rest:
    word = rest.pop(0)
    key, equals, _ = word.removeprefix('--').partition('=')
    setting = key not in own and (key in known or '.' in key)
    if not word.startswith('--') or not setting:
      words.append(word)
      continue
    found.append(word)
    if not equals and rest and not rest[0].startswith('--'):
      found.append(rest.pop(0))
  return words, found


def parts(argv: Sequence[str], defaults: Config) -> list[str | dict[str, str]]:
  """Splits a command line into presets and, after them, overrides.

  Raises:
    ConfigError: a word is neither.
  """
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
      example = rules.show(defaults[defaults.match(key)[0]])
    while len(values) < limit and rest and not rest[0].startswith('--'):
      values.append(rest.pop(0))
    if not values:
      raise ConfigError(f'--{key} needs a value, such as --{key} {example}')
    if key == 'configs':
      names += values
    else:
      overrides.append({key: values[0]})
  return names + overrides


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
