"""Does the model put together what its data never shows together (A.1)?

Figure 4 of the paper. For tasks whose reward counts the things in place, such
as the kitchen's. The model sees a successful episode until all but one are in
place, then only the actions that were taken next. Beside it, the policy is
rolled out in the model from the first record.
"""

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moto_tf.data import episodes as files
from moto_tf.results.plotting import COLORS, STYLE, new_figure
from moto_tf.studies import StudyError, StudyResult, StudySkipped
from moto_tf.studies.common import LEGEND, TRAINED
from moto_tf.studies.context import encode_together, find_data
from moto_tf.studies.penalty import imagine
from moto_tf.studies.returns import (
  episode_length,
  first_states,
  model_rewards,
)

ROLLOUTS = 32  # Of the policy in the model, at most.


def measure(context) -> StudyResult:
  """The study `composition` of a studies.context.Context.

  Raises:
    StudySkipped: nothing succeeds, or the reward does not count things.
  """
  agent, config = context.agent, context.config
  chosen, most = choose(context.experts)
  posts = encode_together(agent, chosen)
  found = [*map(dict, replay_actions(agent, chosen, posts, most))]
  begins = (context.recorded if context.data else []) or chosen
  start = first_states(agent, begins[:ROLLOUTS])
  steps = episode_length(config, chosen)
  rewards, _ = model_rewards(agent, config, start, steps)
  numbers = summarise(found, rewards, most)
  numbers['largest_in_data'] = largest_reward(context)
  numbers['policy_average'] = config.policy_average
  return StudyResult(
    numbers, describe(numbers), {'composition': draw(numbers, found, rewards)}
  )


def choose(experts: list[dict]) -> tuple[list[dict], int]:
  """The episodes that have everything in place, and how many things that is.

  Raises:
    StudySkipped: there are none, or rewards do not count.
  """
  if not experts:
    raise StudySkipped(
      'no recorded episode and none of the policy succeeds; name some that do '
      'by --data DIR'
    )
  rewards = np.concatenate([episode['reward'] for episode in experts])
  most = int(round(float(rewards.max())))
  if most < 2 or not np.allclose(rewards, np.round(rewards)):
    raise StudySkipped(
      "this task's reward does not count things in place, with whole numbers "
      'up to 2 or more; the study reward looks at predicted rewards of any task'
    )
  chosen = [e for e in experts if round(float(e['reward'].max())) == most]
  chosen = [e for e in chosen if standing(e, most) < len(e['reward']) - 1]
  if not chosen:
    raise StudySkipped('no action follows all but one being in place')
  return chosen, most


def standing(episode: dict, most: int) -> int:
  """The first record with all but one thing in place."""
  return int(np.argmax(episode['reward'] > most - 1.5))


def replay_actions(
  agent, episodes: list[dict], posts: list[dict], most: int
) -> list[dict]:
  """Predicted reward of every record, of the last ones by actions alone.

      record      0   1   ...   c   | c+1   ...   T
      predicted   posterior of each | prior, by the actions on record

  Args:
    posts: states of each episode, of `encode_together`.
    most: things in place at the end; c is the first record with all but one.

  Returns:
    For each episode c as `seen`, and `real` and `predicted`, [T + 1].
  """
  seen = [standing(episode, most) for episode in episodes]
  steps = max(len(e['reward']) - 1 - c for e, c in zip(episodes, seen))
  size = agent.act_space.shape[0]
  actions = np.zeros([steps, len(episodes), size], np.float32)
  for i, (episode, c) in enumerate(zip(episodes, seen, strict=True)):
    left = episode['action'][c + 1 :]
    actions[: len(left), i] = left
  start = {
    key: tf.stack([post[key][c] for post, c in zip(posts, seen, strict=True)])
    for key in ('deter', 'stoch')
  }
  _, feats = imagine(agent, start, tf.constant(actions), steps, names=())
  imagined = np.stack([agent.model.predict_reward(feat) for feat in feats])
  found = []
  for i, (episode, post, c) in enumerate(zip(episodes, posts, seen)):
    before = agent.model.predict_reward(post['feat'][: c + 1]).numpy()
    after = imagined[: len(episode['reward']) - 1 - c, i]
    predicted = np.concatenate([before, after]).astype(np.float64)
    real = episode['reward'].astype(np.float64)
    found.append({'seen': c, 'real': real, 'predicted': predicted})
  return found


def summarise(found: list[dict], rewards: np.ndarray, most: int) -> dict:
  """Numbers for JSON: means over episodes, at each step and at the end.

  Args:
    found: of `replay_actions`.
    rewards: of the policy in the model, [T, N].
  """
  last = lambda key: float(np.mean([x[key][-1] for x in found]))
  peak = lambda key: float(np.mean([x[key].max() for x in found]))
  after = {
    key: _means([x[key][x['seen'] :] for x in found])
    for key in ('predicted', 'real')
  }
  return {
    'things': most,
    'replayed': {
      'episodes': len(found),
      'seen': [x['seen'] for x in found],
      'final': last('predicted'),
      'final_real': last('real'),
      'largest': peak('predicted'),
      'finals': [float(x['predicted'][-1]) for x in found],
      'steps': after['predicted'],
      'steps_real': after['real'],
    },
    'policy': {
      'rollouts': rewards.shape[1],
      'final': float(rewards[-1].mean()),
      'largest': float(rewards.max(0).mean()),
      'finals': rewards[-1].tolist(),
      'steps': rewards.mean(1).tolist(),
    },
  }


def largest_reward(context) -> float | None:
  """Of the run's own offline data; None where there is none any more."""
  try:
    directory = find_data(context.config, context.logdir, None)
  except StudyError:
    return None
  largest = None
  for path in files.find_episodes(directory) if directory else ():
    episode = files.attempt(lambda path: files.load_episode(path, {}))(path)
    if isinstance(episode, dict):
      reward = float(episode['reward'].max())
      largest = reward if largest is None else max(largest, reward)
  return largest


def describe(numbers: dict) -> str:
  """The sentences that belong to the figure."""
  replayed, policy = numbers['replayed'], numbers['policy']
  data, share = numbers['largest_in_data'], numbers['policy_average']
  beside = '' if data is None else f' The largest of the data is {data:g}.'
  beside += TRAINED.format(share) if share else ''
  return (
    f'Seen until {numbers["things"] - 1} of {numbers["things"]} things stand, '
    f'then by the actions alone, {replayed["episodes"]} successful episodes '
    f'end at a predicted reward of {replayed["final"]:.2f}, really at '
    f'{replayed["final_real"]:.2f}. In the model, {policy["rollouts"]} '
    f'rollouts of the policy end at {policy["final"]:.2f}.{beside}'
  )


def draw(numbers: dict, found: list[dict], rewards: np.ndarray) -> Figure:
  """Predicted rewards: successful episodes left, the policy's right.

  Args:
    numbers: of `summarise`, with largest_in_data and policy_average.
    found, rewards: likewise.
  """
  with matplotlib.rc_context(STYLE):
    fig = new_figure(11, 4.4)
    left, right = fig.subplots(1, 2, sharey=True)
    thin = {'color': '#999999', 'lw': 0.7, 'alpha': 0.7}
    for episode in found:
      steps = np.arange(len(episode['real'])) - episode['seen']
      left.plot(steps, episode['predicted'], **thin)
    left.axvline(0, color='#777777', lw=1, ls=(0, (4, 2)))
    steps = np.arange(len(numbers['replayed']['steps']))
    for key, style, label in (
      ('steps_real', {'color': '#000000', 'ls': '--'}, 'real, mean'),
      ('steps', {'color': COLORS[0]}, 'predicted by the actions, mean'),
    ):
      left.plot(steps, numbers['replayed'][key], lw=2, label=label, **style)
    left.plot([], [], label='predicted, each episode', **thin)
    left.set_xlabel('Agent steps since all but one stand')
    left.set_ylabel('Reward')
    steps = np.arange(1, len(rewards) + 1)
    right.plot(steps, rewards, **thin)
    mean = numbers['policy']['steps']
    right.plot(steps, mean, color=COLORS[0], lw=2, label='policy in the model')
    right.plot([], [], label='each rollout', **thin)
    right.set_xlabel('Agent step in the model')
    data = numbers['largest_in_data']
    for ax in (left, right):
      if data is not None:
        style = {'color': '#000000', 'lw': 1.2, 'ls': ':'}
        ax.axhline(data, label='largest of the data', **style)
      above = {'loc': 'lower left', 'bbox_to_anchor': (0, 1), **LEGEND}
      ax.legend(ncols=2, **above)
    fig.supxlabel(describe(numbers), fontsize=9, wrap=True)
  return fig


def _means(parts):
  """Mean at each step over the parts that have it."""
  longest = max(map(len, parts))
  rows = ([x[t] for x in parts if t < len(x)] for t in range(longest))
  return [float(np.mean(row)) for row in rows]
