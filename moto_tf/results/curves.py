"""Learning curves of runs on disk, aggregated over seeds.

Runs are found by their metrics.jsonl and config.yaml, which says task, method
and seed. The JSON files that the command export makes of them are runs too.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from moto_tf import yamlfile
from moto_tf.agents import METHODS
from moto_tf.bounded import read_json
from moto_tf.errors import MotoError, warn
from moto_tf.renames import recorded_name
from moto_tf.results import statistics
from moto_tf.rules import ConfigError
from moto_tf.training import rows as row_files

INTERVALS = {
  'bootstrap': '95% bootstrap interval',
  't': '95% t interval',
  'range': 'range of {} seeds',
}

POINTS = 200

# Of the files of the command export.
FORMAT = 1
# What reading others' values as these raises.
_BROKEN = AttributeError, LookupError, OverflowError, TypeError, ValueError


class PlotError(MotoError, ValueError):
  """There is nothing to draw; the message says why and what to do."""


@dataclasses.dataclass
class LoadedRun:
  """Metrics of one training run, and its wall-clock time."""

  path: Path
  task: str
  method: str
  seed: int
  rows: list[dict]
  config: dict
  seconds: float | None


def find_runs(
  indirs: Iterable[Path | str],
  tasks: str = '',
  methods: str = '',
  exported: bool = True,
) -> list[LoadedRun]:
  """Read all runs below directories.

  Unusable runs and lines are named and skipped. Of runs with the same task,
  method and seed, the one with most rows is kept, and rather a log directory
  than a file.

  Args:
    indirs: Directories to search.
    tasks: Regular expression; tasks it is not found in are left out.
    methods: The same for methods.
    exported: Whether files of the command export count.

  Raises:
    PlotError: No such directory, no runs, or a broken regular expression.
  """
  tasks, methods = _pattern('tasks', tasks), _pattern('methods', methods)
  runs, count = {}, 0
  for path in _run_paths(indirs, exported):
    run = load_run(path) if path.is_dir() else load_export(path)
    if run is None:
      continue
    count += 1
    if not (tasks.search(run.task) and methods.search(run.method)):
      continue
    key = (run.task, run.method, run.seed)
    other = runs.get(key)
    if other is not None:
      order = lambda x: (-len(x.rows), x.path.is_file())
      run, other = sorted((run, other), key=order)
      warn(
        f'{run.path} and {other.path} are both seed {run.seed} of '
        f'{run.method} on {run.task}; the second is skipped.'
      )
    runs[key] = run
  if not runs:
    where = ', '.join(str(indir) for indir in indirs)
    raise PlotError(
      f'No runs below {where}: of {count} runs, which are directories with '
      'config.yaml and rows in metrics.jsonl'
      f'{" or files of the command export" * exported}, none passes --tasks '
      'and --methods.'
    )
  return sorted(
    runs.values(), key=lambda run: (run.task, rank(run.method), run.seed)
  )


def load_run(path: Path) -> LoadedRun | None:
  """Read a run directory, or name what is wrong and return None."""
  try:
    config = yamlfile.read(path / 'config.yaml')[0]
    task, seed = str(config['task']), int(config['seed'])
  except ConfigError as error:
    return warn(f'{path}/config.yaml is unreadable, run skipped: {error}')
  except (KeyError, OverflowError, TypeError, ValueError):
    return warn(f'{path}/config.yaml lacks task or seed, run skipped.')
  try:
    rows, remarks = row_files.read(path / 'metrics.jsonl')
  except OSError as error:
    return warn(f'{path}/metrics.jsonl is unreadable, run skipped: {error}')
  for remark in remarks:
    warn(f'{remark}; line skipped.')
  if not rows:
    return warn(f'{path}/metrics.jsonl has no rows, run skipped.')
  rows, method = _forget(rows), recorded_name(path, config)
  return LoadedRun(path, task, method, seed, rows, config, rows[-1].get('time'))


def load_export(path: Path) -> LoadedRun | None:
  """Read a file of the command export, whose rows are evaluations and curve.

  Returns:
    None for another JSON file and, with a warning, for a broken one.
  """
  try:
    content = read_json(path)
  except (OSError, ValueError) as error:
    return warn(f'{path} is unreadable, skipped: {error}')
  if not isinstance(content, dict) or not content.keys() >= {'format', 'curve'}:
    return None
  if content['format'] != FORMAT:
    return warn(
      f'{path} has format {content["format"]} instead of {FORMAT}, skipped; '
      'export the run again.'
    )
  try:
    rows = {}
    for found in content['evaluations']:
      row = {k: found.get(k) for k in ('env_step', 'agent_step', 'episode')}
      row |= {'phase': found['phase'], 'time': found.get('seconds')}
      # The log_ observations of the suite, too.
      names = {k for k, v in found.items() if isinstance(v, list)}
      names |= {'success', 'return'}
      row |= {f'eval/{k}': _mean(found[k]) for k in sorted(names)}
      rows[found['gradient_step']] = row
    columns, config = content['curve'], content['config']
    for values in zip(*columns.values(), strict=True):
      row = dict(zip(columns, values, strict=True))
      step = row['gradient_step']
      offline = step <= config.get('offline_steps', 0)
      row['phase'] = 'offline' if offline else 'online'
      rows[step] = row | rows.get(step, {})
    rows = [{**rows[step], 'gradient_step': step} for step in sorted(rows)]
    task, method = str(content['task']), str(content['method'])
    seed, seconds = int(content['seed']), content['wall_clock_seconds']
    return LoadedRun(path, task, method, seed, rows, config, seconds)
  except _BROKEN as error:
    return warn(f'{path} is not what export.py writes, skipped: {error!r}.')


def curve(
  run: LoadedRun, metric: str, xaxis: str = 'env_step'
) -> tuple[np.ndarray, np.ndarray]:
  """Values y [N] of a metric over increasing x [N], both empty without any.

  Of several values at one x the last counts. Offline training takes no
  environment steps, so over `env_step` only its result remains, at 0.
  """
  values = {
    row[xaxis]: row[metric]
    for row in run.rows
    if _finite(row.get(metric)) and _finite(row.get(xaxis))
  }
  x = sorted(values)
  return np.array(x, float), np.array([values[step] for step in x], float)


def interval(
  values: np.ndarray,
) -> tuple[np.ndarray | None, np.ndarray | None, str | None]:
  """Band around the mean over seeds.

  Args:
    values: Array [S, ...], one row per seed.

  Returns:
    Low [...], high [...] and the kind: lowest and highest ('range') below five
    seeds, else the 95% interval of Student's t ('t'). None for one seed.
  """
  if len(values) < 2:
    return None, None, None
  if len(values) < statistics.FEW:
    return values.min(0), values.max(0), 'range'
  return *statistics.t_interval(values), 't'


def interval_label(kind: str, counts: Iterable[int]) -> str:
  """What a band of so many seeds is called in figures and tables."""
  counts = sorted({n for n in counts if kind != 'range' or n > 1})
  several = '-'.join(str(x) for x in sorted({counts[0], counts[-1]}))
  return INTERVALS[kind].format(several)


def aggregate(
  runs: list[LoadedRun], metric: str, xaxis: str = 'env_step', smooth: int = 1
) -> dict | None:
  """Summary over the seeds of one task and method, ready for JSON.

  Curves are interpolated linearly onto the union of the seeds' x, as far as
  all seeds have values; where these are many, onto POINTS of equal distance.
  Smoothing averages a value and the smooth - 1 before it, and touches only
  mean, low and high.

  Returns:
    grid, mean, low, high [N], interval (kind), each [S, N] where that is the
    range, seeds, runs, online_start (x there), and the summaries offline,
    final, best, area (mean height of the curve) and minutes (wall-clock of the
    runs), with mean, low, high and values of the seeds; cut, a sentence, where
    a seed ends long before others. None without values.
  """
  name = f'{metric} of {runs[0].method} on {runs[0].task}'
  curves = [(run, *curve(run, metric, xaxis)) for run in runs]
  missing = [str(run.path) for run, x, _ in curves if not len(x)]
  curves = [found for found in curves if len(found[1])]
  if not curves:
    return None
  if missing:
    warn(f'{name}: {", ".join(missing)} left out, without values.')
  start = max(x[0] for _, x, _ in curves)
  end = min(x[-1] for _, x, _ in curves)
  last = max(x[-1] for _, x, _ in curves)
  if end < start:
    return warn(f'{name}: the seeds share no {xaxis}, not drawn.')
  cut, means = '', statistics.running_mean
  if end - start < statistics.NEAR * (last - start):
    short = next(str(run.path) for run, x, _ in curves if x[-1] == end)
    cut = f'{name}: cut at {xaxis} {end:g} of {last:g}, where {short} ends.'
    warn(cut)
  every = np.unique(np.concatenate([x for _, x, _ in curves]))
  every = every[(every >= start) & (every <= end)]
  values = np.stack([np.interp(every, x, y) for _, x, y in curves])
  grid = every if len(every) <= POINTS else np.linspace(start, end, POINTS)
  drawn = np.stack([np.interp(grid, x, means(y, smooth)) for _, x, y in curves])
  share = metric.endswith('/success')
  low, high, kind = _bounded(drawn, share)
  before = [
    [row for row in run.rows if row.get('phase') == 'offline' and xaxis in row]
    for run, _, _ in curves
  ]
  starts = [rows[-1][xaxis] for rows in before if rows]
  results = [[row.get(metric) for row in rows] for rows in before]
  results = [list(filter(_finite, values)) for values in results]
  offline = [values[-1] for values in results if values]
  times = [run.seconds / 60 for run, _, _ in curves if _finite(run.seconds)]
  return {
    'seeds': [run.seed for run, _, _ in curves],
    'runs': [str(run.path) for run, _, _ in curves],
    'grid': grid.tolist(),
    'mean': drawn.mean(0).tolist(),
    'low': None if low is None else low.tolist(),
    'high': None if high is None else high.tolist(),
    'interval': kind,
    'each': drawn.tolist() if kind == 'range' else None,
    'online_start': max(starts) if starts else None,
    'offline': _summary(offline, share) if offline else None,
    'final': _summary(values[:, -1], share),
    'best': _summary(values.max(1), share),
    'area': _summary(_area(every, values), share),
    'minutes': _summary(times) if times else None,
    **({'cut': cut} if cut else {}),
  }


def aggregate_all(
  runs: list[LoadedRun],
  metrics: Iterable[str],
  xaxis: str = 'env_step',
  smooth: int = 1,
) -> dict:
  """Summaries as results[metric][task][method].

  Raises:
    PlotError: None of the runs has any of the metrics over this axis.
  """
  groups = {}
  for run in runs:
    groups.setdefault((run.task, run.method), []).append(run)
  results = {}
  for metric in metrics:
    for (task, method), group in groups.items():
      found = aggregate(group, metric, xaxis, smooth)
      if found is not None:
        results.setdefault(metric, {}).setdefault(task, {})[method] = found
  if not results:
    known = sorted({key for run in runs for row in run.rows for key in row})
    raise PlotError(
      f'No values of {", ".join(metrics)} over {xaxis} in {len(runs)} runs, '
      f'which hold {", ".join(known)}.'
    )
  return results


def _run_paths(indirs, exported):
  """Directories with a metrics.jsonl and JSON files, each once, by name."""
  found = {}
  for indir in indirs:
    if not Path(indir).is_dir():
      raise PlotError(f'--indir {indir} is not a directory.')
    for parent, dirs, files in os.walk(indir):
      dirs.sort()
      paths = []
      if 'metrics.jsonl' in files:
        dirs.clear()
        if 'config.yaml' in files:
          paths = [Path(parent)]
        else:
          warn(f'{parent} has metrics.jsonl but no config.yaml, skipped.')
      elif exported:
        names = sorted(name for name in files if name.endswith('.json'))
        paths = [Path(parent, name) for name in names]
      for path in paths:
        found.setdefault(path.resolve(), path)
  return list(found.values())


def rank(method: str) -> tuple[int, str]:
  """Sorting key: known methods first, in their order."""
  known = list(METHODS)
  return known.index(method) if method in known else len(known), method


def _forget(rows):
  """Leave out rows that a resumed run wrote again."""
  kept = []
  for row in rows:
    if kept and row['gradient_step'] < kept[-1]['gradient_step']:
      step = row['gradient_step']
      kept = [x for x in kept if x['gradient_step'] < step]
    kept.append(row)
  return kept


def _finite(value):
  return isinstance(value, int | float) and math.isfinite(value)


def _mean(values):
  """Mean of a list, or a mean that is one already; None if one is None."""
  values = values if isinstance(values, list) else [values]
  return None if None in values else float(np.mean(values))


def _area(x, values):
  """Mean height of curves [S, N] by the trapezoid rule."""
  if len(x) == 1:
    return values[:, 0]
  return np.trapezoid(values, x, axis=1) / (x[-1] - x[0])


def _bounded(values, share):
  """The interval; that of a share ends at 0 and 1."""
  low, high, kind = interval(values)
  if share and kind:
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
  return low, high, kind


def _summary(values, share=False):
  values = np.asarray(values, float)
  low, high, _ = _bounded(values, share)
  return {
    'mean': float(values.mean()),
    'low': None if low is None else float(low),
    'high': None if high is None else float(high),
    'values': values.tolist(),
  }


def _pattern(name, text):
  try:
    return re.compile(text)
  except re.error as error:
    message = f"--{name} '{text}' is not a regular expression: {error}."
    raise PlotError(message) from error
