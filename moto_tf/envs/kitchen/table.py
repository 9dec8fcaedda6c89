"""Numbers of kitchen data beside those of the paper, which names no task."""

import numpy as np

from moto_tf.envs.kitchen.tasks import GOALS, parse_order

# The paper's data, C.2: episodes, transitions, mean return, objects per
# episode.
PAPER = (563, 128_569, 261.12, 3.98)


def compare(infos: dict) -> str:
  """A table for each dataset, of task to data.inspect.Info."""
  return '\n\n'.join(_table(task, info) for task, info in infos.items())


def equal_rewards(info) -> str:
  """What the comparison of stored and computed rewards of an import gave."""
  shares = info.record['equal_rewards']
  if not shares:
    return 'Rewards: there are none that could be compared.'
  parts = [f'kitchen_{task} {100 * x:.2f} %' for task, x in shares.items()]
  return f'Rewards: stored ones equal the computed ones in {", ".join(parts)}.'


def _table(task, info):
  count = len(info.lengths)
  placed = info.measures.get('placed', np.zeros((0, len(GOALS)), bool))
  steps = info.measures.get('object_steps', np.zeros(0))
  rows = [
    ('episodes', count, 0, PAPER[0]),
    ('transitions', info.lengths.sum(), 0, PAPER[1]),
    ('steps per episode', _mean(info.lengths), 1, f'{PAPER[1] / PAPER[0]:.1f}'),
    # Of targets: 3.98 objects in 228 steps would bring far more for all.
    ('mean return, targets', _mean(info.returns), 2, PAPER[2]),
    ('mean return, all objects', _mean(steps), 2, ''),
    ('objects per episode', _mean(placed.sum(1)), 2, PAPER[3]),
    ('share of full successes', _mean(info.successes), 3, ''),
  ]
  if order := parse_order(info.record.get('order', '')):
    index = [list(GOALS).index(name) for name in order]
    rows.append(('all of --order', _mean(placed[:, index].all(1)), 3, ''))
  for name, column in zip(GOALS, placed.T):
    rows.append((f'  {name}', _mean(column), 3, ''))
  lines = [f'{task:<26}{"ours":>12}{"paper":>12}']
  for name, value, digits, paper in rows:
    value = '-' if np.isnan(value) else f'{value:.{digits}f}'
    lines.append(f'{name:<26}{value:>12}{paper:>12}')
  return '\n'.join(lines)


def _mean(values):
  return np.mean(values) if len(values) else np.nan
