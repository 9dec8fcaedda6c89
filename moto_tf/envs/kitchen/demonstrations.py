"""Demonstrations of the scripted experts: which objects, in which order."""

import functools

import numpy as np

from moto_tf.envs.base import Demonstrator
from moto_tf.envs.kitchen.env import make_simulation
from moto_tf.envs.kitchen.expert import Expert
from moto_tf.envs.kitchen.tasks import TASKS, find_targets, parse_order

# Standard deviations of waypoints in m, and of actions.
JITTER, NOISE = 0.005, 0.1
# Kicks of an arm on its way: how likely one begins at a step, how many steps it
# lasts, and its standard deviation in units of the actions.
KICKS, LASTS, FORCE = 1 / 15, 2, 0.8
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
    expert, kicks = Expert(model(), objects, seed, JITTER), Kicks(seed)

    def act(obs):
      action = expert(obs['qpos'])
      return None if expert.done else kicks(action, expert.free)

    return act

  def keep(episode):
    success = bool(episode['success'].any())
    rule = {'complete': success, 'partial': not success}
    return bool(fixed) or rule.get(kind, True)

  return Demonstrator(policy, keep, NOISE)


class Kicks:
  """Disturbances of the arm, so that demonstrations show how to come back.

  They are short and rare. Disturbances that last would be copied, since they
  can be foreseen from what the arm just did.
  """

  def __init__(self, seed: int):
    self._rng = np.random.default_rng(
      np.random.SeedSequence(seed, spawn_key=(2,))
    )
    self._left = 0

  def __call__(self, action: np.ndarray, free: bool) -> np.ndarray:
    """The action [9], disturbed at some steps, where the arm is free."""
    if not free:
      self._left = 0
    elif not self._left and self._rng.random() < KICKS:
      self._left = LASTS
      self._kick = FORCE * self._rng.normal(size=7)
    if self._left:
      self._left -= 1
      action = action.copy()
      action[:7] = np.clip(action[:7] + self._kick, -1, 1)
    return action


def draw_order(kind: str, seed: int) -> tuple[str, ...]:
  """Which objects an expert brings in place, and in which order."""
  if kind == 'complete':
    return TASKS[kind]
  return ORDERS[np.random.default_rng(seed).integers(len(ORDERS))]
