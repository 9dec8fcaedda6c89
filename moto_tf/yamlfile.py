"""YAML files of settings: values with their line numbers and comments."""

from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from moto_tf import rules
from moto_tf.bounded import check_brackets, check_nesting
from moto_tf.rules import ConfigError

# Of a file of settings: its bytes, and its values with aliases written out.
SIZE, VALUES = 2**17, 10_000


def read(path: Path) -> tuple[Mapping[str, Any], list[str]]:
  """Returns the map in a YAML file and the lines of the file."""
  try:
    with path.open('rb') as stream:
      data = stream.read(SIZE + 1)
    if len(data) > SIZE:
      raise ValueError(f'it has more than {SIZE:,} bytes')
    text = data.decode()
    check_brackets(text)  # The parser takes minutes for many.
    data = YAML().load(text)
    # Values that aliases stand for many times would be copied as often.
    check_nesting(data, VALUES)
  except OSError as error:
    raise ConfigError(
      f'cannot read {path}: {error.strerror}. Check the path.'
    ) from None
  except Exception as error:  # Its constructors may fail in any way.
    mark = getattr(error, 'problem_mark', None)
    where = f', line {mark.line + 1}' if mark else ''
    problem = getattr(error, 'problem', None) or str(error).split('\n')[0]
    if isinstance(error, RecursionError):
      problem = 'it is nested too deeply'
    raise ConfigError(
      f'{path}{where}: not valid YAML: {rules.cut(problem)}. Write one '
      '`key: value` per line.'
    ) from None
  if data is None:
    data = {}
  if not isinstance(data, Mapping):
    raise ConfigError(f'{path}: expected a map; write `key: value` lines.')
  return data, text.splitlines()


def walk(data: Any, prefix: str = '') -> Iterator[tuple[str, Any, int, str]]:
  """Yields dotted key, value, line number and comment of a YAML map."""
  for key, value in data.items():
    line = data.lc.key(key)[0]
    if isinstance(value, Mapping):
      yield from walk(value, f'{prefix}{key}.')
      continue
    token = data.ca.items.get(key, [None] * 3)[2]
    same = token and token.start_mark.line == data.lc.value(key)[0]
    comment = token.value.split('\n')[0].lstrip('# ') if same else ''
    yield f'{prefix}{key}', value, line, comment


def heading(lines: list[str], line: int) -> str:
  """Returns the comment lines that stand directly above a line."""
  found = []
  while line > 0 and lines[line - 1].lstrip().startswith('#'):
    line -= 1
    found.insert(0, lines[line].strip().lstrip('# '))
  return ' '.join(found)


def write(values: Mapping[str, Any]) -> str:
  """YAML text of plain values, one key per line."""
  yaml = YAML(typ='safe', pure=True)
  yaml.default_flow_style = None
  yaml.sort_base_mapping_type_on_output = False
  yaml.width = 1000
  stream = StringIO()
  yaml.dump(dict(values), stream)
  return stream.getvalue()
