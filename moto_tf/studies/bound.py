"""Is the gap in return bounded by the uncertainty along experts (paper B)?

Figure 6 of the paper: at every milestone of a run, Eq. 12 over the states of
successful episodes, against what the policy then returns less than they do.
"""

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moto_tf import policy
from moto_tf.data.episodes import episode_return
from moto_tf.errors import warn
from moto_tf.results import evaluations
from moto_tf.results.plotting import COLORS, STYLE, new_figure
from moto_tf.studies import StudyResult, StudySkipped
from moto_tf.studies.common import (
  LEGEND,
  TRAINED,
  pearson,
  show,
  spearman,
)
from moto_tf.studies.context import encode_together
from moto_tf.studies.penalty import imagine
from moto_tf.studies.returns import (
  episode_length,
  first_states,
  model_rewards,
)
from moto_tf.training.checkpoint import (
  CheckpointError,
  Checkpoints,
  is_milestone,
)

CHUNK = 512  # Starts at a time.
PAPER = 'logit_std'  # Its statistic.
# Gaps by name, and what they are.
GAPS = {
  'gap': "experts' return less the policy's",
  'model_gap': "policy's return in the model less the real one",
}


def measure(context) -> StudyResult:
  """The study `bound` of a studies.context.Context.

  Raises:
    StudySkipped: fewer than two milestones can be used, nothing succeeds, or
      episodes are shorter than the horizon.
  """
  paths = milestones(context.logdir)
  if len(paths) < 2:
    raise StudySkipped(
      f'{context.logdir / "checkpoints"} has {len(paths)} milestones, and a '
      'relation takes two or more; train with --checkpoint_milestones 1000, '
      'or another number of gradient steps between them'
    )
  experts, steps = context.experts, context.config.horizon
  experts = [e for e in experts if len(e['reward']) > steps]
  if not experts:
    raise StudySkipped(
      f'no successful episode, recorded or of the policy, has the {steps} '
      'transitions of a rollout; name some by --data DIR'
    )
  known = evaluations.by_step(context.logdir)
  rows = []
  for path in paths:
    try:
      rows.append(look_at(context, path, experts, known))
    except CheckpointError as error:
      warn(f'{path} is left out: {error}')
  if len(rows) < 2:
    raise StudySkipped(
      f'{len(rows)} of {len(paths)} milestones can be used, and a relation '
      'takes two or more'
    )
  used = getattr(context.agent.behavior, 'penalty', None)
  numbers = {
    'experts': len(experts),
    'expert_return': expert_return(experts),
    'horizon': steps,
    'policy_average': context.config.policy_average,
    'used': used[0] if used else next(iter(rows[0]['uncertainty'])),
    'checkpoints': rows,
    'relations': relate(rows),
  }
  return StudyResult(numbers, describe(numbers), {'bound': draw(numbers)})


def milestones(logdir: Path) -> list[Path]:
  """Files of a run's milestones, from the first one on."""
  paths = Checkpoints(logdir / 'checkpoints', 1).paths()
  return [path for path in paths if is_milestone(path)][::-1]


def expert_return(experts: list[dict]) -> float:
  """Mean return of episodes, undiscounted."""
  return float(np.mean([episode_return(episode) for episode in experts]))


def uncertainty(
  agent, experts: list[dict], posts: list[dict], steps: int
) -> dict[str, float]:
  """Eq. 12: mean disagreement under the experts' actions, from all starts.

      eps_u = 1 / (H (T - H)) sum_j sum_t u(s_j^t, a_j^t)

  where s_j^0 is the posterior state of record j = 0..T-H, and s_j^t follows
  from it in the prior under the actions on record. (The paper's T counts
  records; the mean is over all starts that H actions follow.)

  Args:
    experts: episodes of `steps` transitions or more.
    posts: states of each, of `encode_together`.
    steps: H.

  Returns:
    By statistic of Eq. 2.
  """
  starts = {'deter': [], 'stoch': []}
  actions = []
  for episode, post in zip(experts, posts, strict=True):
    count = len(episode['reward']) - steps
    for key, parts in starts.items():
      parts.append(post[key][:count])
    follow = [episode['action'][t : t + count] for t in range(1, steps + 1)]
    actions.append(np.stack(follow))
  starts = {key: tf.concat(parts, 0) for key, parts in starts.items()}
  actions = np.concatenate(actions, 1)
  total, count = {}, actions.shape[1]
  for number, first in enumerate(range(0, count, CHUNK)):
    part = slice(first, first + CHUNK)
    start = {key: value[part] for key, value in starts.items()}
    taken = tf.constant(actions[:, part])
    found, _ = imagine(agent, start, taken, steps, number=number)
    for name, values in found.items():
      total[name] = total.get(name, 0.0) + float(values.sum())
  return {name: value / (steps * count) for name, value in total.items()}


def look_at(
  context, path: Path, experts: list[dict], known: dict[int, dict]
) -> dict:
  """Uncertainty and returns of one checkpoint.

  Args:
    known: evaluations by gradient step; where there is none, the policy is
      rolled out.
  """
  agent, config, meta = policy.load_agent(context.logdir, path, False)
  step = meta['counters']['gradient_step']
  start = first_states(agent, experts)
  length = episode_length(config, experts)
  rewards, _ = model_rewards(agent, config, start, length)
  real = known.get(step)
  if real is None:
    changed = {'agent': agent, 'config': config, 'meta': meta}
    rollouts = dataclasses.replace(context, **changed).rollouts
    real = {
      'return': expert_return(rollouts),
      'success': float(np.mean([e['success'].any() for e in rollouts])),
      'episodes': len(rollouts),
    }
  found = {
    'gradient_step': step,
    'phase': 'offline' if step <= config.offline_steps else 'online',
    'uncertainty': uncertainty(
      agent, experts, encode_together(agent, experts), config.horizon
    ),
    'return': real['return'],
    'success': real['success'],
    'episodes': real['episodes'],
    'model_return': float(rewards.sum(0).mean()),
  }
  found['gap'] = expert_return(experts) - found['return']
  found['model_gap'] = found['model_return'] - found['return']
  print(f'{path.name}: return {found["return"]:.1f}')
  return found


def relate(rows: list[dict]) -> dict:
  """How gaps and uncertainty go together, by gap and statistic.

  Returns:
    pearson and spearman over checkpoints, and the smallest scale: that c of
    which c * eps_u >= gap at every checkpoint, at least 0 (2 alpha in Eq. 11);
    None where the uncertainty is 0.
  """
  relations = {}
  for gap in GAPS:
    y = np.array([row[gap] for row in rows])
    relations[gap] = {}
    for name in rows[0]['uncertainty']:
      x = np.array([row['uncertainty'][name] for row in rows])
      scale = max(0.0, float((y / x).max())) if x.min() > 0 else None
      relations[gap][name] = {
        'pearson': pearson(x, y),
        'spearman': spearman(x, y),
        'scale': scale,
      }
  return relations


def describe(numbers: dict) -> str:
  """A row per checkpoint, and the relations."""
  used, share = numbers['used'], numbers['policy_average']
  average = TRAINED.format(share) if share else ''
  head = ('step', 'uncertainty', 'return', 'in the model', 'success', 'gap')
  lines = [
    f'{numbers["experts"]} successful episodes, which return '
    f'{numbers["expert_return"]:.1f}; uncertainty is {used}, of Eq. 12 with '
    f'H = {numbers["horizon"]}.{average}',
    ''.join(f'{x:>14}' for x in head),
  ]
  for row in numbers['checkpoints']:
    cells = [
      f'{row["gradient_step"]}',
      f'{row["uncertainty"][used]:.4f}',
      f'{row["return"]:.1f}',
      f'{row["model_return"]:.1f}',
      f'{row["success"]:.2f}',
      f'{row["gap"]:.1f}',
    ]
    lines.append(''.join(f'{x:>14}' for x in cells))
  for gap, label in GAPS.items():
    lines.append(f'{label[0].upper()}{label[1:]}:')
    for name, found in numbers['relations'][gap].items():
      lines.append(f'  {name:<16}{_relation(found)}')
  return '\n'.join(lines)


def draw(numbers: dict) -> Figure:
  """Both gaps over the uncertainty, a point per checkpoint, with the bound.

  The first row has the statistic that is the penalty, and where that is another
  one, the second row has that of the paper.

  Args:
    numbers: of `measure`.
  """
  known = numbers['checkpoints'][0]['uncertainty']
  names = [x for x in dict.fromkeys((numbers['used'], PAPER)) if x in known]
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 4.8 * len(names))
    grid = fig.subplots(len(names), len(GAPS), squeeze=False)
    for row, name in zip(grid, names, strict=True):
      for ax, gap in zip(row, GAPS, strict=True):
        _draw_gap(ax, numbers, gap, name)
  return fig


def _draw_gap(ax, numbers, gap, name):
  """A gap over a statistic."""
  rows, label = numbers['checkpoints'], GAPS[gap]
  x = np.array([row['uncertainty'][name] for row in rows])
  y = np.array([row[gap] for row in rows])
  ax.plot(x, y, '-', color='#BBBBBB', lw=0.8, zorder=1)
  offline = np.array([row['phase'] == 'offline' for row in rows])
  for mask, marker, color, phase in (
    (offline, 's', COLORS[1], 'offline'),
    (~offline, 'o', COLORS[0], 'online'),
  ):
    if mask.any():
      style = {'ms': 6, 'mfc': 'white' if phase == 'offline' else color}
      ax.plot(x[mask], y[mask], marker, color=color, label=phase, **style)
  # The first, the last, and where offline training ends.
  for i in sorted({0, max(0, int(offline.sum()) - 1), len(rows) - 1}):
    text = f'step {rows[i]["gradient_step"]:,}'
    style = {'xytext': (6, 5), 'textcoords': 'offset points'}
    ax.annotate(text, (x[i], y[i]), fontsize=8, color='#444444', **style)
  found = numbers['relations'][gap][name]
  if found['scale'] is not None:
    ends = np.array([0, x.max() * 1.05])
    text = f'{found["scale"]:.4g} times the uncertainty'
    ax.plot(ends, found['scale'] * ends, 'k--', lw=1.3, label=text)
  ax.set_xlim(0, x.max() * 1.2)
  ax.set_title(f'{label[0].upper()}{label[1:]}', fontsize=10, pad=24)
  text = f'Uncertainty along experts, Eq. 12 ({name})'
  ax.set_xlabel(f'{text}\n{_correlations(found)}')
  ax.set_ylabel('Difference in return')
  above = {'loc': 'lower left', 'bbox_to_anchor': (0, 1), **LEGEND}
  ax.legend(ncols=3, **above)


def _relation(found):
  scale = 'none' if found['scale'] is None else f'{found["scale"]:.4g}'
  return f'{_correlations(found)}, smallest scale that bounds {scale}'


def _correlations(found):
  return f'Pearson {show(found["pearson"])}, Spearman {show(found["spearman"])}'
