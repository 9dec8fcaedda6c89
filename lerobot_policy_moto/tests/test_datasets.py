"""Our exports in the real LeRobot, and a dataset of its own for our import."""

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

IMAGE, STATE = 'observation.images.image', 'observation.state'
KEYS = {
  'next.reward': 'reward',
  'next.success': 'success',
  'next.done': 'is_last',
  'next.terminated': 'is_terminal',
}


@pytest.mark.parametrize('images, bound', [('png', 0), ('video', 2)])
def test_every_value_is_there(images, bound, data, episodes):
  root = data / 'datasets' / 'moto' / images
  dataset = LeRobotDataset(f'moto/{images}', root=root, video_backend='pyav')
  assert len(dataset) == sum(len(e['reward']) - 1 for e in episodes)
  assert dataset.fps == 40 and dataset.num_episodes == len(episodes)
  frames = iter(dataset[i] for i in range(len(dataset)))
  for number, episode in enumerate(episodes):
    for i in range(len(episode['reward']) - 1):
      frame = next(frames)
      assert frame['episode_index'] == number and frame['frame_index'] == i
      assert frame['task'] == 'drawer open'
      np.testing.assert_array_equal(frame[STATE], episode['state'][i])
      np.testing.assert_array_equal(frame['action'], episode['action'][i + 1])
      for name, key in KEYS.items():
        assert frame[name] == episode[key][i + 1], name
      image = (frame[IMAGE] * 255).round().permute(1, 2, 0).numpy()
      assert np.abs(image - episode['image'][i]).max() <= bound


@pytest.mark.parametrize('images', ['png', 'video'])
def test_windows_and_statistics(images, data, episodes):
  root = data / 'datasets' / 'moto' / images
  times = {IMAGE: [-0.025, 0], STATE: [-0.025, 0], 'action': [0, 0.025, 0.05]}
  dataset = LeRobotDataset(
    f'moto/{images}', root=root, delta_timestamps=times, video_backend='pyav'
  )
  first = len(episodes[0]['reward']) - 1
  window = dataset[first + 5]
  np.testing.assert_array_equal(window['action'], episodes[1]['action'][6:9])
  np.testing.assert_array_equal(window[STATE], episodes[1]['state'][4:6])
  assert window[IMAGE].shape == (2, 3, 64, 64)
  # Windows do not cross the ends of episodes.
  assert dataset[first]['observation.state_is_pad'].tolist() == [True, False]
  action = np.concatenate([e['action'][1:] for e in episodes])
  stats = dataset.meta.stats
  np.testing.assert_allclose(stats['action']['min'], action.min(0))
  assert stats[IMAGE]['mean'].shape == (3, 1, 1)


def test_lerobot_records_what_moto_tf_imports(data):
  """Two cameras and a robot's units; tests/check_import.py looks at it."""
  rng = np.random.default_rng(0)
  features = {
    'observation.images.top': {
      'dtype': 'video',
      'shape': (96, 128, 3),
      'names': ['height', 'width', 'channels'],
    },
    'observation.images.wrist': {
      'dtype': 'image',
      'shape': (48, 48, 3),
      'names': ['height', 'width', 'channels'],
    },
    'observation.state': {'dtype': 'float32', 'shape': (6,), 'names': None},
    'action': {'dtype': 'float32', 'shape': (3,), 'names': None},
  }
  dataset = LeRobotDataset.create(
    'moto/recorded', fps=30, features=features, root=data / 'recorded'
  )
  saved = {}
  for number, length in enumerate((12, 9, 15)):
    state = rng.normal(size=(length, 6)).astype(np.float32)
    action = rng.uniform([-180, -1, 0], [180, 1, 90], (length, 3))
    action = action.astype(np.float32)
    base = rng.uniform(60, 190, 3)
    ramp = np.linspace(-40, 40, 128)[None, :, None]
    for i in range(length):
      top = np.broadcast_to(base + ramp + 2 * i, (96, 128, 3)).astype(np.uint8)
      wrist = rng.integers(0, 256, (48, 48, 3), np.uint8)
      dataset.add_frame(
        {
          'observation.images.top': top,
          'observation.images.wrist': wrist,
          'observation.state': state[i],
          'action': action[i],
          'task': 'put the cube away',
        }
      )
      saved[f'top{number}-{i}'], saved[f'wrist{number}-{i}'] = top, wrist
    dataset.save_episode()
    saved[f'state{number}'], saved[f'action{number}'] = state, action
  dataset.finalize()
  np.savez_compressed(data / 'recorded.npz', **saved)
