"""Where things live: no import cycles, names used once, rooms that hold."""

import ast
import collections
import re
import subprocess
import sys
from pathlib import Path

import pytest

import moto_tf
from moto_tf.errors import MotoError, explain_errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'moto_tf'
FILES = sorted(PACKAGE.rglob('*.py'))
LINES = 400


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in FILES}


def loaded_with(name, tree):
  """Modules that a module imports while it is loaded itself."""
  nodes, waiting = [], list(tree.body)
  while waiting:
    node = waiting.pop()
    if isinstance(node, ast.Import | ast.ImportFrom):
      nodes.append(node)
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      waiting += list(ast.iter_child_nodes(node))
  found = set()
  for node in nodes:
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f'{name} has a relative import'
      names = [f'{node.module}.{alias.name}' for alias in node.names]
      found |= {x if x in MODULES else node.module for x in names}
    else:
      found |= {alias.name for alias in node.names}
  # A module loads the packages it lies in first.
  for module in list(found):
    parts = module.split('.')
    found |= {'.'.join(parts[:i]) for i in range(1, len(parts))}
  own = name.split('.')
  inside = {'.'.join(own[:i]) for i in range(1, len(own) + 1)}
  return (found & MODULES.keys()) - inside


def find_cycle(edges):
  """Modules that import each other in a circle, [] without."""
  done, path = set(), []

  def visit(module):
    if module in path:
      return path[path.index(module) :]
    if module in done:
      return []
    path.append(module)
    for other in sorted(edges[module]):
      if cycle := visit(other):
        return cycle
    done.add(path.pop())
    return []

  return next(filter(None, map(visit, edges)), [])


def test_no_import_cycle():
  edges = {
    name: loaded_with(name, ast.parse(path.read_text()))
    for name, path in MODULES.items()
  }
  assert edges['moto_tf.training.run'] >= {'moto_tf.training.session'}
  assert not find_cycle(edges)
  assert find_cycle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c']


def test_every_module_loads_alone():
  """In whatever order, so also as the first one."""
  code = 'import importlib, sys; importlib.import_module(sys.argv[1])'
  for name in ('moto_tf.agents', 'moto_tf.config', 'moto_tf.envs.driver'):
    subprocess.run([sys.executable, '-c', code, name], cwd=ROOT, check=True)


def test_names_are_used_once():
  """Public classes and registries; two of one name are taken for another."""
  places = collections.defaultdict(list)
  for path in FILES:
    for node in ast.parse(path.read_text()).body:
      names = [node.name] if isinstance(node, ast.ClassDef) else []
      if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        registry = ast.unparse(node.value.func).startswith('Registry')
        names += [target.id for target in node.targets] if registry else []
      for name in names:
        if not name.startswith('_'):
          places[name].append(str(path.relative_to(ROOT)))
  assert {'METHODS', 'SUITES', 'FORMATS', 'STUDIES', 'Run'} <= places.keys()
  # Each format of the kitchen's data has its Source, as the protocol says.
  twice = {k: v for k, v in places.items() if len(v) > 1 and k != 'Source'}
  assert not twice


def test_errors_of_users_have_one_base():
  """By name: what is called an error of ours can be mended by the user."""
  bases = {}
  for path in FILES:
    for node in ast.parse(path.read_text()).body:
      if isinstance(node, ast.ClassDef) and node.name.endswith('Error'):
        bases[node.name] = {ast.unparse(base) for base in node.bases}
  assert bases.pop('MotoError') == {'Exception'} and len(bases) > 10
  for name, found in bases.items():
    assert found & {'MotoError', *bases}, name


def test_only_errors_of_users_end_without_a_traceback():
  with pytest.raises(SystemExit, match='Error: mend this'), explain_errors():
    raise MotoError('mend this')
  for defect in (OSError, ValueError, KeyError):
    with pytest.raises(defect), explain_errors():
      raise defect('ours')


def test_home_directories_are_expanded_in_one_place():
  """Which says so where there is none, instead of a RuntimeError."""
  # The runner is copied to devices, alone.
  alone = {'moto_tf.rules', 'moto_tf.deploy.runner'}
  found = {x for x, p in MODULES.items() if '.expanduser()' in p.read_text()}
  assert found == alone


def test_nobody_else_knows_world_models():
  """Training, data, results and commands see agents alone."""
  inner = {'rssm', 'behavior', 'encoder', 'decoder', 'standardize'}
  rooms = 'training', 'data', 'results', 'commands', 'benchmark', 'deploy'
  for room in rooms:
    for path in (PACKAGE / room).rglob('*.py'):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
          assert node.attr not in inner, f'{path}:{node.lineno}'
        if isinstance(node, ast.ImportFrom):
          assert not re.match(r'moto_tf\.(model|agents\.\w)', node.module), path


def test_the_kitchen_has_one_wing():
  for room in ('data', 'commands', 'training', 'results', 'nn', 'model'):
    for path in (PACKAGE / room).rglob('*.py'):
      code = ast.unparse(without_docstrings(ast.parse(path.read_text())))
      assert 'kitchen' not in code.lower(), path


def without_docstrings(tree):
  for node in ast.walk(tree):
    body = getattr(node, 'body', None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
      if isinstance(body[0].value, ast.Constant):
        body[0].value = ast.Constant('')
  return tree


def test_files_are_short():
  long = {p.name: n for p in FILES if (n := count(p)) > LINES}
  assert not long


def count(path):
  return len(path.read_text().splitlines())


def test_import_is_light():
  code = (
    'import sys, moto_tf; heavy = {"tensorflow", "mujoco", "ruamel.yaml"}; '
    'assert moto_tf.__version__ and not heavy & set(sys.modules); '
    'moto_tf.parse([]); assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
  with pytest.raises(AttributeError, match="no attribute 'nope'"):
    moto_tf.nope  # noqa: B018
  assert {'load_policy', 'make_env', 'Run'} <= set(dir(moto_tf))
