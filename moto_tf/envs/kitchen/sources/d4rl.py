"""D4RL's HDF5 files of the kitchen.

Episodes lie one after another, in rows of equal number:

  observations (N, 60)   robot 9, objects 21, goal 30
  actions      (N, 9)    a[i] leads from s[i] to s[i+1]
  rewards      (N,)      r[i] belongs to s[i], targets in place
  terminals    (N,)      1 at the last row of an episode

The last action of an episode leads to a state that is not stored.
"""

import pathlib

import h5py
import numpy as np

from moto_tf.data import formats
from moto_tf.data.hdf5 import read_array
from moto_tf.envs.kitchen import sources
from moto_tf.envs.kitchen.formats import FORMATS

WHERE = FORMATS['d4rl'].where
# No joint of the robot moves by half of this in a step of 80 ms.
JUMP = 0.5


class Source:
  """One file, read at once. `names` are the first rows of its episodes."""

  def __init__(self, path: pathlib.Path):
    """Reads the file, or the only *.hdf5 of a folder."""
    self.path = formats.find_file(path, '*.hdf5', WHERE)
    with formats.reading(self.path, WHERE), h5py.File(self.path) as file:
      keys = ('observations', 'actions', 'rewards', 'terminals')
      columns = {key: read_array(file, key) for key in keys}
      timed = 'timeouts' in list(file)
      timeouts = read_array(file, 'timeouts') if timed else None
    label = lambda key: f'{self.path}: {key}'
    rows = len(columns['observations']) if columns['observations'].ndim else 0
    shapes = {
      'observations': (None, 60),
      'actions': (rows, 9),
      'rewards': (rows,),
      'terminals': (rows,),
    }
    # One bad number spoils its episode only, so `read` looks for them.
    columns = {
      key: formats.check_array(
        label(key), columns[key], shape, finite=key == 'terminals'
      )
      for key, shape in shapes.items()
    }
    self._qpos = columns['observations'][:, : sources.QPOS]
    self._action, self._reward = columns['actions'], columns['rewards']
    ends = columns['terminals'] > 0
    if timeouts is not None:
      ends |= formats.check_array(label('timeouts'), timeouts, (rows,)) > 0
    # Where a new episode starts although nothing ended: the robot is at home.
    moved = np.abs(np.diff(self._qpos[:, :9], axis=0)).max(-1, initial=0)
    ends[:-1] |= moved > JUMP
    bounds = [0, *(np.flatnonzero(ends[:-1]) + 1), rows]
    self._slices = [
      slice(a, b) for a, b in zip(bounds, bounds[1:]) if b - a > 1
    ]
    if not self._slices:
      raise formats.SourceError(f'{self.path}: holds no episode of two rows.')
    self.names = [f'row {x.start}' for x in self._slices]

  def read(self, index: int) -> sources.Trajectory:
    """Positions and rewards of an episode."""
    rows = self._slices[index]
    label = f'{self.path}: from row {rows.start}, '
    finite = lambda key, array: formats.check_array(
      label + key, array, array.shape
    )
    action = finite('actions', self._action[rows][:-1])
    return sources.Trajectory(
      action=sources.check_actions(f'{label}actions', action),
      qpos=finite('observations', self._qpos[rows]),
      reward=finite('rewards', self._reward[rows]),
    )
