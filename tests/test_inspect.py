"""Directory reports: counts, damage, settings and pictures of episodes."""

import numpy as np
import pytest
from data_helpers import decode, make_episode

from moto_tf.data import episodes, inspect


@pytest.fixture
def dataset(tmp_path):
  for index, (length, wins) in enumerate([(6, True), (6, True), (9, False)]):
    episode = make_episode(length, wins, seed=index)
    episodes.save_episode(tmp_path, f'{index:06d}', episode)
  return tmp_path


def test_info_counts_episodes(dataset):
  info = inspect.inspect(dataset)
  assert info.lengths.tolist() == [6, 6, 9]
  assert info.returns.tolist() == [3, 3, 0]
  assert info.successes.tolist() == [True, True, False]
  np.testing.assert_array_equal(info.first, [4, 4, np.nan])
  assert info.keys['image'] == ((8, 8, 3), 'uint8')
  assert info.keys['reward'] == ((), 'float32')
  assert not info.damage and not info.record
  text = inspect.describe(info)
  for part in ('3 (2 successful)', '21 (24 records)', 'mean 2.0, min 0.0, max'):
    assert part in text
  assert 'damaged files  none' in text


def test_info_names_every_damaged_file(dataset):
  data = (dataset / '000000-6.npz').read_bytes()
  (dataset / 'cut-6.npz').write_bytes(data[: len(data) // 2])
  np.savez(dataset / 'short-0.npz', **make_episode(length=0))
  other = make_episode(size=16)
  other['extra'] = np.zeros(7, np.float32)
  np.savez(dataset / 'other-6.npz', **other)
  nan = make_episode()
  nan['reward'][2] = np.nan
  np.savez(dataset / 'nan-6.npz', **nan)
  info = inspect.inspect(dataset)
  assert len(info.lengths) == 3
  assert set(info.damage) == {
    'cut-6.npz', 'short-0.npz', 'other-6.npz', 'nan-6.npz'
  }  # fmt: skip
  assert 'image is (16, 16, 3) uint8' in info.damage['other-6.npz']
  assert 'in most files (8, 8, 3) uint8' in info.damage['other-6.npz']
  assert (
    'extra is () float32, in most files absent' in info.damage['other-6.npz']
  )
  text = inspect.describe(info)
  assert 'damaged files  4' in text
  for name, problem in info.damage.items():
    assert f'{name}: {problem}' in text
  assert str(dataset) not in ''.join(info.damage.values())


def test_info_of_nothing(tmp_path):
  text = inspect.describe(inspect.inspect(tmp_path))
  assert 'episodes       0' in text
  assert '-' in inspect.compare({'metaworld_hammer': inspect.inspect(tmp_path)})
  with pytest.raises(episodes.EpisodeError, match='no such directory'):
    inspect.inspect(tmp_path / 'absent')
  (tmp_path / 'dataset.json').write_text('{"task":')
  with pytest.raises(episodes.EpisodeError, match='dataset.json: no valid'):
    inspect.inspect(tmp_path)


def test_comparison_with_the_paper(dataset):
  (dataset / 'dataset.json').write_text(
    '{"task": "metaworld_drawer-open", "seed": 3, "dropped": [4, 7]}'
  )
  info = inspect.inspect(dataset)
  assert (info.task, info.tries) == ('metaworld_drawer-open', 5)
  assert 'seed 3' in inspect.describe(info)
  row = inspect.compare({info.task: info}).splitlines()[-1]
  cells = row.replace('|', ' ').split()
  assert cells == [
    'drawer-open', '3', 'of', '5', '21', '2.0', '0.67', '4.0', '48.0', '1.00'
  ]  # fmt: skip


def test_pictures_of_a_directory(dataset, tmp_path):
  inspect.render(dataset, tmp_path / 'a' / 'sheet.png', count=2)
  _, frames = decode((tmp_path / 'a' / 'sheet.png').read_bytes())
  assert frames.shape == (1, 2 * 132, 10 * 132, 3)
  inspect.render(dataset, tmp_path / 'video.gif', count=3)
  image, frames = decode((tmp_path / 'video.gif').read_bytes())
  assert frames.shape == (10, 132, 3 * 132, 3)


def test_the_first_images_are_shown_whatever_else_is_there(tmp_path):
  records = 4
  episode = make_episode(records - 1, size=8)
  episode['depth'] = np.zeros((records, 8, 8, 1), np.float32)
  episodes.save_episode(tmp_path, '0', episode)
  videos, _ = inspect.load_videos(tmp_path, 1)
  assert videos[0].shape == (records, 8, 8, 3)


def test_pictures_need_images(dataset, tmp_path):
  with pytest.raises(ValueError, match='ends in .png or .gif'):
    inspect.render(dataset, tmp_path / 'video.mp4', count=1)
  with pytest.raises(ValueError, match="no images 'depth'.*here: image"):
    inspect.render(dataset, tmp_path / 'a.png', count=1, key='depth')
  with pytest.raises(ValueError, match='at least 1'):
    inspect.render(dataset, tmp_path / 'a.png', count=0)
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(ValueError, match='no episodes'):
    inspect.render(empty, tmp_path / 'a.png', count=1)


def test_settings_that_came_later_and_are_off():
  old = {'task': 'a', 'env': {'camera': 'b'}}
  new = {'task': 'a', 'order': '', 'env': {'camera': 'b', 'extra_size': 0}}
  assert inspect.differences(old, new) == []
  new['env']['extra_size'] = 32
  assert inspect.differences(old, new) == [
    'env.extra_size None there, 32 now'
  ]  # fmt: skip
  assert inspect.differences({}, {'order': ''}) == ["order None there, '' now"]
