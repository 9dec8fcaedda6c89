"""The reward head against real rewards, after each image and without them."""

import numpy as np
import tensorflow as tf

from moto_tf.model.world_model import CONTEXT
from moto_tf.nn.tfutils import gumbel
from moto_tf.studies.common import fixed_seed, open_loop, pearson, show

KINDS = ('seen', 'imagined')
LEGEND = (
  'Seen: after every record. Imagined: from the first '
  f'{CONTEXT} and the actions alone.'
)
LEVELS = 10  # Of real rewards, at most.


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
  noise = gumbel([steps, 1, *rssm.shape], fixed_seed(5, number))
  start = {k: post[k][CONTEXT - 1 : CONTEXT] for k in ('deter', 'stoch')}
  feats = [post['feat'][:CONTEXT]]
  for state in open_loop(rssm, start, lambda k, _: action[k], members, noise):
    feats.append(rssm.get_feat(state))
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
