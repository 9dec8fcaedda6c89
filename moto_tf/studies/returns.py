"""What a policy expects: returns in its model, and values of its critics."""

import numpy as np
import tensorflow as tf

from moto_tf.nn.tfutils import uniform
from moto_tf.studies.common import fixed_seed
from moto_tf.studies.context import encode_together
from moto_tf.studies.penalty import imagine


def first_states(agent, episodes: list[dict]) -> dict[str, tf.Tensor]:
  """Posterior states after the first record of each episode, [N, ...]."""
  keys = (*agent.input_keys, 'action', 'reward', 'is_first')
  firsts = [{k: e[k][:1] for k in keys} for e in episodes]
  posts = encode_together(agent, firsts)
  return {k: tf.concat([post[k] for post in posts], 0) for k in posts[0]}


def episode_length(config, episodes: list[dict]) -> int:
  """Agent steps of a whole episode: the limit, or the longest of these."""
  return config.env.time_limit or max(len(e['reward']) - 1 for e in episodes)


def model_rewards(
  agent, config, start: dict, steps: int
) -> tuple[np.ndarray, np.ndarray]:
  """Rewards that the policy gets in its model, acting as in evaluation.

  Where ends are predicted, what comes after them counts by how likely it is
  that the episode goes on.

  Args:
    config: of the run.
    start: deter and stoch [N, ...].
    steps: T.

  Returns:
    Predicted rewards and penalties alpha u of Eq. 3, [T, N] each; the latter
    are 0 for agents without a penalty.
  """
  name, alpha = getattr(agent.behavior, 'penalty', None) or (None, 0)
  names = [name] if alpha else []
  found, feats = imagine(agent, start, None, steps, 'eval', names)
  rewards = np.stack([agent.model.predict_reward(f) for f in feats])
  penalties = alpha * found[name] if alpha else np.zeros_like(rewards)
  rewards = rewards.astype(np.float64)
  if config.pred_discount:
    going = [agent.model.predict_discount(feat) for feat in feats[:-1]]
    going = [np.minimum(x / config.discount, 1) for x in going]
    alive = np.cumprod([np.ones_like(rewards[0]), *going], 0)
    rewards, penalties = alive * rewards, alive * penalties
  return rewards, penalties


def first_values(agent, start: dict) -> np.ndarray:
  """What the critics expect in states [N, ...], if the policy acts: [N]."""
  feat = start['feat']
  noise = uniform([feat.shape[0], agent.act_space.shape[0]], fixed_seed(7))
  action = agent.act(feat, noise, 'eval')
  # As if each was the last state of an episode, with whose value it goes on.
  twice = lambda x: tf.stack([x, x])
  records = {'action': twice(action), 'reward': tf.zeros([2, feat.shape[0]])}
  post = {k: twice(start[k]) for k in ('deter', 'stoch', 'feat')}
  found = agent.behavior.predict_values(post, records, records['action'])
  return np.array(found.tail[0], np.float64)
