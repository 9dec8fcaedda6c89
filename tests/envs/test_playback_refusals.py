"""Kitchen data that is damaged or something else: named, skipped, refused."""

import dataclasses

import h5py
import numpy as np
import pytest
from kitchen_files import write_d4rl, write_d5rl, write_minari, write_mjl
from playback_helpers import load, recipe

import moto_tf
from moto_tf.commands import dataset as script
from moto_tf.data import episodes, importers, store
from moto_tf.data.formats import SourceError
from moto_tf.envs.kitchen import tasks as kitchen
from moto_tf.envs.kitchen.formats import FORMATS
from moto_tf.envs.kitchen.sources import d4rl, d5rl, rpl

NO_IMAGE = moto_tf.make_config('kitchen', {'env.image': False}).env


def broken(kind, live, tmp_path):
  """Files that must be refused, with a part of the message."""
  if kind == 'minari':
    path = write_minari(tmp_path / 'a', live) / 'data' / 'main_data.hdf5'
    with h5py.File(path, 'a') as file:
      for i in (0, 1):
        del file[f'episode_{i}/actions']
        file[f'episode_{i}/actions'] = np.zeros((9, 4))
    return path, r'episode_0/actions has shape \(9, 4\)'
  if kind == 'd4rl':
    path = write_d4rl(tmp_path / 'a.hdf5', live, actions=np.ones((20, 4)))
    return path, r'actions has shape \(20, 4\).*expected numbers of shape \(20'
  if kind == 'rpl':
    path = write_mjl(tmp_path / 'a.mjl', live[0], sizes=(29, 29, 9))
    return path, r'sizes \(29, 29, 9\), expected \(30, 29, 9\)'
  path = write_d5rl(tmp_path / 'a.npz', live[0], action=np.ones((10, 4)))
  return path, r"'action' has shape \(10, 4\)"


@pytest.mark.parametrize('kind', FORMATS)
def test_files_that_are_something_else(live, tmp_path, kind):
  path, message = broken(kind, live, tmp_path)
  out = tmp_path / 'out'
  with pytest.raises(SourceError, match=message):
    importers.import_dataset(recipe(kind, path), out)
  # Cut short: no format is read beyond what is there.
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2 + 1])
  with pytest.raises(SourceError) as error:
    importers.import_dataset(recipe(kind, path), out)
  assert str(path) in str(error.value) and 'Get ' in str(error.value)
  path.write_bytes(b'')
  with pytest.raises(SourceError, match=str(path)):
    importers.import_dataset(recipe(kind, path), out)
  # Nothing there: where to get it.
  for absent in (tmp_path / 'absent', tmp_path / 'empty'):
    (tmp_path / 'empty').mkdir(exist_ok=True)
    with pytest.raises(SourceError, match='there is no.*Get '):
      importers.import_dataset(recipe(kind, absent), out)
  assert not out.exists()


def spoil(kind, live, tmp_path):
  """Four trajectories, of which the second is bad; what is said of it."""
  episodes = [live[0], live[1], live[0], live[1]]
  if kind == 'd4rl':
    action = np.zeros((40, 9), np.float32)
    action[13] = np.nan
    path = write_d4rl(tmp_path / 'a.hdf5', episodes, actions=action)
    return path, 'from row 10, actions is not finite at 3'
  if kind == 'minari':
    path = write_minari(tmp_path / 'a', episodes)
    with h5py.File(path / 'data' / 'main_data.hdf5', 'a') as file:
      file['episode_1/rewards'][2] = np.inf
    return path, 'episode_1/rewards is not finite at 2'
  folder, suffix = tmp_path / 'a', {'rpl': 'mjl', 'd5rl': 'npz'}[kind]
  make = {'rpl': write_mjl, 'd5rl': write_d5rl}[kind]
  for index, episode in enumerate(episodes):
    # Unlike each other, so that none is a copy.
    episode = {**episode, 'action': episode['action'] * (1 - 0.01 * index)}
    make(folder / f'{index}.{suffix}', episode)
  path = folder / f'1.{suffix}'
  path.write_bytes(path.read_bytes()[:-100])
  return folder, f'1.{suffix}: '


@pytest.mark.parametrize('kind', FORMATS)
def test_one_bad_trajectory_is_named_and_skipped(live, tmp_path, kind, capsys):
  path, message = spoil(kind, live, tmp_path)
  out = tmp_path / 'out'
  made = recipe(kind, path)
  made = dataclasses.replace(made, env=NO_IMAGE)
  importers.import_dataset(made, out, 2)
  text = capsys.readouterr()
  assert text.err.count('skipped, ') == 1 and message in text.err
  assert f'3 of 4 trajectories are in {out}, 1 are skipped.' in text.out
  names = [x.name[:6] for x in episodes.find_episodes(out)]
  assert names == ['000000', '000002', '000003']
  # Mended, the same command adds it.
  if kind == 'd5rl':
    write_d5rl(path / '1.npz', live[1])
    importers.import_dataset(made, out)
    assert len(episodes.find_episodes(out)) == 4
    # Another file in the place of one shifts the numbers.
    (path / '0.npz').rename(path / '9.npz')
    with pytest.raises(store.StoreError, match='trajectories of other names'):
      importers.import_dataset(made, out)
    (path / '9.npz').rename(path / '0.npz')
    write_d5rl(path / '4.npz', live[1])
    with pytest.raises(store.StoreError, match='made of 4 .* now there are 5'):
      importers.import_dataset(made, out)


def test_copies_and_what_is_no_data(live, tmp_path, capsys):
  """As in the public archive, unpacked on a Mac."""
  folder = tmp_path / 'a'
  write_mjl(folder / 'one' / 'log.mjl', live[0])
  write_mjl(folder / 'two' / 'other.mjl', live[1])
  (folder / 'two' / 'misplaced.mjl').mkdir()
  data = (folder / 'one' / 'log.mjl').read_bytes()
  for name in ('one/log (1).mjl', 'two/one/log.mjl'):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
  for name in ('one/._log.mjl', '__MACOSX/one/._log.mjl', '.hidden/log.mjl'):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b'no data')
  made = importers.Import('rpl', folder, 'kitchen_mixed', NO_IMAGE)
  importers.import_dataset(made, tmp_path / 'out')
  text = capsys.readouterr()
  assert '2 of 4 trajectories are in' in text.out
  for name in ('one/log (1).mjl', 'two/one/log.mjl'):
    assert f'{name}: is an identical copy of log.mjl' in text.err
  for ours, theirs in zip(load(tmp_path / 'out'), live, strict=True):
    np.testing.assert_array_equal(ours['reward'], theirs['reward'])


def test_rewards_by_other_names_are_refused_at_once(live, tmp_path):
  """`switch` and `slide`, as others call light switch and slide cabinet."""
  rewards = {f'reward {name}': None for name in kitchen.GOALS}
  short = ('microwave', 'kettle', 'switch', 'slide')
  rewards |= {f'reward {name}': np.zeros(10, np.float32) for name in short}
  write_d5rl(tmp_path / 'a' / '0.npz', live[0], **rewards)
  with pytest.raises(SourceError) as error:
    importers.import_dataset(recipe('d5rl', tmp_path / 'a'), tmp_path / 'out')
  for part in ('0.npz', 'for light switch, slide cabinet, only', 'switch'):
    assert part in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_minari_of_another_environment(live, tmp_path):
  path = write_minari(tmp_path / 'a', live) / 'data' / 'main_data.hdf5'
  with h5py.File(path, 'a') as file:
    for i in (0, 1):
      del file[f'episode_{i}/observations']
      file[f'episode_{i}/observations'] = np.zeros((10, 17))
  with pytest.raises(SourceError, match='an array of shape .10, 17., expected'):
    importers.import_dataset(recipe('minari', path), tmp_path / 'out')


def test_what_formats_hold_must_be_right(live, tmp_path):
  refused = {
    'observations': np.zeros((20, 59), np.float32),
    'rewards': np.full(20, np.nan, np.float32),
    'terminals': None,
    'actions': np.full((20, 9), 2, np.float32),
  }
  messages = (
    r'\(any, 60\)',
    'rewards is not finite at 0',
    'terminals',
    '-1 to 1',
  )
  for (key, value), message in zip(refused.items(), messages):
    path = write_d4rl(tmp_path / f'{key}.hdf5', live, **{key: value})
    with pytest.raises(SourceError, match=message):
      d4rl.Source(path).read(0)
  path = write_mjl(tmp_path / 'a.mjl', live[0])
  data = bytearray(path.read_bytes())
  path.write_bytes(data[:-4])
  with pytest.raises(SourceError, match='expected a multiple of 324'):
    rpl.Source(path).read(0)
  start, width = 4 * 7 + 8, 4 * (1 + 68 + 12)
  times = np.arange((len(data) - start) // width, dtype='<f4') * 0.03
  for i, time in enumerate(times):
    data[start + i * width : start + i * width + 4] = time.tobytes()
  path.write_bytes(data)
  with pytest.raises(SourceError, match='a record every 0.03 s'):
    rpl.Source(path).read(0)
  first = np.array(live[0]['action'])
  first[0, 0] = 0.5
  path = write_d5rl(tmp_path / 'a.npz', live[0], action=first)
  with pytest.raises(SourceError, match='first action of up to 0.5'):
    d5rl.Source(path).read(0)
  path = write_d5rl(tmp_path / 'b.npz', live[0], action=first.astype(object))
  with pytest.raises(SourceError, match='b.npz: unreadable'):
    d5rl.Source(path).read(0)
  none = {f'reward {name}': None for name in kitchen.GOALS}
  path = write_d5rl(tmp_path / 'c.npz', live[0], **none)
  with pytest.raises(SourceError, match="neither 'reward' nor"):
    d5rl.Source(path).read(0)
  many = tmp_path / 'many'
  many.mkdir()
  for name in 'ab':
    write_d4rl(many / f'{name}.hdf5', live)
  with pytest.raises(SourceError, match='several.*a.hdf5, b.hdf5'):
    d4rl.Source(many)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'env.action_repeat': 2}, '80 ms each; set --env.action_repeat 1'),
    ({'env.camera': 'left_cap'}, 'images of the default camera'),
  ],
)
def test_what_stored_steps_and_images_are_not(
  live, tmp_path, settings, message
):
  env = moto_tf.make_config('kitchen', {'env.fast_render': False}, settings).env
  path = write_d5rl(tmp_path / 'a.npz', live[0])
  made = importers.Import('d5rl', path, 'kitchen_mixed', env)
  with pytest.raises(SourceError, match=message):
    importers.import_dataset(made, tmp_path / 'no')
  assert not (tmp_path / 'no').exists()


def test_relabel_is_refused_where_it_does_nothing(tmp_path, capsys):
  (tmp_path / 'log').mkdir()
  words = [str(tmp_path / 'log'), str(tmp_path / 'out'), '--relabel']
  for name in ('rpl', 'lerobot'):
    line = ['import', *words, '--format', name, '--task', 'kitchen_mixed']
    with pytest.raises(SystemExit, match=f'no effect on the format {name}'):
      script.main(line)
