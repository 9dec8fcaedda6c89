"""Imports of public kitchen data, from files of their exact layouts."""

import json

import numpy as np
import pytest
from kitchen_files import write_d4rl, write_d5rl, write_minari, write_mjl
from playback_helpers import ENV, check, load, recipe

import moto_tf
from moto_tf.commands import dataset as script
from moto_tf.data import episodes, importers, inspect, store
from moto_tf.data.formats import SourceError
from moto_tf.envs import EnvError
from moto_tf.envs.kitchen import tasks as kitchen
from moto_tf.envs.kitchen.env import Painter, make_simulation
from moto_tf.envs.kitchen.playback import Playback
from moto_tf.envs.kitchen.sources import Trajectory, d4rl, d5rl, minari, rpl


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
