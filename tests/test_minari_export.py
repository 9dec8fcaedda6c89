"""Our episodes in Minari's layout."""

import io
import json

import h5py
import numpy as np
import pytest
from PIL import Image

from moto_tf.commands import dataset as script
from moto_tf.data import episodes, minari_export
from moto_tf.data.exporters import DatasetError
from moto_tf.files import FileError


def make(length, seed, size=40):
  rng = np.random.default_rng(seed)
  records = length + 1
  action = rng.uniform(-1, 1, (records, 3)).astype(np.float32)
  action[0] = 0
  return {
    'image': rng.integers(0, 256, (records, size, size, 3), np.uint8),
    'tiny': rng.integers(0, 256, (records, 8, 8, 3), np.uint8),
    'state': rng.normal(size=(records, 5)).astype(np.float32),
    'action': action,
    'reward': rng.normal(size=records).astype(np.float32),
    'is_first': np.arange(records) == 0,
    'is_last': np.arange(records) == length,
    'is_terminal': (np.arange(records) == length) & (seed == 0),
    'success': np.arange(records) > 2,
  }


@pytest.fixture
def demos(tmp_path):
  made = [make(4, 0), make(6, 1)]
  for index, episode in enumerate(made):
    episodes.save_episode(tmp_path / 'demos', f'{index:06d}', episode)
  return tmp_path / 'demos', made


def test_every_value_is_there(demos, tmp_path):
  directory, made = demos
  path = minari_export.export(directory, tmp_path / 'out', 'a/kitchen-v0')
  assert path == tmp_path / 'out' / 'a' / 'kitchen-v0'
  with h5py.File(path / 'data' / 'main_data.hdf5') as file:
    assert list(file) == ['episode_0', 'episode_1']
    for index, episode in enumerate(made):
      group, steps = file[f'episode_{index}'], len(episode['reward']) - 1
      assert dict(group.attrs) == {'id': index, 'total_steps': steps}
      same = np.testing.assert_array_equal
      same(group['actions'], episode['action'][1:])
      same(group['rewards'], episode['reward'][1:])
      same(group['terminations'], episode['is_terminal'][1:])
      # A time limit ends the second one.
      same(group['truncations'], (np.arange(steps) == steps - 1) & (index == 1))
      same(group['infos/success'], episode['success'])
      same(group['observations/state'], episode['state'])
      same(group['observations/tiny'], episode['tiny'])
      files = group['observations/image'][()]
      images = [Image.open(io.BytesIO(x.tobytes())) for x in files]
      same(np.stack([np.array(x) for x in images]), episode['image'])
      assert set(group['observations']) == {'image', 'tiny', 'state'}


def test_metadata(demos, tmp_path):
  directory, _ = demos
  (directory / 'dataset.json').write_text('{"task": "a", "policy": "scripted"}')
  path = minari_export.export(directory, tmp_path / 'out', 'kitchen-v2')
  metadata = json.loads((path / 'data' / 'metadata.json').read_text())
  assert metadata['dataset_id'] == 'kitchen-v2'
  assert metadata['total_episodes'] == 2 and metadata['total_steps'] == 10
  assert metadata['data_format'] == 'hdf5'
  assert metadata['algorithm_name'] == 'scripted'
  spaces = json.loads(metadata['observation_space'])
  assert spaces['type'] == 'Dict'
  image, state = (spaces['subspaces'][key] for key in ('image', 'state'))
  assert image['shape'] == [40, 40, 3] and image['dtype'] == 'uint8'
  assert np.array_equal(image['low'], np.zeros((40, 40, 3)))
  assert np.array_equal(image['high'], np.full((40, 40, 3), 255))
  assert state['low'] == [-np.inf] * 5 and state['dtype'] == 'float32'
  action = json.loads(metadata['action_space'])
  assert action['low'] == [-1] * 3 and action['high'] == [1] * 3


def test_refusals(demos, tmp_path, monkeypatch):
  directory, _ = demos
  root = tmp_path / 'out'
  export = lambda name='a-v0': minari_export.export(directory, root, name)
  for name in ('a', 'a b-v0', '../a-v0', '/a-v0', 'a-v0/'):
    with pytest.raises(DatasetError, match='is no name'):
      export(name)
  # A failure leaves nothing behind.
  with monkeypatch.context() as context:
    context.setattr(minari_export, '_write_episode', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      export()
  assert not root.exists()  # It was not there before.

  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as context:
    context.setattr(minari_export, '_write_episode', full)
    with pytest.raises(FileError, match='a-v0: No space left'):
      export()
  assert not root.exists()  # It was not there before.
  export()
  with pytest.raises(DatasetError, match='exists already'):
    export()
  broken = directory / '000000-4.npz'
  broken.write_bytes(broken.read_bytes()[:-50])
  with pytest.raises(DatasetError, match='damaged: 000000-4.npz'):
    export('b-v0')
  with pytest.raises(episodes.EpisodeError, match='no such directory'):
    minari_export.export(tmp_path / 'typo', root, 'c-v0')


def test_script(demos, tmp_path, capsys):
  directory, _ = demos
  line = ['export', str(directory), str(tmp_path / 'out'), '--id']
  script.main([*line, 'a-v0'])
  assert f'Wrote {tmp_path}/out/a-v0.' in capsys.readouterr().out
  with pytest.raises(SystemExit, match='exists already'):
    script.main([*line, 'a-v0'])
