"""What a grid will take: time, disk and memory, measured on this machine."""

import concurrent.futures
import dataclasses
import json
import queue
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from moto_tf import files, memory
from moto_tf.benchmark import child
from moto_tf.bounded import read_json
from moto_tf.config import PATHS
from moto_tf.grid import GridError, slots
from moto_tf.grid.spec import Grid, GridRun
from moto_tf.grid.state import RunState
from moto_tf.presets import load_configs
from moto_tf.progress import duration
from moto_tf.training import machine, rundir
from moto_tf.training.forecast import Measured, forecast

# What does not change the speed of a run.
NO_MATTER = {*PATHS, 'task', 'seed', 'variant'}


@dataclasses.dataclass(frozen=True)
class Needs:
  """What is left of a run: seconds, and bytes of disk and memory."""

  seconds: float
  disk: int
  memory: int


def kinds(
  grid: Grid, states: Mapping[str, RunState], cores: int
) -> dict[str, str]:
  """What runs of one speed have in common, as JSON, by label of those left."""
  defaults, facts = load_configs().defaults.flat, machine.describe()
  where = [facts['processor'], facts['versions'], cores]
  found = {}
  for run in grid.runs:
    if states[run.label].finished:
      continue
    changed = {
      k: v
      for k, v in run.config.flat.items()
      if k not in NO_MATTER and v != defaults[k]
    }
    changed['suite'] = run.config.task.partition('_')[0]
    found[run.label] = json.dumps([changed, where], sort_keys=True)
  return found


def measure(
  grid: Grid, states: Mapping[str, RunState], places: Sequence[tuple[int, ...]]
) -> dict[str, tuple[Measured, float]]:
  """Measures each kind of run that is not finished, as many at a time as later.

  What was measured on this machine is kept in speed.json, unless there were no
  demonstrations, which take memory.

  Args:
    grid: of the runs.
    states: by label.
    places: cores of each process.

  Returns:
    By label of runs that are left: what was measured, and seconds of the start.

  Raises:
    BenchmarkError: a kind of run does not start; its message is on stderr.
  """
  path, of_run = grid.root / 'speed.json', kinds(grid, states, len(places[0]))
  known, wanted = _known(path), {}
  for run in grid.runs:
    name = of_run.get(run.label)
    if name is not None and name not in known:
      wanted.setdefault(name, run)
  free, begin = queue.SimpleQueue(), time.time()
  for place in places:
    free.put(place)

  def one(item):
    name, run = item
    place = free.get()
    try:
      return name, child.call(
        'run_parts.measure',
        f'{run.config.name} on {run.config.task}',
        begin,
        config=run.config.flat,
        cores=place,
        threads=slots.threads(len(place)),
      )
    finally:
      free.put(place)

  with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
    kept = dict(known)
    for name, found in pool.map(one, wanted.items()):
      known[name] = found
      if _has_data(wanted[name]):
        kept[name] = found
        files.write_json(path, kept)
  measured = {
    name: (Measured(**_without(found, 'startup')), found['startup'])
    for name, found in known.items()
  }
  return {label: measured[name] for label, name in of_run.items()}


def needs(
  run: GridRun, state: RunState, measured: tuple[Measured, float] | None
) -> Needs:
  """What is left of a run, from what `measure` found; nothing if it is done."""
  if state.finished:
    return Needs(0.0, 0, 0)
  found, startup = measured
  left = forecast(found, run.config, state.counters)
  seconds = startup + found.first + sum(left.seconds.values())
  return Needs(seconds, left.disk, left.memory)


def makespan(seconds: Sequence[float], count: int) -> float:
  """When runs that start in order, `count` at a time, are all done."""
  ends = [0.0] * count
  for run in seconds:
    first = ends.index(min(ends))
    ends[first] += run
  return max(ends)


def describe(
  grid: Grid,
  states: Mapping[str, RunState],
  needed: Mapping[str, Needs],
  count: int,
  here: int,
) -> str:
  """The plan as text.

  Args:
    grid, states, needed: of the runs, by label.
    count: runs at a time.
    here: how many of these are on one machine.

  Raises:
    GridError: disk or memory will not do.
  """
  left = [x for x in grid.runs if not states[x.label].finished]
  done = len(grid.runs) - len(left)
  methods = []
  for method in grid.methods:
    of_method = [x for x in left if x.config.name == method]
    times = [needed[x.label].seconds for x in of_method]
    if times:
      mean = duration(sum(times) / len(times))
      methods.append(f'{method} {len(times)} x {mean}')
  disk = sum(needed[x.label].disk for x in left)
  most = sorted((needed[x.label].memory for x in left), reverse=True)
  total = sum(most[:here])
  place = next(p for p in (grid.root, *grid.root.parents) if p.exists())
  free, limit = shutil.disk_usage(place).free, memory.host()
  wall = makespan([needed[x.label].seconds for x in left], count)
  gib = lambda x: f'{x / 2**30:.1f} GiB'
  lines = {
    'suite': f'{grid.name}: {grid.about}',
    'directory': str(grid.root),
    'runs': f'{len(grid.runs)}: {len(grid.tasks)} tasks x '
    f'{len(grid.methods)} methods x '
    f'{len(grid.runs) // (len(grid.tasks) * len(grid.methods))} seeds, '
    f'{done} done, {sum(0 < states[x.label].step for x in left)} begun',
    'time': f'about {duration(wall)}, {count} at a time: '
    f'{", ".join(methods) or "nothing is left"}',
    'disk': f'about {gib(disk)}; {gib(free)} are free',
    'memory': f'about {gib(total)} for {here} at a time on one machine; this '
    f'one has {gib(limit)}',
  }
  if disk > free:
    raise GridError(
      f'The suite needs {lines["disk"]} in {place}. Make room, or choose '
      'another --logdir.'
    )
  if total > limit:
    fits = sum(sum(most[: i + 1]) <= limit for i in range(here))
    advice = f'--processes {fits}' if fits else '--configs small'
    raise GridError(f'The suite needs {lines["memory"]}; {advice} would fit.')
  return '\n'.join(f'{name:<12}{text}' for name, text in lines.items())


def _known(path: Path) -> dict:
  """What was measured before; {} where that is unreadable or of old."""
  try:
    found = read_json(path)
    fields = {x.name for x in dataclasses.fields(Measured)} | {'startup'}
    good = lambda x: (
      x.keys() == fields and all(isinstance(v, int | float) for v in x.values())
    )
    return {name: x for name, x in found.items() if good(x)}
  except (AttributeError, OSError, ValueError):
    return {}


def _has_data(run):
  """Whether a run that learns from demonstrations has them already."""
  offline = rundir.offline_dir(run.config, run.config.path('logdir'))
  return offline is None or any(offline.glob('*.npz'))


def _without(values, key):
  return {k: v for k, v in values.items() if k != key}
