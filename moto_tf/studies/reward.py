"""The reward head against real rewards, after each image and without them."""

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moto_tf.model.world_model import CONTEXT
from moto_tf.results.plotting import COLORS, STYLE, new_figure
from moto_tf.studies import StudyResult
from moto_tf.studies.common import fixed_seed, pearson, show

KINDS = ('seen', 'imagined')
LEGEND = (
  'Seen: after every record. Imagined: from the first '
  f'{CONTEXT} and the actions alone.'
)
LEVELS = 10  # Of real rewards, at most.
# Color and name of rewards; real ones on top.
REWARDS = {
  'imagined': (COLORS[1], f'predicted from {CONTEXT} records and the actions'),
  'seen': (COLORS[0], 'predicted, every record seen'),
  'real': ('#444444', 'real'),
}


def measure(context) -> StudyResult:
  """The study `reward` of a studies.context.Context.

  On episodes of the policy, and on recorded ones where there are any.
  """
  groups = {'policy': (context.rollouts, context.rollout_posts)}
  if context.recorded:
    groups['recorded'] = (context.recorded, context.recorded_posts)
  measured = {k: measure_reward(context.agent, *v) for k, v in groups.items()}
  numbers = {name: found for name, (found, _) in measured.items()}
  lines = [f'\nReward by the model. {LEGEND}']
  for name, found in numbers.items():
    lines.append(f'{name.capitalize()} episodes:\n{reward_table(found)}')
  return StudyResult(numbers, '\n'.join(lines), {'reward': draw(measured)})


def predict_rewards(agent, episode: dict, post: dict, number: int) -> dict:
  """Reward of every record of an episode, predicted in two ways.

      record     0 1 2 3 4 | 5 6 7 ... T
      seen       posterior of every record
      imagined   posterior | one prior member per step, by the actions alone

  Args:
    episode: arrays [T + 1, ...].
    post: its states, of `encode`.
    number: of the episode, the seed of its samples.

  Returns:
    real, seen and imagined, [T + 1] each.
  """
  model, rssm = agent.model, agent.model.rssm
  # As rows of one lane, [1, A].
  action = tf.convert_to_tensor(episode['action'][CONTEXT:])[:, None]
  steps = action.shape[0]
  members = rssm.draw_members(steps, fixed_seed(4, number))
  noise = rssm.latent.noise([steps, 1], fixed_seed(5, number))
  start = {k: post[k][CONTEXT - 1 : CONTEXT] for k in ('deter', 'stoch')}
  states = rssm.imagine(start, lambda k, _: action[k], members, noise)[1:]
  feats = [post['feat'][:CONTEXT], *(rssm.get_feat(s) for s in states)]
  found = {
    'real': episode['reward'],
    'seen': model.predict_reward(post['feat']),
    'imagined': model.predict_reward(tf.concat(feats, 0)),
  }
  return {k: np.array(v, np.float64) for k, v in found.items()}


def measure_reward(
  agent, episodes: list[dict], posts: list[dict]
) -> tuple[dict, list[dict]]:
  """Compares predicted with real rewards of all episodes.

  The first records, which `imagined` has seen, too, do not count.

  Args:
    posts: states of each episode, of `encode_all`.

  Returns:
    Numbers for JSON: of `seen` and `imagined` pearson and the mean absolute
    error; `levels`, by real reward, with the number of records and mean and std
    of both. And what `predict_rewards` gives per episode.
  """
  pairs = enumerate(zip(episodes, posts, strict=True))
  found = [predict_rewards(agent, *pair, i) for i, pair in pairs]
  points = {
    k: np.concatenate([x[k][CONTEXT:] for x in found]) for k in found[0]
  }
  numbers = {'episodes': len(episodes), 'records': len(points['real'])}
  for kind in KINDS:
    error = np.abs(points[kind] - points['real'])
    numbers[kind] = {
      'pearson': pearson(points[kind], points['real']),
      'absolute_error': float(error.mean()) if len(error) else None,
    }
  masks = split_levels(points['real'])
  numbers['levels'] = [
    {
      'reward': float(points['real'][mask].mean()),
      'records': int(mask.sum()),
      **{
        kind: [
          float(points[kind][mask].mean()),
          float(points[kind][mask].std()),
        ]
        for kind in KINDS
      },
    }
    for mask in masks
  ]
  return numbers, found


def split_levels(real: np.ndarray) -> list[np.ndarray]:
  """Masks of equal rewards [N], or of ranges where there are many values."""
  values = np.unique(real)
  if len(values) > LEVELS:
    ends = np.linspace(values[0], values[-1], LEVELS + 1)[1:-1]
    real = np.digitize(real, ends)
    values = np.unique(real)
  return [real == value for value in values]


def reward_table(numbers: dict) -> str:
  """Predicted reward by real reward, and how they agree."""
  if not numbers['records']:
    return f'No episode has more than the {CONTEXT} records that do not count.'
  lines = [f'{"real":>8}{"records":>10}{"seen":>18}{"imagined":>18}']
  for level in numbers['levels']:
    cells = ''.join(
      f'{f"{mean:.2f} +- {std:.2f}":>18}'
      for mean, std in (level[kind] for kind in KINDS)
    )
    lines.append(f'{level["reward"]:>8.2f}{level["records"]:>10}{cells}')
  lines += [f'{kind}: {describe_reward(numbers[kind])}' for kind in KINDS]
  return '\n'.join(lines)


def describe_reward(found: dict) -> str:
  """Agreement of one kind of prediction, in words."""
  return (
    f'Pearson {show(found["pearson"])}, mean absolute error '
    f'{found["absolute_error"]:.2f}'
  )


def draw(measured: dict) -> Figure:
  """Predicted over real rewards, and both over the steps of three episodes.

  Args:
    measured: by name of the episodes, what `measure_reward` returns.
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
