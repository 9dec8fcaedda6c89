"""Datasets of LeRobot, without LeRobot: there and back, and whatever lies."""

import functools
import json
import sys
import types

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import moto_tf
from moto_tf.commands import dataset as script
from moto_tf.data import episodes, importers, inspect, lerobot
from moto_tf.data.exporters import DatasetError
from moto_tf.data.formats import SourceError
from moto_tf.data.lerobot import meta, pictures, tables, writer
from moto_tf.data.lerobot.reader import LeRobotReader

SIZE = 16
DATA = 'data/chunk-000/file-000.parquet'
EPISODES = 'meta/episodes/chunk-000/file-000.parquet'
VIDEO = 'videos/observation.images.image/chunk-000/file-000.mp4'
LENGTHS = (4, 7, 3)


def make(length, seed):
  """An episode of smooth images, so that a video can hold them."""
  rng = np.random.default_rng(seed)
  records = np.arange(length + 1)
  action = rng.uniform(-1, 1, (length + 1, 3)).astype(np.float32)
  action[0] = 0
  ramp = np.linspace(0, 1, SIZE)
  light = 40 * records[:, None, None, None] % 200
  image = light + 50 * ramp[:, None, None] * ramp[None, :, None]
  return {
    'image': (image + [0, 3, 5]).astype(np.uint8),
    'image_extra': np.broadcast_to(200 - light, image.shape[:3] + (3,)).astype(
      np.uint8
    ),
    'speed': rng.normal(size=length + 1).astype(np.float32),
    'state': rng.normal(size=(length + 1, 5)).astype(np.float32),
    'action': action,
    'reward': np.where(records, rng.normal(size=length + 1), 0),
    'is_first': records == 0,
    'is_last': records == length,
    'is_terminal': (records == length) & (seed == 1),
    'success': (records > 2) & (seed != 2),
  }


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
  directory = tmp_path_factory.mktemp('demos')
  for i, length in enumerate(LENGTHS):
    episodes.save_episode(directory, f'{i:06d}', make(length, i))
  (directory / 'dataset.json').write_text(
    '{"task": "metaworld_drawer-open", "env": {"action_repeat": 2}}'
  )
  return directory


@pytest.fixture(scope='module', params=['png', 'video'])
def exported(request, demos, tmp_path_factory):
  root = tmp_path_factory.mktemp(request.param)
  return lerobot.export(demos, root, 'me/drawer', images=request.param)


@pytest.fixture
def changed(demos, tmp_path):
  """A dataset of its own, to be broken."""
  return lambda images='png': lerobot.export(
    demos, tmp_path, f'me/{images}', images=images
  )


@functools.cache
def env(**changes):
  options = {'image_size': SIZE, 'extra_size': SIZE, **changes}
  options = {f'env.{k}': v for k, v in options.items()}
  return moto_tf.make_config('metaworld', **options).env


def read(path, index=0, **changes):
  reader = LeRobotReader(path, env(**changes))
  reader.check()
  return reader.read(index)


def change_info(root, change):
  path = root / lerobot.INFO
  info = json.loads(path.read_text())
  change(info)
  path.write_text(json.dumps(info))


def change_table(root, name, **columns):
  """Columns of a parquet file made anew; None removes one."""
  table = parquet.read_table(root / name)
  for key, value in columns.items():
    place = table.schema.get_field_index(key)
    if value is not None:
      value = value(table[key]) if callable(value) else value
      table = table.set_column(place, key, pyarrow.array(value))
    else:
      table = table.remove_column(place)
  parquet.write_table(table, root / name)


def test_there_and_back(demos, tmp_path):
  """As the commands do it; images as PNG are the same."""
  line = ['export', str(demos), str(tmp_path), '--format', 'lerobot']
  script.main([*line, '--id', 'me/drawer', '--images', 'png'])
  exported, out = tmp_path / 'me' / 'drawer', tmp_path / 'back'
  line = ['import', '--format', 'lerobot', str(exported), str(out)]
  size = ['--env.image_size', str(SIZE), '--env.extra_size', str(SIZE)]
  script.main([*line, '--task', 'drawer-open', '--workers', '1', *size])
  for path in episodes.find_episodes(demos):
    there, back = (episodes.load_episode(x / path.name) for x in (demos, out))
    assert there.keys() == back.keys()
    for key, value in there.items():
      wanted = value.reshape(back[key].shape)
      np.testing.assert_array_equal(back[key], wanted, key)
  record = inspect.read_record(out)
  assert record['fps'] == 40 and record['instructions'] == ['drawer open']
  assert record['last_observation'] == 'stored' and 'action_low' not in record
  assert record['features']['image_extra'] == 'observation.images.image_extra'


def test_a_video_rounds_colours(demos, tmp_path):
  """And nothing else; an episode lies anywhere in a file of several."""
  path = lerobot.export(demos, tmp_path, 'me/video')
  for index in (2, 0, 1):
    there, back = make(LENGTHS[index], index), read(path, index)
    for key in ('image', 'image_extra'):
      assert np.abs(there[key].astype(int) - back[key]).max() <= 2
    for key in ('action', 'reward', 'state', 'success', 'is_terminal'):
      wanted = there[key].astype(back[key].dtype)
      np.testing.assert_array_equal(back[key], wanted, key)


def test_layout(exported):
  """What LeRobot looks for; the real one reads it in lerobot_policy_moto."""
  info = json.loads((exported / lerobot.INFO).read_text())
  assert info['codebase_version'] == 'v3.0' and info['fps'] == 40
  assert info['total_frames'] == sum(LENGTHS) and info['total_episodes'] == 3
  assert info['features']['observation.state']['shape'] == [5]
  video = (exported / 'videos').exists()
  image = info['features']['observation.images.image']
  assert image['dtype'] == ('video' if video else 'image')
  assert image['names'] == ['height', 'width', 'channels']
  table = parquet.read_table(exported / DATA)
  assert table['index'].to_pylist() == list(range(14))
  assert table['frame_index'].to_pylist() == [
    x for n in LENGTHS for x in range(n)
  ]
  np.testing.assert_allclose(table['timestamp'].to_pylist()[5], 0.025)
  ends = np.cumsum(LENGTHS) - 1
  assert np.flatnonzero(table['next.done']).tolist() == ends.tolist()
  assert np.flatnonzero(table['next.terminated']).tolist() == [ends[1]]
  rows = parquet.read_table(exported / EPISODES).to_pylist()
  assert [x['dataset_to_index'] for x in rows] == [4, 11, 14]
  if video:
    times = [x[f'videos/{image_key()}/from_timestamp'] for x in rows]
    np.testing.assert_allclose(times, [0, 0.1, 0.275])


def image_key():
  return 'observation.images.image'


def test_statistics(demos, exported):
  found = json.loads((exported / lerobot.STATS).read_text())
  made = [make(n, i) for i, n in enumerate(LENGTHS)]
  action = np.concatenate([e['action'][1:] for e in made]).astype(float)
  stats = found['action']
  np.testing.assert_allclose(stats['mean'], action.mean(0), rtol=1e-6)
  np.testing.assert_allclose(stats['std'], action.std(0), rtol=1e-6)
  np.testing.assert_allclose(stats['q10'], np.quantile(action, 0.1, 0))
  assert stats['max'] == action.max(0).tolist() and stats['count'] == [14]
  pixels = np.concatenate([e['image'][:-1] for e in made]) / 255
  flat = pixels.reshape(-1, 3)
  stats = {k: np.array(v) for k, v in found[image_key()].items()}
  assert stats['mean'].shape == (3, 1, 1) and stats['count'] == [14]
  for key, value in {
    'min': flat.min(0),
    'max': flat.max(0),
    'mean': flat.mean(0),
    'std': flat.std(0),
    'q50': np.quantile(flat, 0.5, 0, method='inverted_cdf'),
    'q99': np.quantile(flat, 0.99, 0, method='inverted_cdf'),
  }.items():
    np.testing.assert_allclose(stats[key].ravel(), value, err_msg=key)
  row = parquet.read_table(exported / EPISODES).to_pylist()[1]
  assert row['stats/action/max'] == made[1]['action'][1:].max(0).tolist()
  assert np.shape(row[f'stats/{image_key()}/mean']) == (3, 1, 1)


def test_files_end_where_they_are_full(demos, tmp_path, monkeypatch):
  monkeypatch.setattr(writer, 'SECONDS', 0.2)
  path = lerobot.export(demos, tmp_path, 'me/parts')
  files = sorted(x.name for x in path.glob('videos/*image/*/*'))
  assert files == ['file-000.mp4', 'file-001.mp4']
  for index in (2, 0, 1):
    image = read(path, index)['image'].astype(int)
    assert np.abs(image - make(LENGTHS[index], index)['image']).max() <= 2


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


def test_actions_of_robots_are_scaled(changed):
  """Number by number, and only those that leave [-1, 1]."""
  root = changed()
  rows = parquet.read_table(root / DATA)['action'].to_pylist()
  robot = np.array(rows) * [100, 1, 0] + [30, 0, 7]
  kind = pyarrow.list_(pyarrow.float64())
  change_table(root, DATA, action=pyarrow.array(robot.tolist(), kind))
  path = root / lerobot.STATS
  stats = json.loads(path.read_text())
  stats['action'] = {'min': [*robot.min(0)], 'max': [*robot.max(0)]}
  path.write_text(json.dumps(stats))
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


def test_export_refuses(demos, tmp_path, monkeypatch):
  for name in ('drawer', 'a/b/c', '../a', 'a b/c', 'me/', '.a/b'):
    with pytest.raises(DatasetError, match='is no name'):
      lerobot.export(demos, tmp_path, name)
  # A failure leaves nothing behind.
  with monkeypatch.context() as context:
    context.setattr(writer._Writer, 'finish', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      lerobot.export(demos, tmp_path, 'me/a')
  assert not list(tmp_path.glob('me/*'))
  lerobot.export(demos, tmp_path, 'me/a')
  with pytest.raises(DatasetError, match='exists already'):
    lerobot.export(demos, tmp_path, 'me/a')
  with monkeypatch.context() as context:
    context.setattr(pictures, 'ENCODERS', {})
    with pytest.raises(DatasetError, match='give --images png'):
      lerobot.export(demos, tmp_path, 'me/b')
  grey = make(3, 0)
  grey['depth'] = grey.pop('image')[..., :1]
  grey.pop('image_extra')
  episodes.save_episode(tmp_path / 'grey', '000000', grey)
  with pytest.raises(DatasetError, match="observation 'depth' has shape"):
    lerobot.export(tmp_path / 'grey', tmp_path, 'me/c')


def test_av1(demos, tmp_path, monkeypatch):
  """Where av has no H.264: with halved colours, so further off."""
  entry = {'libsvtav1': pictures.ENCODERS['libsvtav1']}
  monkeypatch.setattr(pictures, 'ENCODERS', entry)
  large = make(5, 0)
  large = {k: v for k, v in large.items() if k != 'image_extra'}
  large['image'] = large['image'].repeat(4, 1).repeat(4, 2)
  episodes.save_episode(tmp_path / 'large', '000000', large)
  path = lerobot.export(tmp_path / 'large', tmp_path, 'me/av1', fps=5)
  info = json.loads((path / lerobot.INFO).read_text())
  assert info['features'][image_key()]['info']['video.codec'] == 'av1'
  back = read(path, image_size=64, extra_size=0)['image']
  assert np.abs(back.astype(int) - large['image']).max() < 30


def test_frames_per_second(demos, tmp_path, capsys):
  line = ['export', str(demos), str(tmp_path), '--format', 'lerobot', '--id']
  fps = lambda name: meta.read(tmp_path / name).fps
  script.main([*line, 'me/a', '--images', 'png'])
  assert fps('me/a') == 40 and f'Wrote {tmp_path}/me/a.' in (
    capsys.readouterr().out
  )
  script.main([*line, 'me/b', '--images', 'png', '--fps', '12.5'])
  assert fps('me/b') == 12.5
  for record, wanted in (
    ({}, 10),
    ({'task': 'kitchen_mixed', 'env': {'action_repeat': 1}}, 12.5),
    ({'task': 'gym_Pendulum-v1'}, 10),
    ({'task': 'gym_Pendulum-v1', 'fps': 30.0}, 30),
  ):
    assert (writer._rate(record) or writer.UNKNOWN) == wanted
  for options in (['--fps', '0'], ['--format', 'minari', '--fps', '5']):
    with pytest.raises(SystemExit):
      script.main([*line, 'me/c', *options])
  assert 'no effect on the format minari' in capsys.readouterr().err


def test_missing_packages_are_named(demos, tmp_path, monkeypatch):
  for name in ('av', 'pyarrow'):
    with monkeypatch.context() as context:
      for module in [x for x in sys.modules if x.startswith(lerobot.__name__)]:
        if module != lerobot.__name__:
          context.delitem(sys.modules, module)
          context.delattr(lerobot, module.rpartition('.')[2])
      context.setitem(sys.modules, name, None)
      with pytest.raises(lerobot.PackageError, match='pip install'):
        lerobot.export(demos, tmp_path, 'me/a')
      with pytest.raises(lerobot.PackageError, match=name):
        lerobot.open_reader(tmp_path, '', env(), False)


def test_several_instructions_are_said_to_be_one_task():
  facts = {
    'features': {},
    'successes': True,
    'last_observation': 'stored',
    'instructions': ['open the drawer', 'close the drawer'],
  }
  info = types.SimpleNamespace(record=facts, task='gym_robot')
  text = lerobot.report(info)
  assert '2 instructions, which all became the task gym_robot' in text
  assert 'open the drawer; close the drawer' in text
  facts['instructions'] = ['open the drawer']
  assert 'instructions' not in lerobot.report(info)
