"""Disagreement, penalty and success over training, from metrics.jsonl."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from moto_tf.results import curves, statistics
from moto_tf.results.plotting import (
  COLORS,
  LABELS,
  STYLE,
  mark_online,
  new_figure,
)
from moto_tf.studies import StudyResult, StudySkipped
from moto_tf.studies.common import LEGEND

METRICS = (
  'train/imag_disagreement',
  'train/imag_penalty',
  'train/imag_reward_raw',
  'episode/success',
  'eval/success',
)
WINDOW = 10  # Rows in the running mean over single episodes.


def measure(context) -> StudyResult:
  """The study `training` of a studies.context.Context.

  Raises:
    StudySkipped: metrics.jsonl has none of METRICS.
  """
  rows, wanted = context.logdir / 'metrics.jsonl', METRICS[0]
  found = training_curves(context.logdir)
  reason = f'{rows} has no values of {wanted}'
  if not found or not found['curves']:
    raise StudySkipped(reason)
  if wanted not in found['curves']:
    # Of a method without penalty, whose success is in the numbers.
    return StudyResult(found['phases'], f'No disagreement.png: {reason}.')
  return StudyResult(found['phases'], '', {'disagreement': draw(found)})


def training_curves(logdir: Path) -> dict | None:
  """Disagreement, penalty, reward and success over gradient steps.

  Returns:
    `curves` by metric as (x [N], y [N]), `online_start` (the last step of
    pre-training, or None), and `phases` with the mean of the last tenth of
    each phase. None, with a warning, without rows.
  """
  run = curves.load_run(logdir)
  if run is None:
    return None
  offline = [r['gradient_step'] for r in run.rows if r['phase'] == 'offline']
  found = {m: curves.curve(run, m, 'gradient_step') for m in METRICS}
  found = {m: xy for m, xy in found.items() if len(xy[0])}
  start = max(offline, default=None)
  phases = {}
  for metric, (x, y) in found.items():
    before = x <= (-np.inf if start is None else start)
    for name, part in (('offline', y[before]), ('online', y[~before])):
      if len(part):
        last = part[-max(1, len(part) // 10) :]
        phases.setdefault(metric, {})[name] = float(last.mean())
  return {'curves': found, 'online_start': start, 'phases': phases}


def draw(found: dict) -> Figure:
  """Disagreement, penalty against reward, and success over training.

  Args:
    found: of `training_curves`.
  """
  panels = {
    'Disagreement in imagination': {
      'train/imag_disagreement': 'disagreement',
    },
    'Mean per imagined step': {
      'train/imag_reward_raw': 'predicted reward',
      'train/imag_penalty': 'penalty',
    },
    'Success rate': {
      'episode/success': 'training, running mean',
      'eval/success': 'evaluation',
    },
  }
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 3.9)
    starts = [found['online_start']] if found['online_start'] else []
    axes = fig.subplots(1, 3, sharex=True)
    for ax, (title, metrics) in zip(axes, panels.items(), strict=True):
      for color, (metric, label) in zip(COLORS, metrics.items(), strict=False):
        if metric not in found['curves']:
          continue
        x, y = found['curves'][metric]
        marker = None
        if metric == 'episode/success':
          y = statistics.running_mean(y, WINDOW)
        elif metric == 'eval/success':
          marker = 'o'
        ax.plot(x, y, color=color, lw=1.6, marker=marker, ms=5, label=label)
      ax.set_title(title, fontsize=11)
      # With room for the name of the line.
      low, high = ax.get_ylim()
      ax.set_ylim(min(0, low), high + 0.3 * (high - low))
      if title == 'Success rate':
        ax.set_ylim(-0.04, 1.3)
        ax.set_yticks(np.linspace(0, 1, 6))
      ax.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
      mark_online(ax, starts)
      if len(metrics) > 1 and ax.get_legend_handles_labels()[0]:
        place = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.08)}
        ax.legend(ncols=2, **place, **LEGEND)
    fig.supxlabel(LABELS['gradient_step'], fontsize=10)
  return fig
