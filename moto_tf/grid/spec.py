"""Grids as YAML files: what is in them, and the runs that they stand for."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moto_tf import rules, yamlfile
from moto_tf.config import DATA, Config, brace, flatten
from moto_tf.grid import GridError
from moto_tf.presets import is_file, load_configs
from moto_tf.rules import ConfigError

SHIPPED = Path(__file__).parent / 'suites'
LOGDIR = '~/logdir/{}'
SEEDS = 2**31 - 1
OWN = ('task', 'method', 'seed', 'variant', 'logdir')

# Keys of a file, of one of its tasks and of one of its methods.
KEYS = {
  'about': str,
  'presets': list,
  'tasks': (list, Mapping),
  'methods': (list, Mapping),
  'seeds': list,
  'settings': Mapping,
  'demonstrations': Mapping,
  'metrics': list,
  'xaxis': str,
  'cores': int,
  'gpus': (int, float),
}
TASK_KEYS = {'presets': list, 'settings': Mapping, 'demonstrations': Mapping}
METHOD_KEYS = {'presets': list, 'settings': Mapping}
DEMO_KEYS = {
  'episodes': int,
  'seed': int,
  'noise': (int, float, type(None)),
  'order': str,
}


@dataclasses.dataclass(frozen=True)
class Demos:
  """Demonstrations to record for a task, as for the command `collect`.

  noise: None for the expert's own.
  """

  episodes: int = 10
  seed: int = 0
  noise: float | None = None
  order: str = ''


@dataclasses.dataclass(frozen=True)
class GridRun:
  """One run of a grid.

  Attributes:
    config: its settings.
    words: arguments of the command `train` that make them.
  """

  config: Config
  words: tuple[str, ...]

  @property
  def logdir(self) -> Path:
    return self.config.path('logdir')

  @property
  def label(self) -> str:
    """Task, method and seed, as its directory has them."""
    return f'{self.config.task}/{self.config.name}/{self.config.seed}'


@dataclasses.dataclass(frozen=True)
class Grid:
  """What a file says, with the runs in the order in which they start.

  Attributes:
    name: of the file.
    about: a sentence on what it is.
    root: directory of all its runs.
    tasks, methods: in the order of the file.
    runs: all tasks and methods with the first seed come first.
    demonstrations: by task.
    metrics, xaxis: of its figures.
    cores, gpus: of each run.
  """

  name: str
  about: str
  root: Path
  tasks: tuple[str, ...]
  methods: tuple[str, ...]
  runs: tuple[GridRun, ...]
  demonstrations: Mapping[str, Demos]
  metrics: tuple[str, ...]
  xaxis: str
  cores: int
  gpus: float


def shipped() -> dict[str, str]:
  """Grids that come with moto_tf: name to what they are."""
  found = {}
  for path in sorted(SHIPPED.glob('*.yaml')):
    found[path.stem] = str(yamlfile.read(path)[0].get('about', ''))
  return found


def find(name: str) -> Path:
  """The file of a grid, which is given by its path or is shipped.

  Raises:
    GridError: there is none.
  """
  if '/' in name or name.endswith(('.yaml', '.yml')):
    path = rules.expand(name)
    if not path.is_file():
      raise GridError(f'There is no file {path}.')
    return path
  path = SHIPPED / f'{name}.yaml'
  if not path.is_file():
    near = rules.nearest(name, shipped())
    raise GridError(
      f'There is no suite {name!r}{near} Suites are {", ".join(shipped())}; a '
      'file of your own ends in .yaml.'
    )
  return path


def layout(path: Path) -> tuple[list[str], list[str]]:
  """Names of tasks and methods of a grid, whether or not they exist.

  Raises:
    GridError: the file is none of a grid.
  """
  content = _checked(path, _read(path), KEYS, '')
  tasks = _named(path, content, 'tasks', TASK_KEYS, '')
  return list(tasks), list(_named(path, content, 'methods', METHOD_KEYS, ''))


def load(
  path: Path,
  root: Path | None = None,
  more: Sequence[str | Mapping[str, Any]] = (),
  tasks: str = '',
  methods: str = '',
  seeds: Sequence[int] | None = None,
  plugins: str = '',
) -> Grid:
  """Reads a grid and makes the settings of all its runs.

  Presets come in the order: the file's, the task's, those of `more`, the
  method's. Settings follow in the order: the file's, the task's, the method's,
  those of `more`.

  Args:
    path: of the YAML file.
    root: directory of its runs; by default ~/logdir/<name of the file>.
    more: presets and maps of settings for all runs.
    tasks, methods: regular expressions; what they are not found in is left
      out.
    seeds: instead of the file's.
    plugins: of `registry.load_plugins`.

  Raises:
    GridError: the file is none of a grid, or names presets or settings that
      do not exist or do not go together.
  """
  content = _checked(path, _read(path), KEYS, '')
  check_own(f'{path}: settings.', content.get('settings', {}))
  task_parts = _named(path, content, 'tasks', TASK_KEYS, tasks)
  method_parts = _named(path, content, 'methods', METHOD_KEYS, methods)
  seeds = _seeds(path, content.get('seeds', [0]) if seeds is None else seeds)
  # Runs may be started in other directories, such as by Slurm and Ray.
  root = (root or rules.expand(LOGDIR.format(path.stem))).absolute()
  configs = load_configs()
  _check_presets(path, configs, content, task_parts, method_parts)
  runs = []
  for seed in seeds:
    for task, of_task in task_parts.items():
      for method, of_method in method_parts.items():
        part = [content, of_task, of_method]
        names, values = _compose(method, part, more)
        values |= {'task': task, 'seed': seed}
        values |= {'plugins': plugins} if plugins else {}
        values['logdir'] = brace(str(root / task / method / str(seed)))
        where = f'{path}, {task}, {method}'
        runs.append(_make_run(configs, method, names, values, where))
  demos = {}
  for task, of_task in task_parts.items():
    demos[task] = _demos(path, content, of_task, task)
  return Grid(
    name=path.stem,
    about=content.get('about', ''),
    root=root,
    tasks=tuple(task_parts),
    methods=tuple(method_parts),
    runs=tuple(runs),
    demonstrations=demos,
    metrics=tuple(map(str, content.get('metrics', ['eval/success']))),
    xaxis=content.get('xaxis', 'env_step'),
    cores=_at_least(path, content, 'cores', 1),
    gpus=_at_least(path, content, 'gpus', 0),
  )


def _read(path):
  """Content of a file in Python's own types."""

  def plain(value):
    if isinstance(value, Mapping):
      return {plain(k): plain(v) for k, v in value.items()}
    if rules.is_list(value):
      return [plain(x) for x in value]
    return value if value is None else rules.plain(str(path), value)

  return plain(yamlfile.read(path)[0])


def _compose(method, parts, more):
  """Presets and settings of a task and a method."""
  general, of_task, of_method = parts
  own = of_method.get('presets')
  if own is None:
    own = [method]
  names = [*general.get('presets', ()), *of_task.get('presets', ())]
  names += [x for x in more if not isinstance(x, Mapping)]
  names += own
  names = [str(rules.expand(x).absolute()) if is_file(x) else x for x in names]
  values = {}
  settings = [flatten(part.get('settings', {})) for part in parts]
  for part in [*settings, *(x for x in more if isinstance(x, Mapping))]:
    for key, value in part.items():
      # To the end: a pattern may match what another key sets.
      values.pop(key, None)
      values[key] = value
  return list(map(str, names)), values


def _make_run(configs, method, names, values, where):
  try:
    made = configs.make(*names, values)
    if made.name != method:
      values['variant'] = method
      made = configs.make(*names, values)
  except ConfigError as error:
    raise GridError(f'{where}: {error}') from None
  config = made.with_whole_paths()
  values |= {k: config[k] for k in DATA if config[k] != made[k]}
  words = ['--configs', *names] if names else []
  for key, value in values.items():
    text = ','.join(map(str, value)) if rules.is_list(value) else value
    words.append(f'--{key}={text}')
  return GridRun(config, tuple(words))


def check_own(said: str, values: Mapping[str, Any]) -> None:
  """Raises GridError for settings that tell the runs of a grid apart.

  Args:
    said: what stands before a key where it was given.
  """
  for key in flatten(values):
    with contextlib.suppress(re.error):  # Settings say what is wrong with it.
      if any(re.fullmatch(key, name) for name in OWN):
        raise GridError(
          f'{said}{key} is of a single run; those of a suite are told apart by '
          'its tasks, methods, seeds and log directory.'
        )


def _check_presets(path, configs, content, *groups):
  """All unknown presets in one message."""
  named = [*content.get('presets', ())]
  for group in groups:
    for part in group.values():
      named += part.get('presets') or ()
  named += [
    method for method, part in groups[1].items() if part.get('presets') is None
  ]
  known = {*configs.presets, 'defaults'}
  unknown = [
    x
    for x in dict.fromkeys(map(str, named))
    if x not in known and not x.endswith(('.yaml', '.yml')) and '/' not in x
  ]
  if unknown:
    raise GridError(
      f'{path}: there is no preset {", ".join(unknown)}. Presets are '
      f'{", ".join(configs.presets)}. Leave methods out with --methods, or '
      'register your own by --plugins FILE.'
    )


def _checked(path, content, keys, where):
  """A map of the file whose keys and types are those of a grid."""
  for key, value in content.items():
    if key not in keys:
      near = rules.nearest(str(key), keys)
      raise GridError(
        f'{path}: unknown key {where}{key}{near} Keys are {", ".join(keys)}.'
      )
    wanted = keys[key]
    if not isinstance(value, wanted) or isinstance(value, bool):
      kinds = wanted if isinstance(wanted, tuple) else (wanted,)
      names = {list: 'a list', Mapping: 'a map', str: 'a text'}
      text = ' or '.join(names.get(kind, 'a number') for kind in kinds)
      raise GridError(
        f'{path}: {where}{key} is {rules.brief(value)}, expected {text}.'
      )
  return content


def _named(path, content, key, keys, pattern):
  """Entries of tasks or methods by name, as far as a pattern is in these."""
  found = content.get(key)
  if not found:
    raise GridError(f'{path}: expected {key}, a list of names or a map.')
  if isinstance(found, list):
    for name in found:
      if not isinstance(name, str):
        raise GridError(
          f'{path}: {key} is a list with {rules.brief(name)}, expected names. '
          'Where some have settings of their own, write a map: "name:" without '
          '"-" before it, and what is its own below.'
        )
    found = dict.fromkeys(found, {})
  try:
    search = re.compile(pattern).search
  except re.error as error:
    raise GridError(
      f"--{key} '{pattern}' is not a regular expression: {error}."
    ) from None
  parts = {}
  for name, part in found.items():
    where = f'{key}.{name}'
    part = {} if part is None else part
    if not isinstance(name, str) or not re.fullmatch(r'[\w.:-]+', name):
      raise GridError(
        f'{path}: {rules.brief(name)} in {key} cannot name a directory; use '
        'letters, digits, _, - and .'
      )
    if not isinstance(part, Mapping):
      raise GridError(f'{path}: {where} is no map of {", ".join(keys)}.')
    if search(name):
      parts[name] = _checked(path, part, keys, f'{where}.')
      check_own(f'{path}: {where}.settings.', part.get('settings', {}))
  if not parts:
    raise GridError(
      f"{path}: none of its {key} passes --{key} '{pattern}': "
      f'{", ".join(map(str, found))}.'
    )
  return parts


def _seeds(path, values):
  for value in values:
    if type(value) is not int or not 0 <= value <= SEEDS:
      raise GridError(
        f'{path}: the seed {rules.brief(value)} is not a whole number from 0 '
        f'to {SEEDS:,}.'
      )
  if not values:
    raise GridError(f'{path}: seeds is empty.')
  return list(dict.fromkeys(values))


def _demos(path, content, of_task, task):
  values = {}
  for part, where in ((content, ''), (of_task, f'tasks.{task}.')):
    found = part.get('demonstrations', {})
    values |= _checked(path, found, DEMO_KEYS, f'{where}demonstrations.')
  demos = Demos(**values)
  if demos.episodes < 1 or not 0 <= demos.seed <= SEEDS:
    raise GridError(
      f'{path}: {task} has {demos.episodes} demonstrations of seed '
      f'{demos.seed}; expected at least one, and a seed from 0.'
    )
  return demos


def _at_least(path, content, key, least):
  value = content.get(key, least)
  if value < least:
    raise GridError(f'{path}: {key} is {value}, expected {least} or more.')
  return value
