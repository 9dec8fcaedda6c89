"""Demonstrations of the scripted experts: which objects, in which order."""

import functools

import numpy as np

from moto_tf.envs.base import Demonstrator
from moto_tf.envs.kitchen.env import make_simulation
from moto_tf.envs.kitchen.expert import Expert
from moto_tf.envs.kitchen.tasks import TASKS, find_targets, parse_order

# Standard deviations of waypoints in m, and of actions.
JITTER, NOISE = 0.005, 0.1


def demonstrator(name: str, order: str = '') -> Demonstrator:
  """Experts that bring four objects in place, in random orders.

  In `complete` these are the targets. Else they are any four of all seven, and
  an episode counts whatever comes of it; in `partial` only if it does not
  complete all targets, as in the paper's data. With an order, these objects
  are brought in place, in this order, and all episodes count.
  """
  targets = find_targets(name)
  # Only acting needs it, and it takes a while.
  model = functools.cache(lambda: make_simulation(targets).model)
  kind = name.removeprefix('kitchen_')

  fixed = parse_order(order)

  def policy(seed):
    objects = fixed or draw_order(kind, seed)
    expert = Expert(model(), objects, seed, JITTER)
    return lambda obs: expert(obs['qpos'])

  def keep(episode):
    success = bool(episode['success'].any())
    rule = {'complete': success, 'partial': not success}
    return bool(fixed) or rule.get(kind, True)

  return Demonstrator(policy, keep, NOISE)


# The 24 plans of relay policy learning's logs; see docs/kitchen.md.
LETTERS = {
  'm': 'microwave',
  'k': 'kettle',
  't': 'top burner',
  'b': 'bottom burner',
  's': 'light switch',
  'h': 'hinge cabinet',
  'l': 'slide cabinet',
}
PLANS = (
  'kbhl kbsl kshl ktbl ktsl mbhl mbsl mkbh mkbl mkhl mksl mkth mkts mtbh mtbl '
  'tbsl tbhl kbsh ktbh ktbs mksh mshl mtbs mtsh'
).split()


def draw_order(kind: str, seed: int) -> tuple[str, ...]:
  """Which objects an expert brings in place, and in which order."""
  rng, targets = np.random.default_rng(seed), TASKS[kind]
  if kind == 'complete':
    return targets
  plan = PLANS[rng.integers(len(PLANS))]
  return tuple(LETTERS[letter] for letter in plan)
