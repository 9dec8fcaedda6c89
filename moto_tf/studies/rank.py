"""Choosing a checkpoint without rollouts: what each expects, ranked.

From the first records of recorded episodes alone, without a simulator. Where
evaluations are on record, how well the ranking agrees with them.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from moto_tf import files, policy, rules
from moto_tf.errors import warn
from moto_tf.results import evaluations
from moto_tf.results.plotting import COLORS, STYLE, new_figure, save_figure
from moto_tf.studies import StudyError
from moto_tf.studies.common import LEGEND, show, spearman
from moto_tf.studies.context import Context, find_data, load_data
from moto_tf.studies.returns import (
  episode_length,
  first_states,
  first_values,
  model_rewards,
)
from moto_tf.training.checkpoint import CheckpointError, Checkpoints

# What is ranked by, and what it is.
SCORES = {
  'penalised': 'penalised return in the model',
  'return': 'return in the model, without penalty',
  'value': 'value by the critics',
}
MARKERS = 'osD^vP*X'


def rank(
  logdirs: Iterable[Path | str],
  by: str = 'penalised',
  data: Path | str | None = None,
  outdir: Path | str | None = None,
  force: bool = False,
) -> Path:
  """Ranks all checkpoints of runs; prints, and writes rank.json and rank.png.

  Args:
    logdirs: of the runs. What does not fit is named and left out.
    by: one of SCORES.
    data: directory of recorded episodes; by default each run's offline_data.
    outdir: by default `rank` in the first run's directory.
    force: replaces an earlier ranking.

  Returns:
    The directory that holds the results.

  Raises:
    StudyError: there is no such score, or nothing to rank.
    FileError: the results are there already, or cannot be written.
  """
  if by not in SCORES:
    raise StudyError(f'There is no score {by!r}; it is {", ".join(SCORES)}.')
  logdirs = [rules.expand(logdir) for logdir in logdirs]
  outdir = rules.expand(outdir) if outdir else logdirs[0] / 'rank'
  files.reserve(outdir / 'rank.json', force)
  rows = []
  for logdir in logdirs:
    rows += look_at_run(logdir, rules.expand(data) if data else None)
  if not rows:
    raise StudyError(
      'Nothing to rank: no checkpoint has a world model and critics that say '
      'what they predict; the lines above say what was left out.'
    )
  rows.sort(key=lambda row: -row[by])
  numbers = {'by': by, 'agreement': agreement(rows), 'checkpoints': rows}
  print(describe(numbers))
  print(f'Numbers: {files.write_json(outdir / "rank.json", numbers)}')
  path = save_figure(draw(numbers), outdir / 'rank.png')
  print(f'Figure: {path}')
  return outdir


def look_at_run(logdir: Path, data: Path | None) -> list[dict]:
  """A row of numbers for each checkpoint of a run."""
  known, rows, episodes = evaluations.by_step(logdir), [], None
  paths = Checkpoints(logdir / 'checkpoints', 1).paths()[::-1]
  if not paths:
    warn(f'{logdir / "checkpoints"} holds no checkpoint, left out.')
  for path in paths:
    try:
      agent, config, meta = policy.load_agent(logdir, path, False)
    except CheckpointError as error:
      # A run that is training deletes its older ones.
      warn(f'{path} is left out: {error}')
      continue
    context = Context(agent, config, meta, logdir)
    if missing := context.missing(('model', 'critics')):
      warn(f'{logdir} is left out: {missing}.')
      return []
    if episodes is None:
      directory = find_data(config, logdir, data)
      if directory is None:
        raise StudyError(
          f'{logdir} has no offline_data; name recorded episodes by --data DIR.'
        )
      episodes = load_data(agent, directory)
    step = meta['counters']['gradient_step']
    facts = {'task': config.task, 'method': config.name, 'seed': config.seed}
    row = {
      'logdir': str(logdir),
      **facts,
      'gradient_step': step,
      **expectations(agent, config, episodes),
      'success': known.get(step, {}).get('success'),
      'real_return': known.get(step, {}).get('return'),
      'episodes': known.get(step, {}).get('episodes'),
    }
    if not np.isfinite([row[score] for score in SCORES]).all():
      raise StudyError(
        f'{path} expects numbers that are nan or infinite: the agent has '
        'diverged. Move the file away to rank the others.'
      )
    rows.append(row)
  return rows


def expectations(agent, config, episodes: list[dict]) -> dict[str, float]:
  """The SCORES of an agent, as means over the first states of episodes.

  Returns are discounted sums over a whole episode in the model, of the policy
  as in evaluation. Values are what the critics expect of the same.
  """
  start = first_states(agent, episodes)
  length = episode_length(config, episodes)
  rewards, penalties = model_rewards(agent, config, start, length)
  discounts = config.discount ** np.arange(length)[:, None]
  total = lambda x: float((discounts * x).sum(0).mean())
  return {
    'penalised': total(rewards - penalties),
    'return': total(rewards),
    'value': float(first_values(agent, start).mean()),
  }


def agreement(rows: list[dict]) -> dict:
  """How well each score orders the checkpoints whose success is on record.

  Returns:
    Their number, the best and the mean of their success rates, and for each
    score the rank correlations with success and with the real return, and the
    success of its first choice, the mean of those where several share it.
  """
  rows = [row for row in rows if row['success'] is not None]
  success = np.array([row['success'] for row in rows])
  returns = np.array([row['real_return'] for row in rows])
  scores = {}
  for name in SCORES if rows else ():
    values = np.array([row[name] for row in rows])
    scores[name] = {
      'spearman': spearman(values, success),
      'spearman_return': spearman(values, returns),
      'chosen': float(success[values == values.max()].mean()),
    }
  return {
    'checkpoints': len(rows),
    'best': float(success.max()) if rows else None,
    'mean': float(success.mean()) if rows else None,
    'scores': scores,
  }


def describe(numbers: dict) -> str:
  """The checkpoints from the best to the worst, and the agreement."""
  rows, found = numbers['checkpoints'], numbers['agreement']
  several = len({row['logdir'] for row in rows}) > 1
  head = ('rank', 'step', *SCORES, 'success')
  lines = [''.join(f'{x:>11}' for x in head)]
  for place, row in enumerate(rows, 1):
    success = '-' if row['success'] is None else f'{row["success"]:.2f}'
    cells = (
      *(str(place), str(row['gradient_step'])),
      *(f'{row[score]:.2f}' for score in SCORES),
      success,
    )
    name = f'  {row["logdir"]}' if several else ''
    lines.append(''.join(f'{x:>11}' for x in cells) + name)
  if not found['checkpoints']:
    lines.append('No evaluation of these is on record to compare with.')
    return '\n'.join(lines)
  lines.append(
    f'Of {found["checkpoints"]} checkpoints the success is on record: best '
    f'{found["best"]:.2f}, mean {found["mean"]:.2f}.'
  )
  for name, label in SCORES.items():
    score = found['scores'][name]
    lines.append(
      f'  {name:<11}rank correlation {show(score["spearman"])} with success, '
      f'{show(score["spearman_return"])} with return; its first choice '
      f'succeeds in {score["chosen"]:.2f} ({label})'
    )
  return '\n'.join(lines)


def draw(numbers: dict) -> Figure:
  """Success over each score, a point per checkpoint and a marker per run.

  Args:
    numbers: of `rank`.
  """
  rows, found = numbers['checkpoints'], numbers['agreement']
  judged = [row for row in rows if row['success'] is not None]
  runs = list(dict.fromkeys(row['logdir'] for row in rows))
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 4.2)
    axes = fig.subplots(1, len(SCORES), sharey=True)
    for ax, (name, label) in zip(axes, SCORES.items(), strict=True):
      for i, run in enumerate(runs):
        own = [row for row in judged if row['logdir'] == run]
        points = [(row[name], row['success']) for row in own]
        style = {'ls': 'none', 'ms': 6, 'marker': MARKERS[i % len(MARKERS)]}
        first = next(row for row in rows if row['logdir'] == run)
        text = f'{first["method"]}, {first["task"]}, seed {first["seed"]}'
        x, y = np.reshape(points, (-1, 2)).T
        color = COLORS[i % len(COLORS)]
        ax.plot(x, y, color=color, label=text, mec='white', **style)
      ax.set_xlabel(f'{label[0].upper()}{label[1:]}', fontsize=9)
      ax.set_ylim(-0.04, 1.12)
      if judged:
        first = max(judged, key=lambda row: row[name])
        style = {'xytext': (-5, 7), 'textcoords': 'offset points'}
        style |= {'ha': 'right', 'fontsize': 8, 'color': '#444444'}
        text = f'first choice, step {first["gradient_step"]:,}'
        ax.annotate(text, (first[name], first['success']), **style)
      if name in found['scores']:
        text = show(found['scores'][name]['spearman'])
        ax.set_title(f'rank correlation {text}', fontsize=10)
    axes[0].set_ylabel('Success rate (evaluation)')
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc='outside upper center', ncols=3, **LEGEND)
  return fig
