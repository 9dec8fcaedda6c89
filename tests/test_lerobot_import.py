"""Datasets of LeRobot that others made, and whatever lies in them."""

import numpy as np
import pyarrow
import pytest
from lerobot_helpers import (
  DATA,
  EPISODES,
  SIZE,
  change_info,
  change_table,
  env,
  image_key,
  make,
  read,
)
from pyarrow import parquet

from moto_tf.data import importers, lerobot
from moto_tf.data.formats import SourceError
from moto_tf.data.lerobot import tables
from moto_tf.data.lerobot.reader import LeRobotReader

VIDEO = 'videos/observation.images.image/chunk-000/file-000.mp4'


def test_the_last_frame_stands_for_what_came_after(changed):
  root = changed()
  (root / lerobot.LAST).unlink()
  reader = LeRobotReader(root, env())
  assert reader.check()['last_observation'] == 'repeated'
  there, back = make(7, 1), reader.read(1)
  for key in ('image', 'state', 'speed'):
    value = back[key].reshape(there[key].shape)
    np.testing.assert_array_equal(value[:-1], there[key][:-1])
    np.testing.assert_array_equal(value[-1], there[key][-2])
  # No reward, success or end is lost.
  for key in ('action', 'reward', 'success', 'is_terminal'):
    np.testing.assert_array_equal(back[key], there[key].astype(back[key].dtype))


def test_without_rewards_and_successes(changed, tmp_path, capsys):
  root = changed()

  def forget(info):
    for name in [x for x in info['features'] if x.startswith('next.')]:
      del info['features'][name]

  change_info(root, forget)
  change_table(root, DATA, **{'next.reward': None, 'next.success': None})
  entry = importers.FORMATS['lerobot']
  assert not entry.suite
  made = importers.Import('lerobot', root, 'gym_Mine-v0', env())
  info = importers.import_dataset(made, tmp_path / 'out')
  assert not info.returns.any() and not info.successes.any()
  assert 'docs/labelling.md' in entry.report(info)


def test_cameras(changed):
  root = changed()
  extra = make(4, 0)['image_extra']
  # By name, the first, the second, and none; resized where sizes differ.
  camera = read(root, camera='image_extra', extra_size=0)
  np.testing.assert_array_equal(camera['image'], extra)
  assert 'image_extra' not in camera
  assert 'image' not in read(root, image=False)
  small = read(root, image_size=4, extra_camera='image')
  wanted = make(4, 0)['image'].reshape(5, 4, 4, 4, 4, 3).mean((2, 4))
  assert (
    np.abs(small['image'] - wanted).max() <= 1
  )  # Rounded by row, then by column.
  with pytest.raises(SourceError, match="no camera 'wrist', found image, imag"):
    read(root, camera='wrist')

  def vectors(info):
    for name in (image_key(), f'{image_key()}_extra'):
      info['features'][name]['shape'] = [SIZE, SIZE, 1]

  change_info(root, vectors)
  with pytest.raises(SourceError, match='no camera with three colours'):
    read(root)
  assert {*read(root, image=False)} >= {'state', 'speed', 'action'}


def test_names_of_vectors(changed):
  """Two do not become one, and none what training leaves out."""

  def rename(root, names):
    def change(info):
      for old, new in names.items():
        info['features'][new] = info['features'].pop(old)

    change_info(root, change)
    return root

  first, second = 'observation.state', 'observation.speed'
  root = rename(changed(), {second: 'observation.log_speed'})
  features = LeRobotReader(root, env()).check()['features']
  assert features['observed_log_speed'] == 'observation.log_speed'
  other = {first: 'observation.a.b', second: 'observation.a_b'}
  root = rename(changed('video'), other)
  with pytest.raises(SourceError, match='a.b and observation.a_b .* be a_b'):
    LeRobotReader(root, env())


def test_other_versions_are_refused(changed):
  root = changed()
  for version, message in (
    ('v2.1', 'is of version v2.1.*convert_dataset_v21_to_v30'),
    ('v4.0', 'newer than v3'),
    (None, 'codebase_version is None'),
    ('3', "codebase_version is '3'"),
  ):
    change_info(root, lambda x: x.update(codebase_version=version))  # noqa: B023
    with pytest.raises(SourceError, match=f'{lerobot.INFO}.*{message}'):
      read(root)
  with pytest.raises(SourceError, match='info.json: there is no.*hf download'):
    read(root / 'meta')


def infos(**change):
  return lambda root: change_info(root, lambda info: info.update(change))


def feature(name, **change):
  return lambda root: change_info(
    root, lambda info: info['features'][name].update(change)
  )


def table(name, **columns):
  return lambda root: change_table(root, name, **columns)


def cut(name, share=0.6):
  def change(root):
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: int(share * len(data))])

  return change


def bomb(root):
  """Rows without number, which take no bytes."""
  zeros = np.zeros(2**20, int)
  rows = pyarrow.table({'episode_index': zeros, 'frame_index': zeros})
  with parquet.ParquetWriter(root / DATA, rows.schema) as file:
    for _ in range(40):
      file.write_table(rows)


def nan(column):
  rows = np.array(column.to_pylist())
  rows[2] = np.nan
  return rows.tolist()


# Changes by name, and what the message must say beside the path.
BROKEN = {
  'nothing': (lambda root: (root / lerobot.INFO).write_text(''), 'info.json'),
  'a list': (
    lambda root: (root / lerobot.INFO).write_text('[]'),
    'a JSON object',
  ),
  'fps': (infos(fps=0), 'fps is 0'),
  'path': (infos(data_path='../{chunk_index.__class__}'), 'data_path'),
  'counts': (infos(total_episodes=4), 'total_episodes is 4.*has 3'),
  'no action': (
    lambda root: change_info(root, lambda x: x['features'].pop('action')),
    "no feature 'action'",
  ),
  'action of pixels': (feature('action', shape=[3, 3]), 'action has shape'),
  'a shape': (feature('action', shape=[-3]), 'features.action'),
  'actions': (feature('action', shape=[4]), 'action'),
  'pixels': (
    feature('observation.images.image', shape=[10**5, 10**5, 3]),
    'pixels',
  ),
  'a camera outside': (
    lambda root: change_info(
      root,
      lambda x: x['features'].update(
        {
          'observation.../../x': {
            'dtype': 'image',
            'shape': [16, 16, 3],
          }
        }
      ),
    ),
    'a name of letters',
  ),
  'other images': (
    feature('observation.images.image', shape=[8, 8, 3]),
    'meta/info.json says 8 x 8',
  ),
  'no stats': (lambda root: (root / lerobot.STATS).unlink(), 'stats.json'),
  'stats': (
    lambda root: (root / lerobot.STATS).write_text('{"action": {}}'),
    'stats.json',
  ),
  'infinite stats': (
    lambda root: (root / lerobot.STATS).write_text(
      '{"action": {"min": [NaN, 0, 0], "max": [1, 1, 1]}}'
    ),
    'action.min',
  ),
  'no episodes': (lambda root: (root / EPISODES).unlink(), 'episodes'),
  'a column less': (table(EPISODES, length=None), "no column 'length'"),
  'lengths': (table(EPISODES, length=[4, 70, 3]), 'length 70'),
  'numbers': (table(EPISODES, episode_index=[0, 0, 2]), 'not numbered'),
  'a negative file': (
    table(EPISODES, **{'data/file_index': [0, -1, 0]}),
    'data/file_index is -1',
  ),
  'another file': (
    table(EPISODES, **{'data/file_index': [0, 9, 0]}),
    'file-009.parquet: there is no such',
  ),
  'frames': (
    table(EPISODES, dataset_to_index=[4, 11, 19], length=[4, 7, 8]),
    'has 14 rows',
  ),
  'shifted': (
    table(EPISODES, dataset_from_index=[0, 5, 11], length=[4, 6, 3]),
    'frame_index is not',
  ),
  'no data': (lambda root: (root / DATA).unlink(), 'no such file'),
  'data cut': (cut(DATA), 'cut short'),
  'not finite': (table(DATA, action=nan), 'action is not finite'),
  'a gap': (table(DATA, action=lambda x: [None, *x.to_pylist()[1:]]), 'action'),
  'texts': (table(DATA, action=['a'] * 14), 'action has type string'),
  'ragged': (
    table(DATA, action=[[1.0]] + 13 * [[0.0] * 3]),
    'has .1, 3. numbers',
  ),
  'ends early': (
    table(DATA, **{'next.done': [False, True] * 7}),
    'next.done is set in frame 1',
  ),
  'no image': (
    table(DATA, **{'observation.images.image': ['x'] * 14}),
    'expected images',
  ),
  'an image elsewhere': (
    table(
      DATA,
      **{'observation.images.image': [{'bytes': None, 'path': '/x'}] * 14},
    ),
    'holds no image',
  ),
  'an image of text': (
    table(
      DATA,
      **{'observation.images.image': [{'bytes': b'text', 'path': ''}] * 14},
    ),
    'no PNG or JPEG',
  ),
  'last ones of others': (
    table(lerobot.LAST, length=[4, 9, 3]),
    'is of other episodes',
  ),
}


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_broken_is_named(name, changed):
  change, message = BROKEN[name]
  root = changed()
  change(root)
  with pytest.raises(SourceError, match=message) as found:
    [read(root, index) for index in range(3)]
  assert str(root) in str(found.value) and '\n' not in str(found.value)


BROKEN_VIDEOS = {
  'missing': (lambda root: (root / VIDEO).unlink(), 'no such file'),
  'cut': (cut(VIDEO), 'cut short|frames from'),
  'a text': (
    lambda root: (root / VIDEO).write_text('#EXTM3U\nfile:///etc/passwd'),
    'cut short',
  ),
  'size': (
    feature('observation.images.image', shape=[32, 16, 3]),
    'has 16 x 16 pixels',
  ),
  'too short': (
    table(
      EPISODES,
      **{f'videos/{image_key()}/from_timestamp': [0.0, 0.1, 0.3]},
    ),
    'meta/episodes says 3',
  ),
  'other times': (infos(fps=30), 'frames from'),
  'no times': (
    table(EPISODES, **{f'videos/{image_key()}/from_timestamp': None}),
    'has no column',
  ),
}


@pytest.mark.parametrize('name', BROKEN_VIDEOS)
def test_a_broken_video_is_named(name, changed):
  change, message = BROKEN_VIDEOS[name]
  root = changed('video')
  change(root)
  with pytest.raises(SourceError, match=message) as found:
    [read(root, index) for index in range(3)]
  assert str(root) in str(found.value) and '\n' not in str(found.value)


def test_claims_are_compared_with_bytes(changed):
  """Before memory is taken for 84 million numbers of a few kilobytes."""
  root = changed()
  bomb(root)
  assert (root / DATA).stat().st_size < 2**20
  with pytest.raises(SourceError, match='would unfold to'):
    tables.Rows().read(root / DATA, ['episode_index', 'frame_index'])


def test_a_bad_episode_is_skipped(changed, tmp_path, capsys):
  root = changed()
  done = parquet.read_table(root / DATA)['next.done'].to_pylist()
  done[5] = True
  change_table(root, DATA, **{'next.done': done})
  made = importers.Import('lerobot', root, 'metaworld_hammer', env())
  info = importers.import_dataset(made, tmp_path / 'out')
  assert info.lengths.tolist() == [4, 3]
  assert 'episode 1: next.done is set in frame 1' in capsys.readouterr().err
