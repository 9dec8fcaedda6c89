"""Critics against real episodes: are the values they predict the returns?"""

import numpy as np
import tensorflow as tf

from moto_tf.nn.tfutils import uniform
from moto_tf.studies.common import fixed_seed, pearson, show, spearman


def discounted_sum(
  reward: np.ndarray, discount: float, end: float = 0.0
) -> np.ndarray:
  """G[i] = sum_k discount^k reward[i + k] + discount^(T - i) end, [T]."""
  sums = np.zeros(len(reward))
  for i in reversed(range(len(reward))):
    sums[i] = end = float(reward[i]) + discount * end
  return sums


def episode_values(agent, config, episode: dict, post: dict) -> dict:
  """What the critics predict at every step of an episode, and what came.

      record      s[0]      s[1]      ...    s[T-1]    s[T]
      action           a[1]      a[2]             a[T]
      penalty          u[0]      u[1]            u[T-1]     of s[i], a[i+1]
      MOTO        min_j Q_j(s[i], a[i+1])  and
                    sum_k gamma^k (reward[i+1+k] - alpha u[i+k])
      DreamerV2   V(s[i])  and  sum_k gamma^k reward[i+k]

  Values include the penalty (Eq. 3), so the real ones must, too; the model
  says how large it is for what happened. Critics know no time limit. Where one
  has cut the episode, gamma^(T-i) times the value of s[T] goes on: for MOTO
  min_j Q_j(s[T], a) of the action a that the policy takes there, for DreamerV2
  V(s[T]), which includes reward[T]. Close to the end this is most of the sum,
  which then agrees by itself.

  Args:
    episode: arrays [T + 1, ...].
    post: its states, of `encode`.

  Returns:
    predicted, real, reward (the part of real that is rewards of this episode)
    and penalty (alpha u), [T] each.
  """
  value = lambda *x: tf.reduce_min(agent.behavior.critics(*x), 0).numpy()
  feat, reward, gamma = post['feat'], episode['reward'], config.discount
  penalty = np.zeros(len(reward) - 1)
  if config.behavior == 'dreamer':
    predicted, tail = np.split(value(feat), [-1])
    reward, end = reward[:-1], reward[-1]
  else:
    action = tf.convert_to_tensor(episode['action'][1:])
    noise = uniform([1, action.shape[1]], fixed_seed(2))
    predicted = value(feat[:-1], action)
    tail = value(feat[-1:], agent.act(feat[-1:], noise, 'eval'))
    reward, end = reward[1:], 0.0
    states = {k: post[k][:, None] for k in ('deter', 'stoch', 'feat')}
    penalty += config.alpha * agent.behavior.disagreement(states).numpy()[:, 0]
  rewards = discounted_sum(reward, gamma, end)
  if not episode['is_terminal'][-1]:
    end = float(tail[0])
  return {
    'predicted': predicted.astype(np.float64),
    'real': discounted_sum(reward - penalty, gamma, end),
    'reward': rewards,
    'penalty': penalty,
  }


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
