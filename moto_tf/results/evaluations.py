"""What a log directory says of success and return, by gradient step."""

from pathlib import Path

import numpy as np

from moto_tf.bounded import read_json
from moto_tf.errors import warn
from moto_tf.training import rows as row_files


def by_step(logdir: Path) -> dict[int, dict]:
  """Success rate, mean return and number of episodes of each evaluation.

  Those during training, and those of the command evaluate in its usual place.
  Of one step, the one of more episodes counts. Broken ones are named and
  skipped.
  """
  found = {}

  def add(step, success, returns, episodes):
    best = found.get(step)
    if best is None or episodes > best['episodes']:
      found[step] = {
        'success': float(success),
        'return': float(returns),
        'episodes': int(episodes),
      }

  path = logdir / 'evaluations.jsonl'
  rows, remarks = row_files.read(path) if path.exists() else ([], [])
  for remark in remarks:
    warn(f'{remark}; line skipped.')
  for row in rows:
    try:
      success, returns = (_column(row[k]) for k in ('success', 'return'))
      add(row['gradient_step'], success.mean(), returns.mean(), len(success))
    except (LookupError, TypeError, ValueError):
      warn(f'{path} has a row that is no evaluation; line skipped.')
  for path in sorted((logdir / 'evaluation').glob('evaluation-*.json')):
    try:
      content = read_json(path)
      # Of a file elsewhere, which is no checkpoint of this run.
      if not Path(content['checkpoint']).is_absolute():
        values = (content[k] for k in ('success', 'return', 'episodes'))
        values = [float(x) for x in values]
        add(int(content['gradient_step']), *values)
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
      warn(f'{path} is no evaluation, skipped.')
  return found


def _column(values):
  """Numbers of a row, of which there are some."""
  column = np.array(values, np.float64)
  if not column.size or not np.isfinite(column).all():
    raise ValueError
  return column
