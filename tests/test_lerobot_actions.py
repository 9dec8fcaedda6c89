"""Actions of LeRobot datasets: units of a robot, scaled to [-1, 1]."""

import json

import numpy as np
import pyarrow
import pytest
from lerobot_helpers import DATA, change_table, env
from pyarrow import parquet

from moto_tf.data import importers, inspect, lerobot, minari_export, store
from moto_tf.data.formats import SourceError
from moto_tf.data.lerobot.reader import LeRobotReader


def make_robot(root):
  """Gives a dataset actions in units of a robot; returns them."""
  rows = parquet.read_table(root / DATA)['action'].to_pylist()
  robot = np.array(rows) * [100, 1, 0] + [30, 0, 7]
  kind = pyarrow.list_(pyarrow.float64())
  change_table(root, DATA, action=pyarrow.array(robot.tolist(), kind))
  path = root / lerobot.STATS
  stats = json.loads(path.read_text())
  stats['action'] = {'min': [*robot.min(0)], 'max': [*robot.max(0)]}
  path.write_text(json.dumps(stats))
  return robot


def test_an_export_has_the_units_of_the_robot_again(changed, tmp_path):
  root = changed()
  robot = make_robot(root)
  made = importers.Import('lerobot', root, 'gym_Mine-v0', env())
  importers.import_dataset(made, tmp_path / 'mine', 1)
  ends = inspect.action_range(tmp_path / 'mine')
  assert ends['low'][1] == -1 and ends['high'][0] == robot[:, 0].max()
  again = lerobot.export(tmp_path / 'mine', tmp_path, 'me/back', images='png')
  rows = np.array(parquet.read_table(again / DATA)['action'].to_pylist())
  np.testing.assert_allclose(rows, robot, atol=1e-4)
  np.testing.assert_array_equal(rows[:, 1], np.float32(robot[:, 1]))
  minari = minari_export.export(tmp_path / 'mine', tmp_path, 'mine-v0')
  said = json.loads((minari / 'data' / 'metadata.json').read_text())
  assert f'-1 is {ends["low"]}, and 1 {ends["high"]}' in said['description']


@pytest.mark.parametrize('scaled', [True, False])
def test_episodes_of_other_ends_are_not_added(changed, tmp_path, scaled):
  """As after somebody has made the statistics anew: the scale would differ."""
  root, out = changed(), tmp_path / 'mine'
  if scaled:
    make_robot(root)
  made = importers.Import('lerobot', root, 'gym_Mine-v0', env())
  importers.import_dataset(made, out, 1)
  names = sorted(out.glob('*.npz'))
  names.pop().unlink()  # As if it had been skipped.
  before = {path: path.read_bytes() for path in out.iterdir()}
  path = root / lerobot.STATS
  stats = json.loads(path.read_text())
  stats['action']['max'][0] = 300.0
  path.write_text(json.dumps(stats))
  with pytest.raises(store.StoreError, match='made with action_.*and now it'):
    importers.import_dataset(made, out, 1)
  assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_actions_of_robots_are_scaled(changed):
  """Number by number, and only those that leave [-1, 1]."""
  root = changed()
  robot = make_robot(root)
  path = root / lerobot.STATS
  stats = json.loads(path.read_text())
  reader = LeRobotReader(root, env())
  facts = reader.check()
  low, high = (np.array(facts[f'action_{x}']) for x in ('low', 'high'))
  assert low[1] == -1 and high[1] == 1
  found = np.concatenate([reader.read(i)['action'][1:] for i in range(3)])
  assert np.abs(found).max() == 1 and found[:, 0].min() == -1
  np.testing.assert_array_equal(found[:, 1], np.float32(robot[:, 1]))
  np.testing.assert_array_equal(found[:, 2], 0)
  back = low + (found + 1) / 2 * (high - low)
  np.testing.assert_allclose(back, robot, atol=1e-4)
  stats['action']['max'][0] -= 20
  path.write_text(json.dumps(stats))
  with pytest.raises(SourceError, match='beyond min and max of meta/stats'):
    [LeRobotReader(root, env()).read(i) for i in range(3)]
