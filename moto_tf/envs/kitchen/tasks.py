"""Objects of the kitchen, the targets of its tasks, and when they are in place.

Positions are those of the joints, qpos [30]: robot 9, objects 21.
"""

import numpy as np

from moto_tf.envs.base import EnvError
from moto_tf.registry import choices

# Where the joints of an object stand in qpos, and where they should be. The
# values are those of FrankaKitchen-v1, from relay policy learning.
GOALS = {
  'bottom burner': ((11, 12), (-0.88, -0.01)),
  'top burner': ((15, 16), (-0.92, -0.01)),
  'light switch': ((17, 18), (-0.69, -0.05)),
  'slide cabinet': ((19,), (0.37,)),
  'hinge cabinet': ((20, 21), (0.0, 1.45)),
  'microwave': ((22,), (-0.75,)),
  'kettle': (
    (23, 24, 25, 26, 27, 28, 29),
    (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06),
  ),
}
# In place below this distance from the goal.
NEAR = 0.3
TASKS = {
  'mixed': ('microwave', 'kettle', 'light switch', 'slide cabinet'),
  'complete': ('microwave', 'kettle', 'light switch', 'slide cabinet'),
  'partial': ('microwave', 'kettle', 'bottom burner', 'light switch'),
}


def find_targets(name: str) -> tuple[str, ...]:
  """The four targets of a task.

  Raises:
    EnvError: there is no such task.
  """
  name = name.removeprefix('kitchen_')
  if name not in TASKS:
    raise EnvError(
      f'Unknown kitchen task {name!r}. {choices(name, sorted(TASKS))}'
    )
  return TASKS[name]


def parse_order(text: str) -> tuple[str, ...]:
  """Objects from their names between commas, none from ''.

  Raises:
    EnvError: there is no such object, or one comes twice.
  """
  order = tuple(x.strip() for x in text.split(',')) if text else ()
  for name in order:
    if name not in GOALS:
      raise EnvError(f'Unknown object {name!r}. {choices(name, sorted(GOALS))}')
  if len(set(order)) < len(order):
    raise EnvError(f'An object comes twice in the order {text!r}.')
  return order


def in_place(qpos: np.ndarray, targets: tuple[str, ...]) -> np.ndarray:
  """Which targets are in place: positions [..., 30] to bool [..., targets]."""
  found = []
  for target in targets:
    index, goal = GOALS[target]
    distance = np.linalg.norm(qpos[..., list(index)] - np.array(goal), axis=-1)
    found.append(distance < NEAR)
  return np.stack(found, -1)


def log_key(target: str) -> str:
  """Observation that tells whether a target is in place, for the metrics."""
  return f'log_{target.replace(" ", "_")}'


def measure(episode: dict) -> dict:
  """Which of all seven objects an episode brought in place, by its positions.

  Returns:
    placed: bool [7], ever in place, in the order of GOALS; object_steps: sum
    over steps of the objects in place. Empty where positions are not stored.
  """
  if 'qpos' not in episode:
    return {}
  placed = in_place(episode['qpos'][1:], tuple(GOALS))
  return {'placed': placed.any(0), 'object_steps': int(placed.sum())}
