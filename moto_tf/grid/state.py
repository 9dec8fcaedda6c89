"""What a run of a grid has done, read from its directory."""

import dataclasses

from moto_tf import ownership
from moto_tf.config import PATHS, is_read
from moto_tf.grid import GridError
from moto_tf.grid.spec import GridRun
from moto_tf.training import forecast, rows, rundir

# Rows whose pace counts.
RECENT = 20


@dataclasses.dataclass(frozen=True)
class RunState:
  """A moment of a run.

  Attributes:
    step, total: gradient steps logged so far, and in all.
    finished: it has nothing left to do.
    success: of the last evaluation, None before it.
    pace: seconds per gradient step lately, None where it is not known.
    seconds: that the run took so far.
    counters: of the newest checkpoint, {} without one.
  """

  step: int
  total: int
  finished: bool
  success: float | None
  pace: float | None
  seconds: float
  counters: dict


def read(run: GridRun) -> RunState:
  """State of a run; a new one where there is no directory."""
  config = run.config
  total = rundir.total_steps(config)
  said = forecast.open_checkpoints(config).meta()
  counters = said['counters'] if said else {}
  saved = counters.get('gradient_step', 0)
  finished = bool(said) and saved >= total and not said.get('unfinished')
  logged = _rows(run)
  last = logged[-1] if logged else {}
  successes = [
    x for row in logged if (x := row.get('eval/success')) is not None
  ]
  step = max(saved, last.get('gradient_step', 0))
  return RunState(
    step=min(step, total),
    total=total,
    finished=finished,
    success=successes[-1] if successes else None,
    pace=_pace(logged),
    seconds=last.get('time') or 0.0,
    counters=counters,
  )


def holder(run: GridRun) -> dict | None:
  """Process that has the directory of a run, see `ownership.holder`."""
  return ownership.holder(run.logdir)


def check_settings(run: GridRun) -> None:
  """Refuses a directory whose run was made with other settings.

  Raises:
    GridError: it was.
  """
  said = forecast.open_checkpoints(run.config).meta()
  if said is None:
    return
  before = rundir.recorded(run.logdir / 'config.yaml', said)
  if before is None:
    return
  free = {*PATHS, *rundir.NO_HPARAMS, 'variant'}
  method = run.config.method
  changed = {
    key: (before.flat.get(key), value)
    for key, value in run.config.flat.items()
    if key not in free
    and before.flat.get(key) != value
    and (before.method != method or is_read(run.config.flat, key))
  }
  if changed:
    parts = [
      f'{k} {old} there, {new} here' for k, (old, new) in changed.items()
    ]
    text = ', '.join(parts[:3]) + ', ...' * (len(parts) > 3)
    raise GridError(
      f'The run in {run.logdir} has other settings than the suite: {text}. '
      'Give the suite another --logdir, or the settings of that run.'
    )


def _rows(run):
  path = run.logdir / 'metrics.jsonl'
  try:
    return rows.read(path)[0]
  except OSError:
    return []


def _pace(logged):
  """From the last rows of one session, whose clock only goes on."""
  timed = [x for x in logged[-RECENT:] if x.get('time') is not None]
  if len(timed) < 2:
    return None
  steps = timed[-1]['gradient_step'] - timed[0]['gradient_step']
  seconds = timed[-1]['time'] - timed[0]['time']
  return seconds / steps if steps > 0 and seconds > 0 else None
