"""Records that make results reproducible, and one small file per run of them.

Next to its metrics a run keeps sessions.json, what was started where and with
which code, and evaluations.jsonl, every episode of every evaluation. `export`
condenses the log directory into JSON that can be committed, and that
moto_tf.curves reads in its place.
"""

import datetime
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from moto_tf.config import Config, flatten
from moto_tf.data.episodes import write_atomic
from moto_tf.errors import MotoError
from moto_tf.files import writing
from moto_tf.results import curves
from moto_tf.train import evaluation, machine
from moto_tf.train import rows as row_files

ROOT = Path(__file__).resolve().parents[2]
PATHS = ('logdir', 'offline_data', 'heldout_data')
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
)


class ExportError(MotoError, ValueError):
  """A run cannot be exported; the message says why and what to do."""


class Records:
  """The records of one run, continued like its metrics."""

  def __init__(
    self,
    logdir: Path,
    config: Config,
    resume_step: int | None,
    changes: Mapping[str, tuple] | None = None,
  ):
    """Begins a session.

    Args:
      logdir: directory of the run.
      config: its configuration.
      resume_step: gradient step of the checkpoint the run continues from;
        evaluations beyond it are dropped. None is a new run.
      changes: settings that differ from those so far, value before and now.

    Raises:
      FileError: the directory cannot be written.
    """
    self._path = logdir / 'evaluations.jsonl'
    row_files.rewind(self._path, resume_step)
    path = logdir / 'sessions.json'
    session = _session(config, resume_step or 0, changes or {})
    with writing(path):
      sessions = [] if resume_step is None else _read_sessions(path)
      if sessions is None:
        other = row_files.set_aside(path)
        curves.warn(f'{path} is no list of sessions: now {other.name}.')
      evaluation.write_json(path, [*(sessions or []), session])

  def evaluated(
    self, counters: Mapping, seconds: float, summary: Mapping
  ) -> None:
    """Appends an evaluation to evaluations.jsonl.

    Args:
      counters: as for `Logger.write`.
      seconds: of the run, see `Logger.seconds`.
      summary: of `evaluation.evaluate`.

    Raises:
      FileError: the directory cannot be written.
    """
    row = {**counters, 'seconds': seconds, **_columns(summary['rollouts'])}
    row_files.append(self._path, row)


def command(argv: list[str]) -> str:
  """A command as typed in a shell, without the home directory.

  The script is relative to the repository if it is inside.
  """
  script, *words = argv or ['']
  path = Path(script).resolve()
  if path.is_file() and path.is_relative_to(ROOT):
    script = str(path.relative_to(ROOT))
  words = [script, *words] if script else words
  return ' '.join(['python', *(_map_path(_without_home, x) for x in words)])


def commit(root: Path = ROOT) -> str | None:
  """Commit of the source tree, marked if files differ; None without git."""

  def git(*args):
    # No locks: somebody may be committing there.
    line = ('git', '--no-optional-locks', '-C', str(root), *args)
    done = subprocess.run(line, capture_output=True, check=True, timeout=30)
    return done.stdout.decode(errors='replace').strip()

  try:
    # Fails in a repository that merely has the package installed inside.
    git('ls-files', '--error-unmatch', 'moto_tf/__init__.py')
    changed = git('status', '--porcelain', '--untracked-files=no')
    return git('rev-parse', 'HEAD') + ' (modified)' * bool(changed)
  except (OSError, subprocess.SubprocessError):
    return None


def export(path: Path | str) -> dict:
  """Condenses a log directory: settings, sessions, evaluations and curves.

  Returns:
    Values that JSON can hold, without paths of this machine.

  Raises:
    ExportError: the directory holds no run.
  """
  path = Path(path).expanduser()
  run = curves.load_run(path)
  if run is None:
    raise ExportError(
      f'{path} holds no run; give the directory that --logdir of '
      'scripts/train.py named.'
    )
  config = flatten(run.config)
  config |= {k: _last_parts(config[k]) for k in PATHS if config.get(k)}
  sessions = _read_sessions(path / 'sessions.json')
  if sessions is None:
    curves.warn(f'{path}/sessions.json is no list of sessions, left out.')
  for session in sessions or []:
    words = shlex.split(session['command'])
    words = [_map_path(_last_parts, word) for word in words]
    session['command'] = ' '.join(words)
    changes = session.get('changes', {})
    for key in changes.keys() & set(PATHS):
      changes[key] = [_last_parts(x) for x in changes[key]]
  last = run.rows[-1]
  results = {
    'wall_clock_seconds': last.get('time'),
    'evaluations': _evaluations(run),
    'curve': _curve(run.rows),
    'final': _final(path / 'evaluation', last['gradient_step']),
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

  Args:
    indirs, tasks, methods: as for `curves.find_runs`.
    outdir: created if missing.
    force: overwrites files of runs that went on for longer.

  Returns:
    What was written, by path.

  Raises:
    ExportError: a file would be overwritten, or two runs are for one file.
      Then nothing is written.
    PlotError: no such directory, or no runs.
  """
  exports, kept = {}, []
  for run in curves.find_runs(indirs, tasks, methods, exported=False):
    path = Path(outdir) / run.task.split('_', 1)[-1] / run.method
    path /= f'{run.seed}.json'
    if path in exports:
      tasks = f'{exports[path]["task"]} and {run.task}'
      raise ExportError(f'{path} is for {tasks}; choose one by --tasks.')
    exports[path] = export(run.path)
    reason = path.exists() and _reason_to_keep(path, exports[path])
    if reason and not force:
      kept.append(reason)
  if kept:
    raise ExportError(
      ' '.join(kept) + ' Nothing was written; use --force, or another --outdir.'
    )
  for path, content in exports.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _layout(content).encode())
  return exports


def success(content: Mapping) -> tuple[float | None, int]:
  """Final success of an export, and its gradient step.

  That of scripts/evaluate.py if there is one, else of the last evaluation.
  """
  rows = content['evaluations']
  found = content['final'] or (rows[-1] if rows else None)
  if not found:
    return None, content['curve']['gradient_step'][-1]
  return float(np.mean(found['success'])), found['gradient_step']


# Sessions.


def _session(config, step, changes):
  now = datetime.datetime.now(datetime.UTC)
  return {
    'command': command(sys.argv),
    'commit': commit(),
    'machine': {**machine.describe(), **machine.environment(config)},
    'gradient_step': step,
    'changes': dict(changes),
    'started': now.isoformat(timespec='seconds'),
  }


def _read_sessions(path):
  """Sessions of a run, none without a file, None from a broken one."""
  if not path.exists():
    return []
  try:
    sessions = json.loads(path.read_text())
  except (OSError, ValueError):
    return None
  fits = isinstance(sessions, list) and all(
    isinstance(session, dict) and isinstance(session.get('command'), str)
    for session in sessions
  )
  return sessions if fits else None


def _map_path(change, word):
  """Quotes a word of a command, of which --key=value changes its value."""
  flag, value = re.fullmatch(r'(--[^=]*=)?(.*)', word, re.DOTALL).groups('')
  # In quotes a shell would not expand the home directory.
  home, value = re.fullmatch(r'(~/|~$)?(.*)', change(value), re.DOTALL).groups(
    ''
  )
  return flag + home + (shlex.quote(value) if value or not home else '')


def _without_home(text):
  home = os.path.expanduser('~')
  inside = text == home or text.startswith(home.rstrip('/') + '/')
  return '~' + text[len(home) :] if inside else text


def _last_parts(text):
  """The end of a path, enough to tell runs and data sets apart."""
  parts = [part for part in text.split('/') if part not in ('', '.', '..')]
  return '/'.join(parts[-2:]) if '/' in text else text


# What is exported.


def _columns(rollouts):
  """Episodes of an evaluation, whose seeds count up from the first."""
  names = [name for name in rollouts[0] if name != 'seed']
  found = {name: [float(x[name]) for x in rollouts] for name in names}
  whole = lambda x: int(x) if x.is_integer() else round(x, 4)
  return {
    'first_seed': rollouts[0]['seed'],
    **{
      name: [whole(x) if math.isfinite(x) else None for x in values]
      for name, values in found.items()
    },
  }


def _evaluations(run):
  """Rows of evaluations.jsonl, and means of evaluations before it began."""
  path, rows = run.path / 'evaluations.jsonl', []
  if path.exists():
    rows, remarks = row_files.read(path)
    for remark in remarks:
      curves.warn(f'{remark}; line skipped.')
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


def _final(directory, last):
  """The newest evaluation by scripts/evaluate.py, None without.

  One beyond the last step is of an earlier run in the same place.
  """
  for path in sorted(directory.glob('evaluation-*.json'), reverse=True):
    try:
      content = json.loads(path.read_text())
      columns = _columns(content.pop('rollouts'))
      if content['gradient_step'] <= last:
        for name in ('logdir', 'seed'):
          content.pop(name, None)
        return content | columns
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
      curves.warn(f'{path} is no evaluation, skipped.')
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
    content = json.loads(path.read_text())
    old, task = int(content['curve']['gradient_step'][-1]), content['task']
  except (LookupError, OSError, TypeError, ValueError):
    return f'{path} is not what export.py writes.'
  if task != new['task']:
    return f'{path} is of {task}, its replacement of {new["task"]}.'
  steps = new['curve']['gradient_step'][-1]
  if old > steps:
    return f'{path} has {old} gradient steps, its replacement only {steps}.'


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
