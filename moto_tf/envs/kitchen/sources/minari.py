"""Minari's D4RL/kitchen/{complete,partial,mixed}-v2.

In data/main_data.hdf5 every group episode_<i> holds T actions and rewards and
T + 1 observations of FrankaKitchen-v1:

  observations   s[0]  s[1]  ...  s[T]
  actions        a[0]  a[1]  ...        a[i] leads from s[i] to s[i+1]
  rewards        r[0]  r[1]  ...        r[i] was received with s[i+1]

The names are D4RL's: `mixed` is the set with the bottom burner.
"""

import pathlib

import h5py
import numpy as np

from moto_tf.data import formats
from moto_tf.data.hdf5 import read_array
from moto_tf.envs.kitchen import sources
from moto_tf.envs.kitchen.formats import FORMATS

WHERE = FORMATS['minari'].where


class Source:
  """One dataset. `names` are its groups in the order of their numbers."""

  def __init__(self, path: pathlib.Path):
    """Lists the episodes of a folder or of its main_data.hdf5."""
    self.path = formats.find_file(path, 'main_data.hdf5', WHERE)
    with formats.reading(self.path, WHERE), h5py.File(self.path) as file:
      names = [x for x in file if x.startswith('episode_')]
    if not names:
      raise formats.SourceError(
        f'{self.path}: there are no groups episode_<i> in it. {WHERE}'
      )
    self.names = sorted(names, key=lambda x: (len(x), x))

  def read(self, index: int) -> sources.Trajectory:
    """Positions, state and rewards of an episode."""
    name = self.names[index]
    with formats.reading(self.path, WHERE), h5py.File(self.path) as file:
      action = read_array(file, f'{name}/actions')
      reward = read_array(file, f'{name}/rewards')
      state = read_array(file, f'{name}/observations/observation')
    label = f'{self.path}: {name}/'
    action = formats.check_array(
      f'{label}actions', action, (None, sources.ACTIONS)
    )
    length = len(action)
    reward = formats.check_array(f'{label}rewards', reward, (length,))
    state = formats.check_array(
      f'{label}observations/observation', state, (length + 1, 59)
    )
    return sources.Trajectory(
      action=sources.check_actions(f'{label}actions', action),
      qpos=np.concatenate([state[:, :9], state[:, 18:39]], -1),
      state=state,
      reward=np.concatenate([np.full(1, np.nan, np.float32), reward]),
    )
