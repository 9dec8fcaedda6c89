"""LOMPO and COMBO here and in LOMPO's public code, in numbers; see README."""

import argparse
import pathlib

import numpy as np
import public_lompo
import tensorflow as tf
from gymnasium.spaces import Box
from public_lompo import Public, given

from moto_tf.agents import make_agent
from moto_tf.agents.base import lane_noise, to_tensors
from moto_tf.nn.tfutils import split, swap, uniform
from moto_tf.presets import make_config

BATCH, LENGTH, WIDTH, SIZE = 6, 12, 4, 64
# Weight of the conservative term.
ALPHA = {'lompo': 0.0, 'combo': 2.5}
LINE = '  {:38}{:>13}{:>13}{:>10}{:>9}'


def make(method, act, rng):
  """An agent of the paper's sizes whose weights are all of some size."""
  config = make_config(
    *('metaworld', 'latent_paper', method),
    {
      'precision': 'float32',
      'replay.batch': BATCH,
      'replay.length': LENGTH,
      'offline_steps': 0,
      r'(en|de)coder\.act': act,
    },
    {'combo.states': 'all'} if method == 'combo' else {},
  )
  spaces = {'image': Box(0, 255, (SIZE, SIZE, 3), np.uint8)}
  agent = make_agent(config, spaces, Box(-1, 1, (WIDTH,), np.float32))
  for name, value in agent.variables().items():
    if '_opt/' not in name and name.startswith(('model', 'actor', 'critics/')):
      if value.dtype.is_floating:
        noise = rng.normal(0, 0.02, value.shape).astype(np.float32)
        value.assign_add(noise)
  # Not the first update, which copies.
  agent.variables()['critics/updates'].assign(1)
  return agent


def make_data(rng):
  """Windows of the middle of episodes."""
  shape = BATCH, LENGTH
  first = np.zeros(shape, bool)
  first[:, 0] = True
  return {
    'image': rng.integers(0, 256, (*shape, SIZE, SIZE, 3), np.uint8),
    'action': rng.uniform(-0.9, 0.9, (*shape, WIDTH)).astype(np.float32),
    'reward': rng.uniform(0, 1, shape).astype(np.float32),
    'is_first': first,
    'is_last': np.zeros(shape, bool),
    'is_terminal': np.zeros(shape, bool),
    'success': np.zeros(shape, np.float32),
  }


def their_data(data, first_action):
  """The same for the public code; the first action is zero if not kept."""
  action = data['action'].copy()
  if not first_action:
    action[:, 0] = 0
  return {
    'image': tf.constant(data['image'] / np.float32(255) - np.float32(0.5)),
    'action': tf.constant(action),
    'reward': tf.constant(data['reward']),
    'mask': tf.ones(data['reward'].shape),
  }


def after_prior(noise):
  """Noise of posterior states, before each of which a prior is drawn."""
  return [x for each in noise for x in (None, each)]


def row(title, ours, theirs):
  """Prints means, the largest difference, and its share of the largest."""
  ours, theirs = np.float64(ours), np.float64(theirs)
  assert ours.shape == theirs.shape, (title, ours.shape, theirs.shape)
  gap, most = np.abs(ours - theirs).max(), np.abs(ours).max()
  numbers = [f'{x.mean():.6f}' for x in (ours, theirs)]
  print(LINE.format(title, *numbers, f'{gap:.1e}', f'{gap / most:.1e}'))


def rows_of_weights(title, ours, theirs, prefixes):
  """The same over many arrays, of which means say nothing."""
  for prefix in prefixes:
    names = [name for name in theirs if name.startswith(prefix)]
    gaps = [np.abs(ours[k] - theirs[k]).max() for k in names]
    most = max(np.abs(ours[k]).max() for k in names)
    values = f'{max(gaps):.1e}', f'{max(gaps) / most:.1e}'
    label = f'{prefix.removeprefix("model/").rstrip("/")}, {title}'
    print(LINE.format(label, '', '', *values))


def gradients(agent, part):
  """Of the first step of an optimizer: Adam's first mean is a tenth of it."""
  start = f'{part}_opt/mean/'
  found = {
    k.removeprefix(start): 10 * v.numpy()
    for k, v in agent.variables().items()
    if k.startswith(start)
  }
  before = {'model': 'model/', 'actor': 'actor/', 'critic': 'critics/'}[part]
  return {
    k if k.startswith(before) else f'{before}{k}': v for k, v in found.items()
  }


def section(title):
  print(f'\n{title}')
  print(LINE.format('', 'ours', 'theirs', 'differ', 'share'))


def compare_model(agent, public, data):
  """One step of the world model."""
  section('World model, one gradient step')
  seed = agent._seed(1, 0)
  post_seed, member_seed = split(seed, 2)
  rssm = agent.model.rssm
  noise = rssm.latent.noise([LENGTH, BATCH], post_seed).numpy()
  heads = rssm.draw_members(LENGTH, member_seed).numpy().tolist()
  weights = agent.save()
  _, metrics = agent.functions['model'](to_tensors(data), seed)
  found = {}
  for name, kept, each in (
    ('equal', False, noise),
    ('action', True, noise),
    # As its sampler draws it: of one state, for the whole batch.
    ('noise', False, noise[:, :1]),
  ):
    public.put(weights)
    with given(after_prior(each), heads) as asked:
      public.model_step(their_data(data, kept))
    found[name] = dict(public.logged)
    if name == 'equal':
      new, slopes, shapes = public.weights(), dict(public.gradients), asked
  names = {
    'image_loss': ('image_recon', -1),
    'reward_loss': ('reward_recon', -1),
    'kl_loss': ('KL Divergence', 1),
    'model_loss': ('model_loss', 1),
    'model_grad_norm': ('model_norm', 1),
  }
  theirs = lambda case, key: (
    names[key][1] * float(found[case][f'model_train/{names[key][0]}'])
  )
  for key in names:
    row(key.replace('_', ' '), metrics[key], theirs('equal', key))
  parts = [f'model/{x}/' for x in ('encoder', 'rssm', 'decoder', 'reward')]
  rows_of_weights('gradient', gradients(agent, 'model'), slopes, parts)
  rows_of_weights('weights after', agent.save(), new, parts)
  agent.load(weights)
  shapes = ', '.join(str([*shape]) for shape in sorted(shapes))
  print(f'\n  Shape of the noise of {BATCH} states there: {shapes}')
  for case, title in (
    ('action', 'with the first action of windows'),
    ('noise', 'with one noise for the batch'),
  ):
    for key in ('kl_loss', 'model_loss'):
      label = f'{key.replace("_", " ")}, {title}'
      ours, other = float(metrics[key]), theirs(case, key)
      print(f'  {label:52}{ours:13.6f}{other:13.6f}')


def compare_rows(agent, public, data):
  """What goes into the buffers."""
  behavior, rssm, config = agent.behavior, agent.model.rssm, agent._config
  horizon, count = config.horizon, BATCH * LENGTH
  encode_seed, seed = agent._seed(1, 7), agent._seed(5, 7)
  post = agent.functions['encode'](to_tensors(data), encode_seed)
  seen = agent.model.preprocess(
    {k: tf.convert_to_tensor(v) for k, v in data.items() if k != 'image'}
  )
  # As `EnsembleRSSM.observe`, `LatentActorCritic.rollouts` and
  # `WorldModel.imagine` draw them.
  noise = rssm.latent.noise([LENGTH, BATCH], encode_seed).numpy()
  member_seed, stoch_seed, action_seed = split(split(seed, 2)[1], 3)
  heads = rssm.draw_members(horizon, member_seed).numpy().tolist()
  latents = rssm.latent.noise([horizon, count], stoch_seed).numpy()
  acts = uniform([horizon + 1, count, WIDTH], action_seed)[:-1]
  acts = tf.math.ndtri(acts).numpy()
  thrown = [None] * rssm.ensemble
  rolled = [x for each in latents for x in (*thrown, each)]
  theirs = their_data(data, False)
  public.put(agent.save())
  case = {
    'latents': after_prior(noise) + rolled,
    'heads': [0] * LENGTH + heads,
    'actions': list(acts),
  }
  found = {}
  for weight in (5.0, 0.0):
    with given(**case):
      found[weight] = public.rows(
        '_generate_latent_data', theirs, weight=weight
      )
  ours, metrics = behavior.rollouts(post, seen, seed)
  flat = lambda x: swap(x).numpy().reshape(horizon * count, *x.shape[2:])
  section(f'Rollouts of {horizon} steps from {count} states')
  other, raw = found[5.0], found[0.0]['reward']
  row('features of s[t]', flat(ours['feat'][:, :-1]), other['feat'])
  row('actions, with noise', flat(ours['action']), other['action'])
  row('features of s[t+1]', flat(ours['feat'][:, 1:]), other['next'])
  row('mean reward', metrics['imag_reward_raw'], raw.mean())
  if 'imag_penalty' in metrics:
    row('reward less penalty', flat(ours['reward']), other['reward'])
    penalty = (raw - other['reward']).mean()
    row('mean penalty', metrics['imag_penalty'], penalty)
  else:
    row('reward', flat(ours['reward']), raw)
  public.agent._dataset = iter([theirs])
  with given(after_prior(noise), [0] * LENGTH):
    other = public.rows('_generate_real_data')
  ours = behavior.windows(post, seen)
  flat = lambda x: x.numpy().reshape(-1, *x.shape[2:])
  section('Encoded data')
  row('features of s[t]', flat(ours['feat'][:, :-1]), other['feat'])
  row('actions', flat(ours['action']), other['action'])
  row('features of s[t+1]', flat(ours['feat'][:, 1:]), other['next'])
  row('rewards', flat(ours['reward']), other['reward'])
  now = tf.constant(0, tf.int64)
  behavior.add(post, seen, seed, now)


def compare_behavior(agent, public):
  """One step of critics, actor and targets on equal transitions."""
  section('Critics and actor, one gradient step')
  seed, now = agent._seed(2, 7), tf.constant(7, tf.int64)
  batch, _ = agent.behavior.sample(seed, now)
  assert float(tf.reduce_min(batch['mask'])) == 1
  weights = agent.save()
  # The public code draws them, whatever their weight is.
  shape = [16, batch['feat'].shape[0], WIDTH]
  drawn = 2 * uniform(shape, split(seed, 2)[1]) - 1
  public.put(weights)
  with given(uniforms=[drawn]):
    public.behavior_step(batch)
  metrics = agent.functions['behavior'](batch, seed)
  logged = {k: float(v) for k, v in public.logged.items()}
  names = 'critic_data', 'critic_model'
  half = lambda key: np.mean([metrics[f'{name}_{key}'] for name in names])
  row('critic loss', metrics['critic_loss'], logged['agent/Q_loss'])
  row('mean target', half('target'), logged['agent/Q_target'])
  q = np.mean([logged[f'agent/Q{i}_value'] for i in (1, 2)])
  row('mean Q', half('q'), q)
  row('actor loss', metrics['actor_loss'], logged['agent/actor_loss'])
  for ours, theirs in (('critic', 'Q'), ('actor', 'actor')):
    norm = logged[f'agent/{theirs}_grad_norm']
    row(f'{ours} gradient norm', metrics[f'{ours}_grad_norm'], norm)
  slopes = gradients(agent, 'critic') | gradients(agent, 'actor')
  parts = ['critics/online/', 'actor/']
  rows_of_weights('gradient', slopes, public.gradients, parts)
  new = public.weights()
  parts.append('critics/target/')
  rows_of_weights('weights after', agent.save(), new, parts)


def compare_acting(agent, public, rng):
  """Actions along an episode and the start of the next one."""
  section('Acting, five steps, the third begins an episode')
  latent, size = agent.model.rssm.latent, agent.model.rssm.latent.size
  images = rng.integers(0, 256, (5, 2, SIZE, SIZE, 3), np.uint8)
  public.put(agent.save())
  for mode in ('train', 'eval'):
    state, other, ours, theirs = None, None, [], []
    for step, image in enumerate(images):
      first = np.full(2, step in (0, 2))
      lanes = np.array([3, 4]), np.full(2, step)
      obs = {'image': image, 'is_first': first}
      action, state = agent.policy(obs, state, lanes, mode)
      uniform_noise = lane_noise(lanes, size + WIDTH)
      noise = latent.noise_of(uniform_noise[:, :size])
      acts = tf.math.ndtri(uniform_noise[:, size:])
      training = mode == 'train'
      with given([None, noise], [0], [acts] if training else []):
        obs = {'image': image, 'reward': np.zeros(2, np.float32)}
        found, other = public.agent(obs, first, other, training)
      ours.append(action)
      theirs.append(found)
    row(f'actions, {mode}', ours, theirs)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('lompo', type=pathlib.Path, help='checkout of the code')
  parser.add_argument('--methods', nargs='+', default=ALPHA, choices=ALPHA)
  parser.add_argument('--act', default='relu', help='of encoder and decoder')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  program = public_lompo.load(args.lompo)
  for method in args.methods:
    rng = np.random.default_rng(args.seed)
    agent, data = make(method, args.act, rng), make_data(rng)
    public = Public(program, agent, ALPHA[method])
    print(f'\n{method.upper()}\n{"-" * len(method)}')
    if method == 'lompo':
      compare_model(agent, public, data)
      compare_acting(agent, public, rng)
    compare_rows(agent, public, data)
    compare_behavior(agent, public)


if __name__ == '__main__':
  main()
