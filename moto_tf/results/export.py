"""One small JSON file per run, to be committed.

`export` condenses a log directory, with what moto_tf.training.records wrote,
into what moto_tf.results.curves reads in its place.
"""

import collections
import contextlib
import json
import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from moto_tf import files, rules
from moto_tf.bounded import read_json
from moto_tf.config import PATHS, flatten
from moto_tf.errors import MotoError, warn
from moto_tf.renames import upgrade
from moto_tf.results import curves, evaluations, mixture
from moto_tf.training import rows as row_files
from moto_tf.training.records import columns, map_path, read_sessions

POINTS = 100
METRICS = (
  'train/imag_disagreement',
  'train/imag_penalty',
  'train/imag_reward_raw',
  'train/imag_value',
  'train/critic_data_q',
  'train/kl',
  'train/model_loss',
  'episode/success',
  'episode/return',
  'eval/overestimation',
)


class ExportError(MotoError, ValueError):
  """A run cannot be exported; the message says why and what to do."""


def export(path: Path | str) -> dict:
  """Condenses a log directory: settings, sessions, evaluations and curves.

  Returns:
    Values that JSON can hold, without paths of this machine.

  Raises:
    ExportError: the directory holds no run.
  """
  path = rules.expand(path)
  run = curves.load_run(path)
  if run is None:
    raise ExportError(
      f'{path} holds no run; give the directory that --logdir of '
      'the command train named.'
    )
  config = upgrade(flatten(run.config))
  names = {'task': run.task, 'method': run.method, 'seed': run.seed}
  config |= {k: _place(config[k], names) for k in PATHS if config.get(k)}
  sessions = read_sessions(path / 'sessions.json')
  if sessions is None:
    warn(f'{path}/sessions.json is no list of sessions, left out.')
  for session in sessions or []:
    words = shlex.split(session['command'])
    words = [map_path(_last_parts, word) for word in words]
    session['command'] = ' '.join(words)
    changes = session.get('changes', {})
    for key in changes.keys() & set(PATHS):
      changes[key] = [_last_parts(str(x)) for x in changes[key]]
  last = run.rows[-1]
  results = {
    'wall_clock_seconds': last.get('time'),
    'evaluations': _evaluations(run),
    'curve': _curve(run.rows),
    'final': _final(run, last['gradient_step']),
  }
  return {
    'format': curves.FORMAT,
    'task': run.task,
    'method': run.method,
    'seed': run.seed,
    'config': config,
    'sessions': sessions or [],
    **_rounded(results),
  }


def export_all(
  indirs: Iterable[Path | str],
  outdir: Path | str,
  tasks: str = '',
  methods: str = '',
  force: bool = False,
) -> dict[Path, dict]:
  """Writes <outdir>/<task>/<method>/<seed>.json for every run below indirs.

  The task goes without its suite, unless two suites have one of that name.

  Args:
    indirs, tasks, methods: as for `curves.find_runs`.
    outdir: created if missing.
    force: overwrites files of runs that went on for longer, or of other
      settings.

  Returns:
    What was written, by path.

  Raises:
    ExportError: a file would be overwritten. Then nothing is written.
    PlotError: no such directory, or no runs.
  """
  exports, kept = {}, []
  runs = curves.find_runs(indirs, tasks, methods, exported=False)
  suites = collections.defaultdict(set)
  for run in runs:
    suites[_short(run.task)].add(run.task)
  for run in runs:
    name, rest = _short(run.task), Path(run.method) / f'{run.seed}.json'
    path = Path(outdir) / name / rest
    # Tasks of two suites may have one name; then the suite tells them apart.
    known = _task_of(path)
    if known != run.task and (known or len(suites[name]) > 1):
      path = Path(outdir) / run.task / rest
    exports[path] = export(run.path)
    reason = path.exists() and _reason_to_keep(path, exports[path])
    if reason and not force:
      kept.append(reason)
  if kept:
    raise ExportError(
      ' '.join(kept) + ' Nothing was written; use --force, or another --outdir.'
    )
  for path, content in exports.items():
    files.write_atomic(path, _layout(content).encode())
  return exports


def success(content: Mapping) -> tuple[float | None, int]:
  """Final success of an export, and its gradient step.

  That of the command evaluate if there is one, else of the last evaluation.
  """
  rows = content['evaluations']
  found = content['final'] or (rows[-1] if rows else None)
  if not found:
    return None, content['curve']['gradient_step'][-1]
  return float(np.mean(found['success'])), found['gradient_step']


def _short(task):
  return task.split('_', 1)[-1]


def _task_of(path):
  """Task of an exported file, None if there is none."""
  try:
    return str(read_json(path)['task'])
  except (LookupError, OSError, TypeError, ValueError):
    return None


def _place(path, names):
  """The end of a setting that is a path."""
  with contextlib.suppress(LookupError, ValueError):
    path = str(path).format(**names)
  return _last_parts(str(path))


def _last_parts(text):
  """The end of a path, enough to tell runs and data sets apart."""
  parts = [part for part in text.split('/') if part not in ('', '.', '..')]
  return '/'.join(parts[-2:]) if '/' in text else text


# What is exported.


def _evaluations(run):
  """Rows of evaluations.jsonl, and means of evaluations before it began."""
  path, rows = run.path / 'evaluations.jsonl', []
  if path.exists():
    rows, remarks = row_files.read(path)
    for remark in remarks:
      warn(f'{remark}; line skipped.')
  known = {row['gradient_step'] for row in rows}
  for row in run.rows:
    if 'eval/success' in row and row['gradient_step'] not in known:
      names = ('gradient_step', 'agent_step', 'env_step', 'episode', 'phase')
      found = {name: row.get(name) for name in names}
      found['seconds'] = row.get('time')
      names = ('success', 'return', 'length')
      rows.append(found | {name: row.get(f'eval/{name}') for name in names})
  return sorted(rows, key=lambda row: row['gradient_step'])


def _curve(rows):
  """Columns of METRICS, each value the mean of a stretch that ends there."""
  groups = np.array_split(np.arange(len(rows)), min(POINTS, len(rows)))
  groups = [[rows[i] for i in group] for group in groups]
  counters = ('gradient_step', 'env_step')
  curve = {k: [group[-1].get(k) for group in groups] for k in counters}
  for name in METRICS:
    values = [[row[name] for row in group if name in row] for group in groups]
    values = [[x for x in group if x is not None] for group in values]
    if any(values):
      curve[name] = [float(np.mean(x)) if x else None for x in values]
  return curve


def _final(run, last):
  """The newest evaluation by the command evaluate, None without.

  One beyond the last step is of an earlier run in the same place.
  """
  names = (run.method, run.config.get('method', run.method))
  found = evaluations.of_command(run.path, run.task, names)
  for content in found:
    if content['gradient_step'] <= last:
      episodes = columns(content.pop('rollouts'))
      for name in ('logdir', 'seed'):
        content.pop(name, None)
      return content | episodes
  return None


def _rounded(value):
  """The same with five digits, which figures do not show."""
  if isinstance(value, dict):
    return {k: _rounded(v) for k, v in value.items()}
  if isinstance(value, list):
    return [_rounded(v) for v in value]
  if isinstance(value, float):
    return float(f'{value:.5g}') if math.isfinite(value) else None
  return value


def _reason_to_keep(path, new):
  """Why an exported file should not be replaced, None if it may be."""
  try:
    content = read_json(path)
    old, task = int(content['curve']['gradient_step'][-1]), content['task']
  except (LookupError, OSError, TypeError, ValueError):
    return f'{path} is not what export.py writes.'
  if task != new['task']:
    return f'{path} is of {task}, its replacement of {new["task"]}.'
  steps = new['curve']['gradient_step'][-1]
  if old > steps:
    return f'{path} has {old} gradient steps, its replacement only {steps}.'
  if keys := mixture.differences(content.get('config', {}), new['config']):
    return f'{path} is of other settings: {rules.cut(", ".join(keys))}.'


def _layout(content):
  """JSON with a line per setting, evaluation or column, not per number."""
  lines = []
  for key, value in content.items():
    text = json.dumps(value, allow_nan=False)
    items = value.items() if isinstance(value, dict) else ()
    if key == 'curve':
      rows = [f'{json.dumps(k)}: {json.dumps(v)}' for k, v in items]
      text = '{\n    ' + ',\n    '.join(rows) + '\n  }'
    elif isinstance(value, list) and value:
      rows = [json.dumps(row, allow_nan=False) for row in value]
      text = '[\n    ' + ',\n    '.join(rows) + '\n  ]'
    lines.append(f'  {json.dumps(key)}: {text}')
  return '{\n' + ',\n'.join(lines) + '\n}\n'
