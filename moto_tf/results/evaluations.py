"""What a log directory says of success and return, by gradient step."""

from collections.abc import Collection, Iterator
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
  for content in of_command(logdir):
    rows, names = content['rollouts'], ('success', 'return')
    means = [np.mean([row[name] for row in rows]) for name in names]
    add(content['gradient_step'], *means, len(rows))
  return found


def of_command(
  logdir: Path, task: str = '', methods: Collection[str] = ()
) -> Iterator[dict]:
  """What the command evaluate found in its usual place, newest first.

  Of checkpoints of this run alone: one from elsewhere is no result of it. Those
  and broken ones are named and skipped.

  Args:
    task: that of the run, if it is to be checked.
    methods: what the run was called, its method and its variant, likewise. A
      run may get a variant later.
  """
  paths = (logdir / 'evaluation').glob('evaluation-*.json')
  for path in sorted(paths, reverse=True):
    try:
      content = read_json(path)
      _check(content)
      # Before 0.2 they did not name it.
      source = Path(content.get('checkpoint', ''))
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
      warn(f'{path} is no evaluation, skipped.')
      continue
    asked = {'task': [task] if task else [], 'method': methods}
    if any(x and content.get(k) not in (None, *x) for k, x in asked.items()):
      warn(f'{path} is of another task or method, skipped.')
    elif source.is_absolute():
      warn(f'{path} is of the checkpoint {source} outside the run, skipped.')
    else:
      yield content


def _check(content):
  """Raises ValueError or the like for what evaluate does not write."""
  if type(content['gradient_step']) is not int or not content['rollouts']:
    raise ValueError
  for row in content['rollouts']:
    names = {'seed', 'success', 'return'} <= row.keys()
    if not (names and all(row_files.is_number(x) for x in row.values())):
      raise ValueError
  ends = [content.get(k, 0.0) for k in ('success_low', 'success_high')]
  if not all(map(row_files.is_number, ends)):
    raise ValueError


def _column(values):
  """Numbers of a row, of which there are some."""
  column = np.array(values, np.float64)
  if not column.size or not np.isfinite(column).all():
    raise ValueError
  return column
