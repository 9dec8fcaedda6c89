"""Imports of public kitchen data, from files of their exact layouts."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from env_helpers import settings
from kitchen_files import write_d4rl, write_d5rl, write_minari, write_mjl

import moto_tf
from moto_tf.commands import dataset as script
from moto_tf.data import episodes, importers, inspect, store
from moto_tf.data.formats import SourceError
from moto_tf.envs import EnvError, make_env
from moto_tf.envs.kitchen import tasks as kitchen
from moto_tf.envs.kitchen.env import Painter, make_simulation
from moto_tf.envs.kitchen.formats import FORMATS
from moto_tf.envs.kitchen.playback import Playback
from moto_tf.envs.kitchen.sources import Trajectory, d4rl, d5rl, minari, rpl

ENV = moto_tf.make_config('kitchen').env
NO_IMAGE = moto_tf.make_config('kitchen', {'env.image': False}).env
SHADOWS = moto_tf.make_config('kitchen', **{'env.fast_render': False}).env


@pytest.fixture(scope='module')
def live():
  """Two episodes of the running environment, with objects put in place."""
  env = make_env(
    'kitchen_mixed', settings(action_repeat=1, time_limit=9, image=True)
  )
  found = []
  for seed, plan in enumerate(
    (
      {2: 'kettle', 4: 'microwave', 6: 'slide cabinet', 7: 'light switch'},
      {3: 'bottom burner', 5: 'light switch'},
    )
  ):
    rng = np.random.default_rng(seed)
    records = [env.reset(seed)]
    actions = rng.uniform(-0.99, 0.99, (9, 9)).astype(np.float32)
    for step, action in enumerate(actions):
      if step in plan:
        index, goal = kitchen.GOALS[plan[step]]
        env.data.qpos[list(index)] = goal
      records.append(env.step(action))
    episode = {k: np.stack([r[k] for r in records]) for k in records[0]}
    episode['action'] = np.concatenate([np.zeros((1, 9)), actions])
    found.append(episode)
  env.close()
  assert found[0]['success'][-1] and not found[1]['success'].any()
  assert set(found[0]['reward']) == {0, 1, 2, 3, 4}
  assert set(found[1]['reward']) == {0, 1}
  return found


def recipe(kind, path, task='kitchen_mixed', **changes):
  env = SHADOWS if kind == 'd5rl' else ENV
  return importers.Import(kind, path, task, env, **changes)


def load(directory):
  paths = episodes.find_episodes(directory)
  return [episodes.load_episode(path) for path in paths]


def check(found, wanted, keys):
  assert len(found) == len(wanted)
  for ours, theirs in zip(found, wanted):
    for key in ('action', 'reward', 'success', 'is_first', 'is_last', *keys):
      np.testing.assert_allclose(ours[key], theirs[key], atol=1e-7, err_msg=key)
    assert not ours['is_terminal'].any()


def test_d4rl_is_the_live_episode_again(live, tmp_path, capsys):
  path = write_d4rl(tmp_path / 'kitchen.hdf5', live)
  info = importers.import_dataset(recipe('d4rl', path), tmp_path / 'out', 2)
  found = load(tmp_path / 'out')
  check(found, live, ('qpos', 'places', 'image'))
  for ours, theirs in zip(found, live):
    np.testing.assert_array_equal(ours['image'], theirs['image'])
    assert 'state' not in ours and 'next_action' not in ours
  assert info.record['equal_rewards'] == pytest.approx(
    {'mixed': 1.0, 'complete': 1.0, 'partial': 0.7}, abs=0.15
  )
  assert info.record['task'] == 'kitchen_mixed'
  assert info.lengths.tolist() == [9, 9]
  assert info.measures['placed'].sum(1).tolist() == [4, 2]
  assert '2/2 episodes' in capsys.readouterr().out
  # Also from a folder, and where only the robot's jump home tells episodes.
  folder = tmp_path / 'folder'
  folder.mkdir()
  away = {**live[1], 'qpos': live[1]['qpos'] + 0.6 * (np.arange(30) < 9)}
  flat = np.zeros(20, np.float32)
  write_d4rl(folder / 'kitchen.hdf5', [live[0], away], terminals=flat)
  source = d4rl.Source(folder)
  assert source.names == ['row 0', 'row 10']
  np.testing.assert_allclose(source.read(1).qpos, away['qpos'], rtol=1e-6)


def test_minari(live, tmp_path):
  path = write_minari(tmp_path / 'mixed-v2', live)
  info = importers.import_dataset(recipe('minari', path), tmp_path / 'out')
  found = load(tmp_path / 'out')
  check(found, live, ('state', 'proprio'))
  # Positions have the noise of the sensors, which moves the robot by 0.001.
  painter = Painter(make_simulation(()).model, 64, 'default', True)
  for ours, theirs in zip(found, live):
    np.testing.assert_allclose(ours['qpos'], theirs['qpos'], atol=1.1e-3)
    for qpos, image in zip(ours['qpos'], ours['image']):
      np.testing.assert_array_equal(painter(qpos), image)
  painter.close()
  assert info.record['equal_rewards']['mixed'] == 1
  # A file is as good as its folder; and there may be more than ten episodes.
  source = minari.Source(path / 'data' / 'main_data.hdf5')
  assert source.names == ['episode_0', 'episode_1']
  many = write_minari(tmp_path / 'many', [live[0]] * 11)
  assert minari.Source(many).names[-2:] == [
    'episode_9', 'episode_10'
  ]  # fmt: skip


def test_rpl(live, tmp_path):
  for index, episode in enumerate(live):
    write_mjl(tmp_path / 'demos' / f'task_{index}' / 'log.mjl', episode)
  out = tmp_path / 'out'
  info = importers.import_dataset(recipe('rpl', tmp_path / 'demos'), out)
  found = load(out)
  for ours, theirs in zip(found, live):
    np.testing.assert_array_equal(ours['image'], theirs['image'])
    np.testing.assert_allclose(ours['action'], theirs['action'], atol=1e-5)
    np.testing.assert_array_equal(ours['reward'], theirs['reward'])
    # Velocities as they were, positions without noise.
    where = [*range(9, 18), *range(39, 59)]
    np.testing.assert_array_equal(
      ours['state'][:, where], theirs['state'][:, where]
    )
    np.testing.assert_array_equal(ours['state'][:, :9], theirs['qpos'][:, :9])
  assert info.record['equal_rewards'] == {}
  # The controller may ask for more than the fastest action.
  fast = {**live[0], 'action': 1.5 * live[0]['action']}
  path = write_mjl(tmp_path / 'fast.mjl', fast)
  action = rpl.Source(path).read(0).action
  clipped = np.clip(fast['action'][1:], -0.999, 0.999)
  np.testing.assert_allclose(action, clipped, atol=1e-5)
  assert np.abs(action).max() == np.float32(0.999)


def test_d5rl(live, tmp_path):
  for index, episode in enumerate(live):
    write_d5rl(tmp_path / 'npz' / f'{index}.npz', episode)
  out = tmp_path / 'out'
  info = importers.import_dataset(recipe('d5rl', tmp_path / 'npz'), out, 2)
  check(load(out), live, ('image',))
  assert info.keys.keys().isdisjoint(('qpos', 'state', 'proprio'))
  assert info.record['equal_rewards'] == {}
  # Live images would look different.
  made = importers.Import('d5rl', tmp_path / 'npz', 'kitchen_mixed', ENV)
  with pytest.raises(SourceError, match='--env.fast_render False'):
    importers.import_dataset(made, tmp_path / 'fast')
  assert not (tmp_path / 'fast').exists()
  # Other sizes lie under other keys.
  large = np.zeros((10, 96, 96, 3), np.uint8)
  path = write_d5rl(tmp_path / 'one.npz', live[0], large)
  image = d5rl.Source(path).read(0).image
  np.testing.assert_array_equal(image(96), large)
  with pytest.raises(SourceError, match=r'no images .*image_128 uint8'):
    image(84)
  # A reward of all objects together can be taken for that of the task only.
  total = live[0]['reward']
  only = {f'reward {name}': None for name in kitchen.GOALS}
  write_d5rl(tmp_path / 'sum' / '0.npz', live[0], reward=total, **only)
  both = importers.import_dataset(
    recipe('d5rl', tmp_path / 'sum'), tmp_path / 'b'
  )
  check(load(tmp_path / 'b'), live[:1], ('image',))
  assert both.record['equal_rewards'] == {}


@pytest.mark.parametrize('kind', ['d4rl', 'minari', 'd5rl'])
def test_rewards_of_another_task(live, tmp_path, kind):
  """As in D4RL's kitchen-mixed, which is the paper's partial."""
  if kind == 'd4rl':
    path = write_d4rl(tmp_path / 'a.hdf5', live)
  elif kind == 'minari':
    path = write_minari(tmp_path / 'a', live)
  else:
    path = tmp_path / 'a.npz'
    write_d5rl(path, live[0], reward=live[0]['reward'])
  out = tmp_path / 'out'
  with pytest.raises(SourceError) as error:
    importers.import_dataset(recipe(kind, path, 'kitchen_partial'), out)
  for text in (
    str(path),
    'mixed 100.0 %',
    'Give --task kitchen_mixed',
    'relabel',
  ):
    assert text in str(error.value)
  assert not out.exists()
  if kind == 'd4rl':
    task = 'kitchen_partial'
    importers.import_dataset(recipe(kind, path, task, relabel=True), out)
    found = load(out)
    for ours, theirs in zip(found, live):
      where = kitchen.in_place(theirs['qpos'], kitchen.TASKS['partial'])
      np.testing.assert_array_equal(ours['reward'], where.sum(-1))
    with pytest.raises(SourceError, match='another format, or damaged'):
      write_d4rl(path, live, rewards=np.full(20, 3, np.float32))
      importers.import_dataset(recipe(kind, path), tmp_path / 'new')


def test_goes_on_after_an_interruption(live, tmp_path, monkeypatch):
  path = write_d4rl(tmp_path / 'a.hdf5', [*live, *live])
  out, made = tmp_path / 'out', []
  save = episodes.save_episode

  def interrupted(directory, name, episode):
    if len(made) == 3:
      raise KeyboardInterrupt
    made.append(name)
    return save(directory, name, episode)

  monkeypatch.setattr(episodes, 'save_episode', interrupted)
  with pytest.raises(KeyboardInterrupt):
    importers.import_dataset(recipe('d4rl', path), out)
  assert made == ['000000', '000001', '000002']
  monkeypatch.setattr(episodes, 'save_episode', save)
  before = [(x, x.stat().st_mtime_ns) for x in episodes.find_episodes(out)]
  importers.import_dataset(recipe('d4rl', path), out)
  after = [(x, x.stat().st_mtime_ns) for x in episodes.find_episodes(out)]
  assert after[:3] == before
  check(load(out), [*live, *live], ('qpos', 'image'))
  other = write_d4rl(tmp_path / 'b.hdf5', live)
  with pytest.raises(store.StoreError, match='source .*a.hdf5.*b.hdf5'):
    importers.import_dataset(recipe('d4rl', other), out)


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


def test_script(live, tmp_path, capsys):
  path = write_d4rl(tmp_path / 'kitchen.hdf5', live)
  out = str(tmp_path / 'out')
  line = ['import', '--format', 'd4rl', str(path), out, '--task']
  script.main([*line, 'mixed', '--env.image_size', '32'])
  text = capsys.readouterr().out
  for row in (
    'episodes 2 563',
    'transitions 18 128569',
    'full successes 0.500',
  ):
    assert ' '.join(row.split()) in ' '.join(text.split())
  assert 'stored ones equal the computed ones in kitchen_mixed 100.00 %' in text
  assert load(out)[0]['image'].shape == (10, 32, 32, 3)
  record = json.loads((tmp_path / 'out' / 'dataset.json').read_text())
  assert record['env']['image_size'] == 32
  assert record['source'] == f'{tmp_path.name}/kitchen.hdf5'
  script.main(['info', out])
  text = capsys.readouterr().out
  assert 'made as        task kitchen_mixed, format d4rl' in text
  assert '128569' in text
  for wrong, message in (
    (['kitchen_partial'], 'Give --task kitchen_mixed'),
    (['kitchen_typo'], 'Unknown kitchen task'),
    (['kitchen_mixed'], r'image_size 32 there, 64 now'),
  ):
    with pytest.raises(SystemExit, match=message):
      script.main([*line, *wrong])
  with pytest.raises(SystemExit):
    script.main([*line, 'kitchen_mixed', '--seed', '1'])
  assert 'unknown option --seed' in capsys.readouterr().err


def test_without_images(live, tmp_path):
  env = moto_tf.make_config('kitchen', **{'env.image': False}).env
  path = write_minari(tmp_path / 'a', live)
  made = importers.Import('minari', path, 'kitchen_mixed', env)
  info = importers.import_dataset(made, tmp_path / 'out')
  assert 'image' not in info.keys and info.keys['state'] == ((59,), 'float32')
  with pytest.raises(EnvError, match='Unknown kitchen task'):
    importers.import_dataset(
      recipe('minari', path, 'kitchen_all'), tmp_path / 'b'
    )
  found = inspect.inspect(tmp_path / 'out').measures['placed']
  assert found.sum(1).tolist() == [4, 2]


def test_second_image(live, tmp_path):
  env = moto_tf.make_config('kitchen', **{'env.extra_size': 32}).env
  path = write_d4rl(tmp_path / 'a.hdf5', live[:1])
  made = importers.Import('d4rl', path, 'kitchen_mixed', env)
  importers.import_dataset(made, tmp_path / 'out')
  found = load(tmp_path / 'out')
  assert found[0]['image_extra'].shape == (10, 32, 32, 3)
  np.testing.assert_array_equal(found[0]['image'], live[0]['image'])
  write_d5rl(tmp_path / 'a.npz', live[0])
  made = importers.Import('d5rl', tmp_path / 'a.npz', 'kitchen_mixed', env)
  with pytest.raises(SourceError, match='--env.extra_size 0'):
    importers.import_dataset(made, tmp_path / 'no')


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


@pytest.mark.parametrize('stored', ['positions', 'objects', 'sum'])
def test_what_is_in_place_at_the_reset_is_no_achievement(stored):
  """The microwave is in place at the first record only, the rest later."""
  later = np.float32([0, 1, 1])
  rewards = {x: later for x in kitchen.TASKS['mixed']}
  rewards['microwave'] = np.float32([1, 0, 0])
  action = np.zeros((2, 9), np.float32)
  made = {'action': action, 'rewards': rewards}
  if stored == 'sum':
    made = {'action': action, 'reward': np.float32([4, 3, 3])}
  if stored == 'positions':
    qpos = np.zeros((3, 30), np.float32)
    for name, placed in rewards.items():
      index, goal = kitchen.GOALS[name]
      qpos[:, list(index)] = placed[:, None] * np.array(goal)
    made = {'action': action, 'qpos': qpos}

  class Source:
    names = ('only',)

    def read(self, index):
      return Trajectory(**made)

  env = moto_tf.make_config('kitchen', {'env.image': False}).env
  reader = Playback(Source(), 'path', 'kitchen_mixed', env, False)
  episode = reader.read(0)
  assert episode['reward'].tolist() == [0, 3, 3]
  assert not episode['success'].any()
