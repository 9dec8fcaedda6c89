"""Small episodes, a recorder that makes them, and pictures read back."""

import io

import numpy as np
from PIL import Image


def make_episode(length=6, wins=True, size=8, seed=0):
  rng = np.random.default_rng(seed)
  records = length + 1
  reward = np.zeros(records, np.float32)
  reward[4:] = wins
  action = rng.uniform(-1, 1, (records, 2)).astype(np.float32)
  action[0] = 0
  return {
    'image': rng.integers(0, 256, (records, size, size, 3), np.uint8),
    'action': action,
    'reward': reward,
    'is_first': np.arange(records) == 0,
    'is_last': np.arange(records) == length,
    'is_terminal': np.zeros(records, bool),
    'success': reward > 0,
  }


def decode(data):
  image = Image.open(io.BytesIO(data))
  frames = []
  for index in range(getattr(image, 'n_frames', 1)):
    image.seek(index)
    frames.append(np.array(image.convert('RGB')))
  return image, np.stack(frames)


class FakeRecorder:
  """Succeeds at every attempt but each third one, and counts its attempts."""

  made = []

  def __init__(self, recipe, workers):
    self.recipe = recipe

  def attempts(self, indices):
    return [self.attempt(index) for index in indices]

  def attempt(self, index):
    self.made.append(index)
    return make_episode(5, wins=index % 3 != 1, seed=index)

  def close(self):
    pass
