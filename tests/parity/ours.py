"""A gradient step of our agents, written down for `theirs.py`; see README."""

import argparse
import pathlib

import numpy as np
import tensorflow as tf
from gymnasium.spaces import Box

from moto_tf.agents import make_agent
from moto_tf.nn.tfutils import normal, split, uniform, uniform_int
from moto_tf.presets import make_config

WIDTH, STATE, SIZE, BATCH, STEP = 4, 9, 64, 64, 0
METHODS = 'bc', 'sac', 'cql', 'iql'


def make_data(rng, seen):
  """Windows of four records within episodes, of which some end the task."""
  shape = BATCH, 4
  data = {
    'action': rng.uniform(-0.9, 0.9, (*shape, WIDTH)).astype(np.float32),
    'reward': rng.uniform(0, 1, shape).astype(np.float32),
    'is_first': np.zeros(shape, bool),
    'is_terminal': np.zeros(shape, bool),
  }
  data['is_first'][:, 0] = True
  data['is_terminal'][: BATCH // 8, -1] = True
  if seen == 'pixels':
    image = rng.integers(0, 256, (*shape, SIZE, SIZE, 3), np.uint8)
    return {**data, 'image': image}
  state = rng.normal(2, 3, (*shape, STATE)).astype(np.float32)
  return {**data, 'state': state}


def make(method, seen, rng):
  """An agent of the paper's sizes whose weights are all of some size."""
  spaces = {
    'pixels': {'image': Box(0, 255, (SIZE, SIZE, 3), np.uint8)},
    'state': {'state': Box(-np.inf, np.inf, (STATE,), np.float32)},
  }
  presets = [method] if seen == 'pixels' else ['proprio', method]
  config = make_config(
    *presets, {'precision': 'float32', 'replay.batch': BATCH}
  )
  agent = make_agent(config, spaces[seen], Box(-1, 1, (WIDTH,), np.float32))
  for name, value in agent.variables().items():
    if '_opt/' not in name and 'standardize' not in name:
      noise = rng.normal(0, 0.03, value.shape).astype(np.float32)
      value.assign_add(noise)
  if method == 'iql':
    # So that some of the weights of cloning reach their limit.
    agent.value.head.mlp.out.bias.assign_sub([1.5])
  return agent, config


def draws(agent, config, method):
  """The noise of the step, by the seeds that `_step` and `update` split off."""
  crops, seed = split(agent._seed(1, STEP), 2)
  pad = config.model_free.pad
  found = {
    f'crop/{name}': uniform_int([BATCH, 2], part, 2 * pad + 1)
    for name, part in zip(('before', 'after'), split(crops, 2), strict=True)
  }
  if method in ('sac', 'cql'):
    target, actor, critic = split(seed, 3)
    found['normal/target'] = normal([BATCH, WIDTH], target)
    found['normal/actor'] = normal([BATCH, WIDTH], actor)
    if method == 'cql':
      shape = [config.cql.actions, BATCH, WIDTH]
      policy, chance = split(critic, 2)
      found['normal/policy'] = normal(shape, policy)
      found['uniform'] = uniform(shape, chance)
  return {k: v.numpy() for k, v in found.items()}


def details(agent, method, batch, seed):
  """What is known of single steps of the data, before a gradient step.

  Returns:
    A function that is called after it, and gives these numbers.
  """
  if method in ('sac', 'cql'):
    target, _ = agent.target_q(batch, split(seed, 3)[0])
    return lambda: {'target': target.numpy()}
  if method == 'bc':
    return dict
  slow = tf.reduce_min(agent.target(batch.obs, batch.action)[..., 0], 0)

  def after():
    advantage = slow - agent.value(batch.obs)[:, 0]
    weight = tf.exp(agent._config.iql.temperature * advantage)
    target = batch.reward + batch.discount * agent.value(batch.next)[:, 0]
    return {
      'advantage': advantage.numpy(),
      'weight': tf.minimum(weight, agent._config.iql.clip).numpy(),
      'target': target.numpy(),
    }

  return after


def record(method, seen, seed):
  """Everything that the other side needs, and what came out here."""
  rng = np.random.default_rng(seed)
  agent, config = make(method, seen, rng)
  data = make_data(rng, seen)
  agent.fit(lambda key: data[key].reshape(-1, data[key].shape[-1]))
  crop_seed, seed = split(agent._seed(1, STEP), 2)
  batch = agent.transitions(
    {k: tf.convert_to_tensor(v) for k, v in data.items()}, crop_seed
  )
  found = {
    'action': data['action'][:, -1],
    'reward': data['reward'][:, -1],
    'mask': 1.0 - data['is_terminal'][:, -1],
    **draws(agent, config, method),
  }
  if seen == 'pixels':
    found['images'] = data['image']
  else:
    found |= {'before': batch.obs['vector'], 'after': batch.next['vector']}
  numbers = details(agent, method, batch, seed)
  before = agent.save()
  metrics = agent.train(data, STEP)
  after = agent.save()
  found |= {f'metric/{k}': v for k, v in {**metrics, **numbers()}.items()}
  for name in before:
    if '_opt/' not in name:
      found |= {f'old/{name}': before[name], f'new/{name}': after[name]}
    elif '_opt/mean/' in name:
      # Adam's first mean is a tenth of the gradient.
      plain = name.replace('_opt/mean/', '/')
      found[f'gradient/{plain}'] = 10 * after[name]
  return {k: np.asarray(v) for k, v in found.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path, help='where to write')
  parser.add_argument('--methods', nargs='+', default=METHODS, choices=METHODS)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  args.folder.mkdir(parents=True, exist_ok=True)
  for method in args.methods:
    for seen in ('pixels', 'state'):
      file = args.folder / f'{method}_{seen}.npz'
      np.savez(file, **record(method, seen, args.seed))
      print('Written:', file)


if __name__ == '__main__':
  main()
