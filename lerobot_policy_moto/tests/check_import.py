"""Compares what moto_tf imported with what LeRobot was given to record.

Runs in the environment of moto_tf, as the last part of scripts/test_lerobot.sh.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from moto_tf.data.episodes import find_episodes, load_episode


def main(data: Path) -> None:
  """Raises AssertionError where they differ."""
  given = np.load(data / 'recorded.npz')
  record = json.loads((data / 'imported' / 'dataset.json').read_text())
  low, high = (np.array(record[f'action_{x}']) for x in ('low', 'high'))
  paths = find_episodes(data / 'imported')
  assert len(paths) == 3, paths
  off = []
  for number, path in enumerate(paths):
    episode = load_episode(path)
    action, state = given[f'action{number}'], given[f'state{number}']
    back = low + (episode['action'][1:] + 1) / 2 * (high - low)
    np.testing.assert_allclose(back, action, atol=1e-4)
    np.testing.assert_array_equal(episode['action'][1:, 1], action[:, 1])
    np.testing.assert_array_equal(episode['state'][:-1], state)
    np.testing.assert_array_equal(episode['state'][-1], state[-1])
    for i in range(len(state)):
      wrist = resize(given[f'wrist{number}-{i}'], 24)
      np.testing.assert_array_equal(episode['image_extra'][i], wrist)
      top = resize(given[f'top{number}-{i}'], 32)
      off.append(np.abs(episode['image'][i].astype(int) - top))
  assert np.max(off) <= 8, np.max(off)
  assert record['instructions'] == ['put the cube away']
  print(
    f'{len(off)} frames are as recorded; those of the AV1 video differ by '
    f'{np.mean(off):.2f} in the mean, {np.max(off)} at most, of 255.'
  )


def resize(image, size):
  picture = Image.fromarray(image)
  return np.array(picture.resize((size, size), Image.Resampling.BOX))


if __name__ == '__main__':
  main(Path(sys.argv[1]))
