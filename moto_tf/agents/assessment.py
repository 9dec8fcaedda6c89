"""What an agent expects against what comes: values, and the penalty."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from moto_tf.agents.actor_critic import EpisodeValues
from moto_tf.model.rssm import EnsembleRSSM
from moto_tf.nn.tfutils import split

WINDOW = 16  # Records at a time: a whole episode takes a minute to trace.


def discounted_sum(
  reward: np.ndarray, discount: float, end: float = 0.0
) -> np.ndarray:
  """G[i] = sum_k discount^k reward[i + k] + discount^(T - i) end, [T]."""
  sums = np.zeros(len(reward))
  for i in reversed(range(len(reward))):
    sums[i] = end = float(reward[i]) + discount * end
  return sums


def compare_values(
  found: EpisodeValues, lane: int, episode: dict, discount: float
) -> dict[str, np.ndarray]:
  """What the critics predict at every step of an episode, and what came.

  Values include the penalty (Eq. 3), so the real ones must, too; the model says
  how large it is for what happened. Critics know no time limit: where one has
  cut the episode, gamma^(T-i) times the value of s[T] goes on. Close to the end
  this is most of the sum, which then agrees by itself.

  Args:
    found: of T transitions or more.
    lane: the episode's place in `found`.
    episode: arrays [T + 1, ...].
    discount: gamma.

  Returns:
    predicted, real, reward (the part of real that is rewards of this episode)
    and penalty (alpha u), [T] each.
  """
  count = len(episode['reward']) - 1
  predicted, reward, penalty, end, tail = (
    np.array(x[:count, lane], np.float64) for x in found
  )
  last = end if episode['is_terminal'][-1] else tail
  return {
    'predicted': predicted,
    'real': discounted_sum(reward - penalty, discount, last[-1]),
    'reward': discounted_sum(reward, discount, end[-1]),
    'penalty': penalty,
  }


def overestimation(compared: Sequence[dict]) -> dict[str, float]:
  """Predicted and real values, and their difference, as means over episodes.

  Of the first half of an episode's steps alone, since what comes after its cut
  is the critics' own value, and both agree close to it.

  Args:
    compared: of `compare_values`, with one transition or more.
  """
  means = {}
  for key in ('predicted', 'real'):
    halves = [x[key][: (len(x[key]) + 1) // 2] for x in compared]
    means[key] = float(np.mean([half.mean() for half in halves]))
  return {
    'value_predicted': means['predicted'],
    'value_real': means['real'],
    'overestimation': means['predicted'] - means['real'],
  }


def windows(episodes: Sequence[dict], keys: Sequence[str]) -> Iterator[dict]:
  """Episodes side by side, WINDOW records at a time, in one shape.

      records     0, 0 ... 16     16 ... 32     32 ...

  Each window begins with the last record of the one before, the first one with
  a record that stands for what was before the episode. The last record of
  shorter episodes is repeated.

  Args:
    episodes: arrays [T + 1, ...], T of each its own.
    keys: of the arrays.

  Yields:
    Arrays [1 + WINDOW, N, ...] by key.
  """
  lasts = [len(e['reward']) - 1 for e in episodes]
  for first in range(-1, max(lasts), WINDOW):
    steps = np.arange(first, first + WINDOW + 1)
    yield {
      key: np.stack(
        [
          episode[key][np.clip(steps, 0, last)]
          for episode, last in zip(episodes, lasts, strict=True)
        ],
        1,
      )
      for key in keys
    }


def contrast_penalty(
  rssm: EnsembleRSSM,
  penalty: Callable[[dict], tf.Tensor],
  post: dict,
  data: dict,
  seed: tf.Tensor,
) -> dict[str, tf.Tensor]:
  """The penalty of actions on and off the data, of one imagined step.

  Members and noise are the same, so that the actions alone differ.

  Args:
    penalty: from states [2, N, ...], of which the first led to the second, to
      numbers [1, N].
    post: posterior states [B, T, ...].
    data: batch [B, T, ...].
    seed: [2].

  Returns:
    Means over the transitions within episodes: penalty_recorded of
    (s[i], action[i+1]), and penalty_negated of (s[i], -action[i+1]).
  """
  flat = lambda x: tf.reshape(x, [-1, *x.shape[2:].as_list()])
  start = {k: flat(post[k][:, :-1]) for k in ('deter', 'stoch')}
  action, mask = flat(data['action'][:, 1:]), flat(1 - data['is_first'][:, 1:])
  member_seed, noise_seed = split(seed, 2)
  members = rssm.draw_members(1, member_seed)
  noise = rssm.latent.noise([1, action.shape[0]], noise_seed)
  metrics = {}
  for name, sign in (('recorded', 1), ('negated', -1)):
    act = lambda *_, taken=sign * action: taken
    states = rssm.imagine(start, act, members, noise)
    seq = {k: tf.stack([state[k] for state in states]) for k in start}
    total = tf.reduce_sum(mask * penalty(seq)[0])
    mean = total / tf.maximum(tf.reduce_sum(mask), 1)
    metrics[f'penalty_{name}'] = mean
  return metrics
