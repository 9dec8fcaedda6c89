"""Logs of relay policy learning, the demonstrations all the others come from.

A .mjl file is a log of MuJoCo in little endian: seven int32 (nq, nv, nu,
nmocap, nsensordata, nuserdata, length of the name), the name, then records of
float32 (time, qpos, qvel, ctrl, mocap and sensor data). A record is 2 ms, a
step of the kitchen 80 ms. The controller follows positions, so an action, a
velocity as a share of 2 rad/s, is the way to them:

  a[i] = (ctrl[i] - qpos[i]) / 0.08 / 2, within +-0.999

There are no rewards. Teleoperation is not replayed: images show what people
did, and actions roughly lead from each of them to the next.
"""

import pathlib

import numpy as np

from moto_tf.data import formats
from moto_tf.envs.kitchen import sources
from moto_tf.envs.kitchen.formats import FORMATS

WHERE = FORMATS['rpl'].where
STEP = 0.08
# Of a velocity of 1, in rad/s.
SPEED = 2.0
HEADER = 7


class Source:
  """A folder of logs, or one. `names` are the files."""

  def __init__(self, path: pathlib.Path):
    """Lists the logs below a folder."""
    self.files = formats.find_files(path, '*.mjl', WHERE)
    self.names = formats.short_names(path, self.files)

  def read(self, index: int) -> sources.Trajectory:
    """Positions and state of a log, one record per step of the kitchen."""
    path = self.files[index]
    records = _read(path)
    skip = _records_per_step(path, records[:, 0])
    records = records[::skip]
    qpos, qvel, ctrl = np.split(records[:, 1:], [30, 59], -1)
    if len(qpos) < 2:
      raise formats.SourceError(f'{path}: is shorter than two steps.')
    action = (ctrl - qpos[:, : sources.ACTIONS]) / STEP / SPEED
    return sources.Trajectory(
      action=np.clip(action[:-1], -0.999, 0.999).astype(np.float32),
      qpos=qpos,
      state=np.concatenate(
        [qpos[:, :9], qvel[:, :9], qpos[:, 9:], qvel[:, 9:]], -1
      ),
    )


def _read(path):
  """Records [N, 1 + 30 + 29 + 9] of a log: time, qpos, qvel, ctrl."""
  with formats.reading(path, WHERE):
    data = path.read_bytes()
  header = np.frombuffer(data[: 4 * HEADER], '<i4')
  sizes = (sources.QPOS, sources.QVEL, sources.ACTIONS)
  if len(header) < HEADER or tuple(header[:3]) != sizes:
    found = tuple(int(x) for x in header[:3])
    raise formats.SourceError(
      f'{path}: begins with the sizes {found}, expected {sizes} of the '
      f'kitchen. It is no log of it. {WHERE}'
    )
  nmocap, nsensor, nuser, name = (int(x) for x in header[3:])
  width = 1 + sum(sizes) + 7 * nmocap + nsensor + nuser
  start = 4 * HEADER + name
  left = len(data) - start
  if min(nmocap, nsensor, nuser, name) < 0 or left <= 0 or left % (4 * width):
    raise formats.SourceError(
      f'{path}: has {max(left, 0)} bytes of records, expected a multiple of '
      f'{4 * width}; it is damaged or cut short. {WHERE}'
    )
  records = np.frombuffer(data, '<f4', offset=start).reshape(-1, width)
  return formats.check_array(
    f'{path}: its records', records[:, : 1 + sum(sizes)], (None, 1 + sum(sizes))
  )


def _records_per_step(path, time):
  """40 for logs of 2 ms."""
  interval = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
  skip = round(STEP / interval) if interval > 0 else 0
  if skip < 1 or abs(skip * interval - STEP) > 0.05 * STEP:
    raise formats.SourceError(
      f'{path}: has a record every {interval:.4g} s, which does not divide '
      f'the {STEP} s of a step of the kitchen.'
    )
  return skip
