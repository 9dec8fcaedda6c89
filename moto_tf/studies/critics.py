"""Critics against real episodes: are the values they predict the returns?"""

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moto_tf.agents.assessment import compare_values
from moto_tf.nn.tfutils import uniform
from moto_tf.results.plotting import COLORS, STYLE, new_figure
from moto_tf.studies import StudyResult
from moto_tf.studies.common import LEGEND, fixed_seed, pearson, show, spearman

# Color, marker and name of the episodes of a group.
GROUPS = {
  'successful': (COLORS[0], 'o', 'successful episodes'),
  'failed': (COLORS[1], '^', 'failed episodes'),
}
VALUES = {
  'predicted': ('-', 'predicted'),
  'real': ('--', 'real, less penalties'),
  'reward': (':', 'rewards of the episode alone'),
}


def measure(context) -> StudyResult:
  """The study `critics` of a studies.context.Context."""
  numbers, points = calibrate(
    context.agent, context.config, context.rollouts, context.rollout_posts
  )
  text = describe_calibration(numbers)
  return StudyResult(
    numbers,
    f'Predicted against real values: {text}',
    {'q_calibration': draw(points, numbers, text)},
  )


def episode_values(agent, config, episode: dict, post: dict) -> dict:
  """What the critics predict at every step of an episode, and what came.

  The agent's behavior says what its critics predict, and of which rewards
  (`predict_values`).

  Args:
    episode: arrays [T + 1, ...].
    post: its states, of `encode`.

  Returns:
    As `compare_values`.
  """
  alone = lambda x: {k: tf.convert_to_tensor(v)[:, None] for k, v in x}
  post = alone(post.items())
  records = alone((k, episode[k]) for k in ('action', 'reward'))
  noise = uniform(records['action'].shape.as_list(), fixed_seed(2))
  last = agent.act(post['feat'], noise, 'eval')
  found = agent.behavior.predict_values(post, records, last)
  return compare_values(found, 0, episode, config.discount)


def calibrate(
  agent, config, rollouts: list[dict], posts: list[dict]
) -> tuple[dict, dict]:
  """Compares the critics with the episodes of the policy.

  Args:
    posts: states of each episode, of `encode_all`.

  Returns:
    Numbers for JSON, and the points [P] they are made of: those of
    `episode_values`, step and success.
  """
  points = []
  for episode, post in zip(rollouts, posts, strict=True):
    values = episode_values(agent, config, episode, post)
    count = len(values['real'])
    success = np.full(count, bool(episode['success'].any()))
    points.append({**values, 'step': np.arange(count), 'success': success})
  points = {k: np.concatenate([x[k] for x in points]) for k in points[0]}
  groups = {
    'all': np.ones(len(points['step']), bool),
    'successful': points['success'],
    'failed': ~points['success'],
  }
  groups = {
    name: {k: v[mask] for k, v in points.items()}
    for name, mask in groups.items()
  }
  numbers = {
    'episodes': len(rollouts),
    'successes': sum(bool(e['success'].any()) for e in rollouts),
    'discount': config.discount,
    **{name: _compare(group) for name, group in groups.items()},
    'steps': {k: _by_step(groups[k]) for k in ('successful', 'failed')},
  }
  return numbers, points


def describe_calibration(numbers: dict) -> str:
  """The sentences that belong to the figure."""
  found = numbers['all']
  return (
    f'{numbers["episodes"]} episodes, {numbers["successes"]} successful: '
    f'Pearson {show(found["pearson"])}, Spearman {show(found["spearman"])}, '
    f'mean error {found["error"]:+.1f}. Against the rewards alone: Pearson '
    f'{show(found["pearson_reward"])}, mean error {found["error_reward"]:+.1f}.'
  )


def draw(points: dict, numbers: dict, text: str) -> Figure:
  """Predicted over real values, and both over the steps of an episode.

  Args:
    points, numbers: of `calibrate`.
    text: below the panels.
  """
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 5.3)
    left, right = fig.subplots(1, 2)
    above = {'loc': 'lower left', 'bbox_to_anchor': (0, 1), **LEGEND}
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


def _compare(points):
  """How well predictions agree with returns, over all points of a group."""
  count = len(points['real'])
  if not count:
    return {'states': 0}
  predicted, real, reward = (points[k] for k in ('predicted', 'real', 'reward'))
  error = predicted - real
  return {
    'states': count,
    'predicted': float(predicted.mean()),
    'real': float(real.mean()),
    'reward': float(reward.mean()),
    'penalty': float(points['penalty'].mean()),
    'pearson': pearson(predicted, real),
    'spearman': spearman(predicted, real),
    'error': float(error.mean()),
    'absolute_error': float(np.abs(error).mean()),
    'pearson_reward': pearson(predicted, reward),
    'spearman_reward': spearman(predicted, reward),
    'error_reward': float((predicted - reward).mean()),
  }


def _by_step(points):
  """Means over the episodes of a group, which may differ in length."""
  steps = np.unique(points['step'])
  masks = [points['step'] == step for step in steps]
  return {
    'episodes': [int(mask.sum()) for mask in masks],
    **{
      key: [float(points[key][mask].mean()) for mask in masks]
      for key in ('predicted', 'real', 'reward')
    },
  }


def _over_steps(ax, means, color):
  """Predicted and real values of a group at every agent step."""
  steps = np.arange(len(means['real']))
  for key, (style, _) in VALUES.items():
    ax.plot(steps, means[key], style, color=color, lw=1.8)
