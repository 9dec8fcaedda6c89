"""Registries: the only lists of methods, suites, formats and studies.

A registry maps names to entries. Entries are small, and name by
'module:attribute' what takes time to import, so that choices, help and checks
of settings come from the registry without TensorFlow or a simulator.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from moto_tf import startup
from moto_tf.errors import MotoError
from moto_tf.rules import expand

Entry = TypeVar('Entry')


class RegistryError(MotoError, KeyError):
  """There is no entry of a name, or a name is taken."""

  # A KeyError would show its message in quotes.
  __str__ = Exception.__str__


class Registry(Mapping, Generic[Entry]):
  """Entries by name, in the order of their registration.

  Args:
    kind: what the entries are, for messages, such as 'method'.
    entries: those that come with moto_tf.
  """

  def __init__(self, kind: str, entries: Mapping[str, Entry]):
    self.kind = kind
    self._entries = dict(entries)
    self._own = frozenset(entries)

  def register(self, name: str, entry: Entry) -> Entry:
    """Adds an entry; one that was added before is replaced, as in a notebook.

    Raises:
      RegistryError: the name is that of an entry of moto_tf, or is none.
    """
    if not name.replace('-', '_').isidentifier():
      raise RegistryError(
        f'{name!r} cannot name a {self.kind}; use letters, digits and _.'
      )
    if name in self._own:
      raise RegistryError(
        f'There is a {self.kind} {name!r} in moto_tf; choose another name.'
      )
    self._entries[name] = entry
    return entry

  def remove(self, name: str) -> None:
    """Forgets an entry, for tests."""
    del self._entries[name]

  def __getitem__(self, name: str) -> Entry:
    if name not in self._entries:
      raise RegistryError(
        f'Unknown {self.kind} {name!r}. {choices(name, self._entries)} Those '
        'of your own code are registered by --plugins FILE.'
      )
    return self._entries[name]

  def __contains__(self, name: object) -> bool:
    return name in self._entries

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)


def resolve(target: Any) -> Any:
  """What 'module:attribute' names; anything but text is returned as it is."""
  if not isinstance(target, str):
    return target
  module, _, name = target.partition(':')
  with startup.quiet():
    return getattr(importlib.import_module(module), name)


def choices(name: str, names: Iterable[str]) -> str:
  """Advice for a name that is none of `names`: the nearest, and all."""
  names = list(names)
  near = difflib.get_close_matches(name, names, 1, 0.5)
  advice = f'Did you mean {near[0]}? ' if near else ''
  return f'{advice}There are: {", ".join(names)}.'


def load_plugins(names: str) -> str:
  """Imports modules that register methods, suites, formats or studies.

  Args:
    names: modules, or paths of .py files, between commas. The directory of a
      file joins the search path, where worker processes find it, too.

  Returns:
    The names, with whole paths of files, to be recorded.

  Raises:
    RegistryError: there is no such module or file, or Python takes its name
      for another module.
  """
  parts = [part.strip() for part in names.split(',')]
  return ','.join(_load_plugin(part) for part in parts if part)


def _load_plugin(name):
  module, path = name, None
  if name.endswith('.py') or '/' in name:
    path = expand(name).absolute()
    if not os.path.isfile(path):
      raise RegistryError(f'--plugins: there is no file {path}.')
    path = path.resolve()
    if not path.stem.isidentifier():
      raise RegistryError(
        f'--plugins: {path} cannot be imported by its name; use letters, '
        'digits and _, and no digit first.'
      )
    if str(path.parent) not in sys.path:
      sys.path.insert(0, str(path.parent))
    module = path.stem
  missing = RegistryError(
    f'--plugins: there is no module {module!r}; give the path of its file.'
  )
  if not all(part.isidentifier() for part in module.split('.')):
    raise missing
  try:
    with startup.quiet():
      found = importlib.import_module(module)
  except ModuleNotFoundError as error:
    # Itself, or a package that it is said to be in; not what it imports.
    if not f'{module}.'.startswith(f'{error.name}.'):
      raise
    raise missing from None
  other = getattr(found, '__file__', None)
  if path and (other is None or Path(other).resolve() != path):
    raise RegistryError(
      f'--plugins: {path} has the name of another module, {other or module}; '
      'rename the file.'
    )
  return str(path or name)
