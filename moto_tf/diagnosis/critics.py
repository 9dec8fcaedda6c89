"""Critics against real episodes: are the values they predict the returns?"""

import numpy as np
import tensorflow as tf

from ..tfutils import uniform
from .common import SEED, STATES, encode, fixed_seed, pearson, show, spearman


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
      MOTO        min_j Q_j(s[i], a[i+1])  and  sum_k gamma^k reward[i+1+k]
      DreamerV2   V(s[i])                  and  sum_k gamma^k reward[i+k]

  Critics know no time limit. Where one has cut the episode, gamma^(T-i) times
  the value of s[T] goes on: for MOTO min_j Q_j(s[T], a) of the action a that
  the policy takes there, for DreamerV2 V(s[T]), which includes reward[T].
  Close to the end this is most of the sum, which then agrees by itself.

  Args:
    episode: arrays [T + 1, ...].
    post: its states, of `encode`.

  Returns:
    predicted, real and real_cut (without what goes on), [T] each.
  """
  value = lambda *x: tf.reduce_min(agent.behavior.critics(*x), 0).numpy()
  feat, reward, gamma = post['feat'], episode['reward'], config.discount
  if config.behavior == 'dreamer':
    predicted, tail = np.split(value(feat), [-1])
    reward, end = reward[:-1], reward[-1]
  else:
    action = tf.convert_to_tensor(episode['action'][1:])
    noise = uniform([1, action.shape[1]], fixed_seed(2))
    predicted = value(feat[:-1], action)
    tail = value(feat[-1:], agent.act(feat[-1:], noise, 'eval'))
    reward, end = reward[1:], 0.0
  cut = discounted_sum(reward, gamma, end)
  real = cut
  if not episode['is_terminal'][-1]:
    real = discounted_sum(reward, gamma, float(tail[0]))
  return {
    'predicted': predicted.astype(np.float64),
    'real': real,
    'real_cut': cut,
  }


def calibrate(agent, config, rollouts: list[dict]) -> tuple[dict, dict]:
  """Compares the critics with the episodes of the policy.

  Returns:
    Numbers for JSON, and the points [P] they are made of: predicted, real,
    real_cut, step, left (steps to the end) and success.
  """
  points, states = [], []
  for number, episode in enumerate(rollouts):
    post = encode(agent, episode, number)
    values = episode_values(agent, config, episode, post)
    count = len(values['real'])
    success = np.full(count, bool(episode['success'].any()))
    step = np.arange(count)
    points.append(
      {**values, 'step': step, 'left': count - step, 'success': success}
    )
    states.append({k: post[k][:-1] for k in ('deter', 'stoch')})
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
    'penalty': None,
  }
  if hasattr(agent.behavior, 'disagreement'):
    numbers['penalty'] = _penalty_level(agent, config, states, points['left'])
  return numbers, points


def describe_calibration(numbers: dict) -> str:
  """The sentences that belong to the figure."""
  found = numbers['all']
  text = (
    f'{numbers["episodes"]} episodes, {numbers["successes"]} successful: '
    f'Pearson {show(found["pearson"])}, Spearman {show(found["spearman"])}, '
    f'mean error {found["error"]:+.1f} ({found["error_cut"]:+.1f} against '
    'rewards up to the time limit alone).'
  )
  if penalty := numbers['penalty']:
    text += (
      '\nThe penalty, -alpha * disagreement / (1 - gamma) = '
      f'-{penalty["alpha"]:g} * {penalty["disagreement"]:.3f} / '
      f'{1 - numbers["discount"]:.2g} = {penalty["level"]:.1f}, explains a '
      f'mean error of {penalty["error"]:+.1f}.'
    )
  return text


def _compare(points):
  """How well predictions agree with returns, over all points of a group."""
  count = len(points['real'])
  if not count:
    return {'states': 0}
  predicted, real, cut = (points[k] for k in ('predicted', 'real', 'real_cut'))
  error = predicted - real
  return {
    'states': count,
    'predicted': float(predicted.mean()),
    'real': float(real.mean()),
    'real_cut': float(cut.mean()),
    'pearson': pearson(predicted, real),
    'spearman': spearman(predicted, real),
    'error': float(error.mean()),
    'absolute_error': float(np.abs(error).mean()),
    'pearson_cut': pearson(predicted, cut),
    'spearman_cut': spearman(predicted, cut),
    'error_cut': float((predicted - cut).mean()),
  }


def _by_step(points):
  """Means over the episodes of a group, which may differ in length."""
  steps = np.unique(points['step'])
  masks = [points['step'] == step for step in steps]
  return {
    'episodes': [int(mask.sum()) for mask in masks],
    **{
      key: [float(points[key][mask].mean()) for mask in masks]
      for key in ('predicted', 'real', 'real_cut')
    },
  }


def _penalty_level(agent, config, states, left):
  """What the penalty of imagined steps takes off the values, on average.

  A constant u would take alpha * u / (1 - gamma) off all of them. Real returns
  go on with a value that it has lowered, too, so that of their distance it
  explains the part up to there: 1 - gamma^(T - i) of it.
  """
  states = {k: tf.concat([x[k] for x in states], 0) for k in states[0]}
  count = states['deter'].shape[0]
  order = np.random.default_rng(SEED).permutation(count)[:STATES]
  start = {k: tf.gather(v, np.sort(order)) for k, v in states.items()}
  seq = agent.model.imagine(
    agent.behavior.actor, start, config.horizon, fixed_seed(3)
  )
  mean = float(tf.reduce_mean(agent.behavior.disagreement(seq)))
  level = -config.alpha * mean / (1 - config.discount)
  return {
    'alpha': config.alpha,
    'disagreement': mean,
    'level': level,
    'error': level * float(np.mean(1 - config.discount**left)),
  }
