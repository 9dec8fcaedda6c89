"""Records that make results reproducible.

Next to its metrics a run keeps sessions.json, what was started where and with
which code, and evaluations.jsonl, every episode of every evaluation.
"""

import datetime
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from moto_tf import files
from moto_tf.bounded import read_json
from moto_tf.config import Config
from moto_tf.errors import warn
from moto_tf.training import machine, rows

ROOT = Path(__file__).resolve().parents[2]


class Records:
  """The records of one run, continued like its metrics.

  Attributes:
    count: evaluations on record.
  """

  def __init__(
    self,
    logdir: Path,
    config: Config,
    resume_step: int | None,
    changes: Mapping[str, tuple] | None = None,
    count: int | None = None,
    unfinished: bool = False,
  ):
    """Begins a session.

    Args:
      logdir: directory of the run.
      config: its configuration.
      resume_step: gradient step of the checkpoint the run continues from;
        evaluations beyond it are dropped, and those of the command evaluate
        move to `evaluation/superseded/`. None is a new run.
      changes: settings that differ from those so far, value before and now.
      count: evaluations when that checkpoint was written, if that is known.
      unfinished: whether the run's own evaluation at that step comes again.

    Raises:
      FileError: the directory cannot be written.
    """
    self._path = logdir / 'evaluations.jsonl'
    last = resume_step - 1 if unfinished else resume_step
    self.count = len(rows.rewind(self._path, last, count))
    _supersede(logdir / 'evaluation', resume_step)
    path = logdir / 'sessions.json'
    session = _session(config, resume_step or 0, changes or {})
    with files.writing(path):
      if resume_step and not path.exists():
        warn(f'{path} is missing: what was started before is not on record.')
      sessions = [] if resume_step is None else read_sessions(path)
      if sessions is None:
        other = rows.set_aside(path)
        warn(f'{path} is no list of sessions: now {other.name}.')
      files.write_json(path, [*(sessions or []), session])

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
    row = {**counters, 'seconds': seconds, **columns(summary['rollouts'])}
    rows.append(self._path, row)
    self.count += 1


def _supersede(directory, step):
  """Sets aside what the command evaluate found of abandoned checkpoints."""
  late = []
  for path in sorted(directory.glob('evaluation-*.*')):
    found = re.match(r'evaluation-(\d+)', path.name)
    if found and (step is None or int(found[1]) > step):
      late.append(path)
  if late:
    target = directory / 'superseded'
    with files.writing(target):
      files.move_into(late, target)
    print(
      f'Moved {len(late)} files to {target}: the run is now at {step or 0}.'
    )


def command(argv: list[str]) -> str:
  """A command as typed in a shell, without the home directory.

  The script is relative to the repository if it is inside.
  """
  script, *words = argv or ['']
  if script.startswith('python -m '):
    # What moto_tf.__main__ makes of it.
    return ' '.join([script, *(map_path(_without_home, x) for x in words)])
  path = Path(script).resolve()
  if path.is_file() and path.is_relative_to(ROOT):
    script = str(path.relative_to(ROOT))
  words = [script, *words] if script else words
  return ' '.join(['python', *(map_path(_without_home, x) for x in words)])


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


def read_sessions(path: Path) -> list[dict] | None:
  """Sessions of a run, none without a file, None from a broken one."""
  if not path.exists():
    return []
  try:
    sessions = read_json(path)
  except (OSError, ValueError):
    return None
  fits = isinstance(sessions, list) and all(map(_is_session, sessions))
  return sessions if fits else None


def _is_session(value):
  """Whether it has the types of what `_session` makes, in any version."""
  if not isinstance(value, dict):
    return False
  try:
    shlex.split(value['command'])
    changes = value.get('changes', {}).values()
    datetime.datetime.fromisoformat(value.get('started', '2000-01-01'))
  except (AttributeError, KeyError, TypeError, ValueError):
    return False
  return (
    isinstance(value['command'], str)
    and isinstance(value.get('commit'), str | None)
    and isinstance(value.get('machine', {}), dict)
    and type(value.get('gradient_step', 0)) is int
    and all(isinstance(pair, list) and len(pair) == 2 for pair in changes)
  )


def map_path(change: Callable[[str], str], word: str) -> str:
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


def columns(rollouts: list[dict]) -> dict:
  """Episodes of an evaluation.

  Their seeds count up from the first; only where some are missing, because
  the episodes were lost, they are listed.
  """
  seeds = [x['seed'] for x in rollouts]
  gaps = seeds[-1] - seeds[0] >= len(seeds)
  names = [name for name in rollouts[0] if name != 'seed']
  found = {name: [float(x[name]) for x in rollouts] for name in names}
  whole = lambda x: int(x) if x.is_integer() else round(x, 4)
  return {
    'first_seed': seeds[0],
    **({'seeds': seeds} if gaps else {}),
    **{
      name: [whole(x) if math.isfinite(x) else None for x in values]
      for name, values in found.items()
    },
  }
