"""Figures of a diagnosis."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from moto_tf.model.world_model import CONTEXT
from moto_tf.results.curves import running_mean
from moto_tf.results.plotting import (
  COLORS,
  LABELS,
  STYLE,
  mark_online,
  new_figure,
)
from moto_tf.studies.common import show

# Color, marker and name of the episodes of a group.
GROUPS = {
  'successful': (COLORS[0], 'o', 'successful episodes'),
  'failed': (COLORS[1], '^', 'failed episodes'),
}
# Style and name of the kinds of actions; the policy often hides the recorded.
KINDS = {
  'recorded': ('-', 'recorded actions'),
  'policy': ('--', 'samples of the policy'),
  'random': ('-', 'uniform noise'),
  'negated': ('-', 'recorded actions, negated'),
}
VALUES = {
  'predicted': ('-', 'predicted'),
  'real': ('--', 'real, less penalties'),
  'reward': (':', 'rewards of the episode alone'),
}
# Color and name of rewards; real ones on top.
REWARDS = {
  'imagined': (COLORS[1], f'predicted from {CONTEXT} records and the actions'),
  'seen': (COLORS[0], 'predicted, every record seen'),
  'real': ('#444444', 'real'),
}
SMALL = {'fontsize': 9, 'frameon': False, 'columnspacing': 1.2}
WINDOW = 10  # Rows in the running mean over single episodes.


def calibration(points: dict, numbers: dict, text: str) -> Figure:
  """Predicted over real values, and both over the steps of an episode.

  Args:
    points, numbers: of critics.calibrate.
    text: below the panels.
  """
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 5.3)
    left, right = fig.subplots(1, 2)
    above = {'loc': 'lower left', 'bbox_to_anchor': (0, 1), **SMALL}
    ends = np.concatenate([points['real'], points['predicted']])
    ends = np.array([ends.min(), ends.max()])
    left.plot(ends, ends, color='#777777', lw=1, label='predicted = real')
    masks = {'successful': points['success'], 'failed': ~points['success']}
    for name, (color, marker, label) in GROUPS.items():
      mask = masks[name]
      if not mask.any():
        continue
      left.plot(
        points['real'][mask],
        points['predicted'][mask],
        marker,
        color=color,
        ms=3.5,
        mew=0,
        alpha=0.4,
        label=label,
      )
      _over_steps(right, numbers['steps'][name], color)
    left.set_xlabel('Real rewards less penalties, then the value at the limit')
    left.set_ylabel('Predicted by the critics')
    legend = left.legend(ncols=3, **above)
    for handle in legend.legend_handles:
      handle.set(alpha=1, markersize=6)
    right.set_xlabel('Agent step of the episode')
    right.set_ylabel('Mean over episodes')
    right.set_ylim(bottom=min(0, right.get_ylim()[0]))
    handles = [
      matplotlib.lines.Line2D([], [], color='#444444', ls=ls, label=label)
      for ls, label in VALUES.values()
    ]
    right.legend(handles=handles, ncols=3, **above)
    fig.supxlabel(text, fontsize=9.5)
  return fig


def reward(measured: dict) -> Figure:
  """Predicted over real rewards, and both over the steps of three episodes.

  Args:
    measured: by name of the episodes, what reward.measure_reward returns.
  """
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 0.6 + 2.7 * len(measured))
    rows = fig.subplots(len(measured), 4, squeeze=False)
    for row, name in zip(rows, measured, strict=True):
      numbers, episodes = measured[name]
      title = f'{name}: {numbers["episodes"]} episodes'
      row[0].set_title(title, fontsize=10, loc='left')
      _over_levels(row[0], numbers['levels'])
      for ax in row[1 + len(episodes) :]:
        ax.set_visible(False)
      for ax, episode in zip(row[1:], episodes, strict=False):
        for kind, (color, _) in REWARDS.items():
          ax.plot(episode[kind], color=color, lw=1.3)
        ax.set_xlabel('Agent step of the episode', fontsize=9)
    handles = [
      matplotlib.lines.Line2D([], [], color=color, label=label)
      for color, label in REWARDS.values()
    ]
    style = {'loc': 'outside upper center', 'frameon': False}
    fig.legend(handles=handles, ncols=len(handles), **style)
  return fig


def penalty(numbers: dict) -> Figure:
  """Disagreement over imagined steps by kind of action, and the error.

  Args:
    numbers: of penalty.measure_penalty.
  """
  with matplotlib.rc_context(STYLE):
    statistics, errors = numbers['statistics'], numbers['errors']
    fig = new_figure(11, 7.6)
    axes = list(fig.subplots(2, 2).flat)
    for ax, (name, kinds) in zip(axes, statistics.items(), strict=False):
      for color, (kind, found) in zip(COLORS, kinds.items(), strict=False):
        mean, std = np.array(found['mean']), np.array(found['std'])
        steps = np.arange(1, len(mean) + 1)
        style, label = KINDS[kind]
        ax.plot(steps, mean, style, color=color, label=label, lw=1.8)
        ax.fill_between(
          steps, mean - std, mean + std, color=color, alpha=0.13, lw=0
        )
      used = f', the penalty (alpha {numbers["alpha"]:g})'
      ax.set_title(name + used * (name == numbers['used']), fontsize=11)
      ax.set_ylabel('Disagreement')
      ax.set_ylim(bottom=0)
      ranks = [
        f'rank correlation with the error of {key}: {show(x["spearman"][name])}'
        '\nwith its excess over the posterior: '
        f'{show(x["spearman_excess"][name])}'
        for key, x in errors.items()
      ]
      place = {'x': 0.03, 'y': 0.04, 'transform': ax.transAxes}
      ax.text(s='\n'.join(ranks), **place, fontsize=9)
    for color, (key, found) in zip(COLORS, errors.items(), strict=False):
      steps = np.arange(1, len(found['mean']) + 1)
      label = f'{key}, imagined'
      axes[-1].plot(steps, found['mean'], color=color, lw=1.8, label=label)
      style = {'color': color, 'ls': '--', 'lw': 1.2}
      label = f'{key}, seen by the posterior'
      axes[-1].plot(steps, found['posterior'], label=label, **style)
    axes[-1].set_title('Real error under recorded actions', fontsize=11)
    axes[-1].set_ylabel('Mean squared error')
    axes[-1].set_ylim(bottom=0)
    axes[-1].legend(loc='best', **SMALL)
    for ax in axes:
      ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    fig.supxlabel(
      'Imagined steps (bands: standard deviation over '
      f'{numbers["states"]} states)',
      fontsize=10,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    style = {'loc': 'outside upper center', 'frameon': False}
    fig.legend(handles, labels, ncols=len(labels), **style)
  return fig


def training(found: dict) -> Figure:
  """Disagreement, penalty against reward, and success over training.

  Args:
    found: of training.training_curves.
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
          y = running_mean(y, WINDOW)
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
        ax.legend(ncols=2, **place, **SMALL)
    fig.supxlabel(LABELS['gradient_step'], fontsize=10)
  return fig


def _over_steps(ax, means, color):
  """Predicted and real values of a group at every agent step."""
  steps = np.arange(len(means['real']))
  for key, (style, _) in VALUES.items():
    ax.plot(steps, means[key], style, color=color, lw=1.8)


def _over_levels(ax, levels):
  """Mean and deviation of predicted rewards, beside the real ones."""
  real = np.array([level['reward'] for level in levels])
  ax.plot(real, real, '.-', color=REWARDS['real'][0], lw=1.3)
  # Side by side, so that no bar hides another.
  width = np.ptp(real) if len(real) > 1 else 2
  for side, kind in ((-1, 'seen'), (1, 'imagined')):
    means, stds = np.reshape([level[kind] for level in levels], (-1, 2)).T
    x, color = real + side * 0.015 * width, REWARDS[kind][0]
    ax.errorbar(x, means, stds, color=color, fmt='o', ms=4, lw=1.3)
  if len(real) == 1:
    ax.set_xlim(real[0] - 1, real[0] + 1)
  ax.set_xlabel('Real reward', fontsize=9)
  ax.set_ylabel('Predicted, mean and deviation', fontsize=9)
