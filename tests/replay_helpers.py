"""Episodes that tell number and record, and replays of them."""

import gymnasium
import numpy as np

from moto_tf.data import episodes as files
from moto_tf.data.cloning import Cloning
from moto_tf.data.replay import Replay

OBS_SPACE = {
  'image': gymnasium.spaces.Box(0, 255, (2, 2, 1), np.uint8),
  'state': gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
}
ACT_SPACE = gymnasium.spaces.Box(-1, 1, (3,), np.float32)


def make_episode(number, transitions, success=False, terminal=False):
  """Every value tells the number of the episode and the record."""
  records = transitions + 1
  index = np.arange(records)
  state = np.stack([np.full(records, number), index], -1)
  action = np.repeat((index / 1000)[:, None], 3, 1)
  return {
    'image': np.repeat(index % 256, 4).reshape(-1, 2, 2, 1).astype(np.uint8),
    'state': state.astype(np.float32),
    'action': action.astype(np.float32),
    'reward': np.where(index > 0, number + index / 1000, 0).astype(np.float32),
    'is_first': index == 0,
    'is_last': index == transitions,
    'is_terminal': (index == transitions) & terminal,
    'success': (index == transitions) & success,
    'extra': np.zeros((records, 5), np.float32),
  }


def fill(directory, lengths, first=0, **kwargs):
  """Saves one episode per length, numbered from `first`."""
  for number, length in enumerate(lengths, first):
    episode = make_episode(number, length, **kwargs)
    files.save_episode(directory, f'e{number:04d}', episode)
  return directory


def make_replay(offline=None, online=None, **kwargs):
  settings = dict(
    batch=4,
    length=8,
    capacity=10_000,
    offline_share=-1,
    seed=0,
    cloning=Cloning(),
  )
  return Replay(offline, online, OBS_SPACE, ACT_SPACE, **(settings | kwargs))


def same(actual, expected):
  assert list(actual) == list(expected)
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    np.testing.assert_array_equal(actual[key], value, err_msg=key)


def numbers(batch):
  """Episode number of every record."""
  return batch['state'][..., 0].astype(int)


def held(replay):
  """Numbers of the episodes that batches are drawn from, ascending."""
  return sorted({n for i in range(40) for n in numbers(replay.sample(i)).flat})
