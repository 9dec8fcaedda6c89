"""The steps of `ours.py` by JAXRL2, and how far both differ; see README."""

import argparse
import contextlib
import importlib
import pathlib
import sys
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import freeze, unfreeze
from weights import STATES, make_learner, parameters, pick

# Their names of numbers, by ours.
NAMES = {
  'critic_loss': 'critic_loss',
  'cql_loss': 'cql_loss_mean',
  'value_loss': 'value_loss',
  'actor_loss': 'actor_loss',
  'temperature_loss': 'temperature_loss',
  'actor_ent': 'entropy',
  'target': 'target_q',
  'advantage': 'adv',
  'weight': 'exp_a',
}
TITLES = {
  'cql_loss': 'conservative term',
  'actor_ent': 'entropy of the policy',
  'target': 'target Q',
  'weight': 'weights of cloning',
}


def make_batch(arrays, method, seen):
  """Their batch: frames of both observations in one array of pixels."""
  if seen == 'pixels':
    images = np.moveaxis(arrays['images'], 1, -1)
    obs = {'pixels': images[..., :3] if method == 'bc' else images}
    after = {}
  else:
    obs, after = arrays['before'], arrays['after']
  batch = {
    'observations': obs,
    'next_observations': after,
    'actions': arrays['action'],
    'rewards': arrays['reward'],
    'masks': arrays['mask'],
  }
  return freeze(jax.tree.map(jnp.asarray, batch))


@contextlib.contextmanager
def given(arrays, learner, same_order):
  """Our noise and crops in place of theirs, and what their losses close over.

  Without compilation, so that the parts come in the order of the program.

  Args:
    arrays: of the file.
    learner: their agent.
    same_order: whether the actor's loss sees the critics before their step.
  """
  module = sys.modules[type(learner).__module__]
  # N steps of the data with their samples one after the other.
  lines = lambda x: x.swapaxes(0, 1).reshape(-1, x.shape[-1])
  normals = [arrays.get('normal/target')]
  if 'uniform' in arrays:
    normals.append(lines(arrays['normal/policy']))
  normals.append(arrays.get('normal/actor'))
  offsets = [arrays['crop/before'], arrays['crop/after']]
  seen = {}

  def normal(key, shape, *args, **kwargs):
    return jnp.asarray(normals.pop(0)).reshape(shape)

  def uniform(key, shape, minval, maxval):
    assert (minval, maxval) == (-1, 1)
    return jnp.asarray(2 * lines(arrays['uniform']) - 1).reshape(shape)

  def crop(key, images):
    crops = importlib.import_module('jaxrl2.agents.drq.augmentations')
    crop = jax.vmap(crops.random_crop, (0, 0, None))
    return crop(jnp.asarray(offsets.pop(0)), images, 4)

  grad = jax.grad

  def spy(loss, *args, **kwargs):
    seen.update(
      (name, cell.cell_contents)
      for name, cell in zip(loss.__code__.co_freevars, loss.__closure__ or ())
      if name in NAMES.values()
    )
    return grad(loss, *args, **kwargs)

  with contextlib.ExitStack() as stack:
    put = lambda *args: stack.enter_context(mock.patch.object(*args))
    stack.enter_context(jax.disable_jit())
    put(jax.random, 'normal', normal)
    put(jax.random, 'uniform', uniform)
    put(jax.random, 'randint', lambda key, *args: key)
    put(jax, 'grad', spy)
    if hasattr(module, 'batched_random_crop'):
      put(module, 'batched_random_crop', crop)
    if same_order and hasattr(learner, '_temp'):
      update, critic = module.update_actor, learner._critic
      change = lambda key, actor, _, *args: update(key, actor, critic, *args)
      put(module, 'update_actor', change)
    yield seen


def step(arrays, agents, method, seen, epsilons):
  """Their numbers, gradients and weights after one step, by our names."""
  learner = make_learner(agents, method, seen, arrays, epsilons)
  with given(arrays, learner, epsilons == 'ours') as around:
    info = {**learner.update(make_batch(arrays, method, seen)), **around}
  if method == 'bc':
    info['actor_loss'] = info['bc_loss']
  new, gradients = {}, {}
  for name, attribute in STATES.items():
    if hasattr(learner, attribute):
      state = getattr(learner, attribute)
      new[name] = unfreeze(state if name == 'target' else state.params)
      if name != 'target':
        # Adam's first mean is a tenth of the gradient.
        mean = unfreeze(state.opt_state[0].mu)
        gradients[name] = jax.tree.map(lambda x: 10 * x, mean)
  return info, new, gradients


def differ(ours, theirs):
  """Largest difference, and its share of the largest number."""
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  pairs = [[np.asarray(x, np.float64) for x in pair] for pair in pairs]
  assert all(a.shape == b.shape for a, b in pairs)
  gap = max(np.abs(a - b).max() for a, b in pairs)
  return gap, gap / max(np.abs(a).max() for a, _ in pairs)


def compare(arrays, agents, method, seen):
  """Prints the table of a method."""
  print(f'\n{method}, {seen}')
  equal = step(arrays, agents, method, seen, 'ours')
  own = step(arrays, agents, method, seen, 'theirs')
  line = '  {:34}{:>11}{:>11}{:>10}{:>9}{:>10}'
  print(line.format('', 'ours', 'theirs', 'differ', 'share', 'own'))

  def row(title, ours, theirs, own):
    mean = lambda x: f'{np.mean(x):.6f}' if not isinstance(x, dict) else ''
    gaps = *differ(ours, theirs), differ(ours, own)[0]
    gaps = [f'{gap:.1e}' for gap in gaps]
    print(line.format(title, mean(ours), mean(theirs), *gaps))

  metrics = pick(arrays, 'metric')
  for name, other in NAMES.items():
    if name in metrics and other in equal[0]:
      title = TITLES.get(name, name.replace('_', ' '))
      row(title, metrics[name], equal[0][other], own[0][other])
  for i, what in ((2, 'gradient'), (1, 'new')):
    made = parameters(pick(arrays, what), method, seen)
    for name in equal[i]:
      parts = [made[name], equal[i][name], own[i][name]]
      if method in ('sac', 'cql') and name == 'actor':
        # Its encoder is the critic's.
        parts = [{k: v for k, v in p.items() if k != 'encoder'} for p in parts]
      title = 'gradient' if what == 'gradient' else 'weights after'
      row(f'{name}, {title}', *parts)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path, help='of ours.py')
  parser.add_argument('jaxrl2', type=pathlib.Path, help='checkout of the code')
  parser.add_argument('--methods', nargs='+', default=['bc', 'sac', 'iql'])
  args = parser.parse_args()
  # What newer versions took away, and what only its data sets need.
  jax.tree_multimap = jax.tree.map
  sys.modules['d4rl'] = types.ModuleType('d4rl')
  sys.path.insert(0, str(args.jaxrl2))
  agents = importlib.import_module('jaxrl2.agents')
  for method in args.methods:
    for seen in ('pixels', 'state'):
      if method == 'cql' and seen == 'state':
        continue  # There is none.
      file = args.folder / f'{method}_{seen}.npz'
      with np.load(file) as arrays:
        compare(dict(arrays), agents, method, seen)


if __name__ == '__main__':
  main()
