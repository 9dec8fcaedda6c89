"""Public data of the kitchen: how the files of others are read.

Each module reads one format. Its Source(path) opens a file or folder, has
`names` of its trajectories, `files` where each has its own, and `read(index)`
returns a Trajectory. Reading needs h5py and numpy only, and no pickle.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from moto_tf.data.formats import SourceError

ACTIONS, QPOS, QVEL = 9, 30, 29


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """T transitions, as stored. What a format does not hold is None.

  Attributes:
    action: float32 [T, 9], between the records.
    qpos: positions of robot and objects, float32 [T + 1, 30].
    state: float32 [T + 1, 59], see moto_tf.envs.kitchen.env.Kitchen.
    image: from a size to the stored images uint8 [T + 1, size, size, 3];
      raises SourceError where there are none of this size.
    reward: float32 [T + 1], received with each record; nan where unknown.
    rewards: float32 [T + 1] by object, whether it is in place.
  """

  action: np.ndarray
  qpos: np.ndarray | None = None
  state: np.ndarray | None = None
  image: Callable[[int], np.ndarray] | None = None
  reward: np.ndarray | None = None
  rewards: dict | None = None


def check_actions(name: str, action: np.ndarray) -> np.ndarray:
  """Actions within [-1, 1], after a look whether they were scaled so.

  Raises:
    SourceError: they were not.
  """
  largest = np.abs(action).max(initial=0)
  if largest > 1 + 1e-3:
    raise SourceError(
      f'{name} reaches {largest:.3g}, expected joint velocities within -1 to 1.'
    )
  return np.clip(action, -1, 1)
