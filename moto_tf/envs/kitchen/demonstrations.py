"""Demonstrations of the scripted experts: which objects, in which order."""

import functools

import numpy as np

from moto_tf.envs.base import Demonstrator
from moto_tf.envs.kitchen.env import make_simulation
from moto_tf.envs.kitchen.expert import Expert
from moto_tf.envs.kitchen.tasks import TASKS, find_targets, parse_order

# Standard deviations of waypoints in m, and of actions.
JITTER, NOISE = 0.005, 0.1
LETTERS = {
  'm': 'microwave',
  'k': 'kettle',
  't': 'top burner',
  'b': 'bottom burner',
  's': 'light switch',
  'h': 'hinge cabinet',
  'l': 'slide cabinet',
}
# What the people of relay policy learning were asked to do, by the names of the
# folders of its logs: always in the order of LETTERS.
ORDERS = tuple(
  tuple(LETTERS[x] for x in plan)
  for plan in (
    'kbhl kbsh kbsl kshl ktbh ktbl ktbs ktsl mbhl mbsl mkbh mkbl mkhl mksh '
    'mksl mkth mkts mshl mtbh mtbl mtbs mtsh tbhl tbsl'
  ).split()
)


def demonstrator(name: str, order: str = '') -> Demonstrator:
  """Experts that bring four objects in place, until they are done.

  In `complete` these are the targets. Else they are those of one of ORDERS, and
  an episode counts whatever comes of it; in `partial` only if it does not
  complete all targets, which are none of ORDERS, as in the paper's data. With
  an order, these objects are brought in place, in this order, and all episodes
  count.
  """
  targets = find_targets(name)
  # Only acting needs it, and it takes a while.
  model = functools.cache(lambda: make_simulation(targets).model)
  kind = name.removeprefix('kitchen_')

  fixed = parse_order(order)

  def policy(seed):
    objects = fixed or draw_order(kind, seed)
    expert = Expert(model(), objects, seed, JITTER)

    def act(obs):
      action = expert(obs['qpos'])
      return None if expert.done else action

    return act

  def keep(episode):
    success = bool(episode['success'].any())
    rule = {'complete': success, 'partial': not success}
    return bool(fixed) or rule.get(kind, True)

  return Demonstrator(policy, keep, NOISE)


def draw_order(kind: str, seed: int) -> tuple[str, ...]:
  """Which objects an expert brings in place, and in which order."""
  if kind == 'complete':
    return TASKS[kind]
  return ORDERS[np.random.default_rng(seed).integers(len(ORDERS))]
