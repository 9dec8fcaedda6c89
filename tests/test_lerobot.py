"""Datasets of LeRobot, without LeRobot: there, in which layout, and back."""

import json
import os
import sys
import types

import numpy as np
import pytest
from lerobot_helpers import (
  DATA,
  EPISODES,
  LENGTHS,
  SIZE,
  env,
  image_key,
  make,
  read,
)
from pyarrow import parquet

from moto_tf.commands import dataset as script
from moto_tf.data import episodes, inspect, lerobot
from moto_tf.data.exporters import DatasetError
from moto_tf.data.lerobot import meta, pictures, writer


@pytest.fixture(scope='module', params=['png', 'video'])
def exported(request, demos, tmp_path_factory):
  root = tmp_path_factory.mktemp(request.param)
  return lerobot.export(demos, root, 'me/drawer', images=request.param)


def test_there_and_back(demos, tmp_path):
  """As the commands do it; images as PNG are the same."""
  line = ['export', str(demos), str(tmp_path), '--format', 'lerobot']
  script.main([*line, '--id', 'me/drawer', '--images', 'png'])
  exported, out = tmp_path / 'me' / 'drawer', tmp_path / 'back'
  line = ['--task', 'drawer-open', '--workers', '1', str(exported), str(out)]
  # Values of settings are not taken for the dataset, wherever they stand.
  size = ['--env.image_size', str(SIZE), '--env.extra_size', str(SIZE)]
  script.main(['import', *size, '--format', 'lerobot', *line])
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


@pytest.mark.skipif(
  not hasattr(os, 'sched_getscheduler'), reason='without scheduling policies'
)
@pytest.mark.parametrize('encoder', pictures.ENCODERS)
def test_encoding_leaves_threads_as_they_are(encoder, tmp_path):
  """SVT-AV1 makes real-time threads of those of root, the calling one too."""
  if encoder not in pictures.av.codecs_available:
    pytest.skip(f'av has no {encoder}')
  policies = lambda: {
    os.sched_getscheduler(int(name)) for name in os.listdir('/proc/self/task')
  }
  video = pictures.VideoWriter(tmp_path / 'a.mp4', 10, (64, 64), encoder)
  for _ in range(3):
    video.add(np.zeros((64, 64, 3), np.uint8))
    assert policies() == {os.SCHED_OTHER}
  video.close()
  assert policies() == {os.SCHED_OTHER}


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
