"""Recorded demonstrations: which attempts are kept, and going on."""

import json

import numpy as np
import pytest
from data_helpers import FakeRecorder, decode, make_episode
from gymnasium.spaces import Box

import moto_tf
from moto_tf import envs
from moto_tf.commands import collect, train
from moto_tf.commands import dataset as dataset_script
from moto_tf.data import episodes, record, store


@pytest.fixture
def fake(monkeypatch):
  monkeypatch.setattr(record, 'Recorder', FakeRecorder)
  monkeypatch.setattr(FakeRecorder, 'made', [])
  return FakeRecorder


def recipe(**changes):
  options = {
    'task': 'metaworld_plate-slide',
    'env': {'image_size': 8},
    **changes,
  }
  return record.Recording(**options)


def names(directory):
  return [path.name for path in episodes.find_episodes(directory)]


def test_collect_keeps_successes_and_resumes(fake, tmp_path, capsys):
  straight = record.collect(recipe(), tmp_path / 'a', 4)
  assert names(tmp_path / 'a') == [f'{i:06d}-5.npz' for i in (0, 2, 3, 5)]
  assert len(straight.lengths) == 4 and straight.successes.all()
  assert straight.record['dropped'] == [1, 4] and straight.tries == 6
  assert '4/4 episodes, 2 dropped' in capsys.readouterr().out

  fake.made.clear()
  record.collect(recipe(), tmp_path / 'b', 2)
  record.collect(recipe(), tmp_path / 'b', 4)
  record.collect(recipe(), tmp_path / 'b', 3)
  assert fake.made == [0, 1, 2, 3, 4, 5]
  (tmp_path / 'b' / '000002-5.npz').unlink()
  resumed = record.collect(recipe(), tmp_path / 'b', 4)
  assert fake.made[6:] == [2]
  assert resumed.record == straight.record
  for name in names(tmp_path / 'a'):
    first, second = ((tmp_path / d / name).read_bytes() for d in 'ab')
    assert first == second


def test_collect_keeps_all_outcomes(fake, tmp_path):
  info = record.collect(recipe(all_outcomes=True), tmp_path, 3)
  assert info.successes.tolist() == [True, False, True]
  assert info.record['dropped'] == []


def test_collect_goes_on_after_a_crash(fake, tmp_path, monkeypatch):
  def crash(self, index):
    if index == 3:
      raise KeyboardInterrupt
    return make_episode(5, wins=index % 3 != 1, seed=index)

  with monkeypatch.context() as context:
    context.setattr(fake, 'attempt', crash)
    with pytest.raises(KeyboardInterrupt):
      record.collect(recipe(), tmp_path, 4)
  assert names(tmp_path) == ['000000-5.npz', '000002-5.npz']
  record.collect(recipe(), tmp_path, 4)
  assert fake.made == [3, 4, 5]


@pytest.mark.parametrize(
  'change, message',
  [
    ({'seed': 1}, 'seed 0 there, 1 now'),
    ({'noise': 0.3}, 'noise 0.0 there, 0.3 now'),
    (
      {'task': 'metaworld_hammer'},
      "task 'metaworld_plate-slide' there, 'metaworld_ham",
    ),
    ({'all_outcomes': True}, 'all_outcomes False there, True now'),
    ({'env': {'image_size': 64}}, r'env\.image_size 8 there, 64 now'),
  ],
)
def test_collect_refuses_other_settings(fake, tmp_path, change, message):
  record.collect(recipe(), tmp_path, 1)
  before = names(tmp_path), (tmp_path / 'dataset.json').read_bytes()
  with pytest.raises(store.StoreError, match=message):
    record.collect(recipe(**change), tmp_path, 5)
  assert before == (
    names(tmp_path), (tmp_path / 'dataset.json').read_bytes()
  )  # fmt: skip


def test_settings_may_change_while_there_are_no_episodes(fake, tmp_path):
  def fail(self, index):
    raise ValueError('no such camera')

  with pytest.MonkeyPatch.context() as context:
    context.setattr(fake, 'attempt', fail)
    with pytest.raises(ValueError, match='no such camera'):
      record.collect(recipe(env={'camera': 'typo'}), tmp_path, 1)
  info = record.collect(recipe(env={'camera': 'right'}), tmp_path, 1)
  assert info.record['env'] == {'camera': 'right'}


def test_collect_refuses_foreign_and_damaged_files(fake, tmp_path):
  episodes.save_episode(tmp_path / 'a', 'online', make_episode())
  with pytest.raises(store.StoreError, match='no dataset.json'):
    record.collect(recipe(), tmp_path / 'a', 2)
  record.collect(recipe(), tmp_path / 'b', 1)
  path = tmp_path / 'b' / '000000-5.npz'
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(store.StoreError, match='000000-5.*Remove the file'):
    record.collect(recipe(), tmp_path / 'b', 2)
  path.unlink()
  episodes.save_episode(tmp_path / 'b', 'mine', make_episode())
  with pytest.raises(store.StoreError, match='mine-6.npz: not made by'):
    record.collect(recipe(), tmp_path / 'b', 2)


def test_collect_gives_up(fake, tmp_path, monkeypatch):
  monkeypatch.setattr(
    fake, 'attempt', lambda self, index: make_episode(wins=index == 5)
  )
  with pytest.raises(record.RecordError, match='only 1 of 20 attempts'):
    record.collect(recipe(noise=0.5), tmp_path, 2)
  for options in ({'count': 0}, {'count': 1, 'workers': 0}):
    with pytest.raises(record.RecordError, match='expected at least'):
      record.collect(recipe(), tmp_path, **options)


@pytest.mark.parametrize('workers', [2, 3, 7])
def test_collect_with_more_workers(fake, tmp_path, workers):
  one = record.collect(recipe(), tmp_path / 'a', 6)
  many = record.collect(recipe(), tmp_path / 'b', 6, workers)
  assert names(tmp_path / 'a') == names(tmp_path / 'b')
  assert one.record == many.record


def test_workers_without_an_attempt_ask_no_expert(monkeypatch):
  """Three attempts of two workers: the last round leaves one without."""
  seen = []

  class Rest(envs.Env):
    def __init__(self):
      spaces = {'state': Box(-9, 9, (1,), np.float32)}
      super().__init__(spaces, 1, time_limit=3)

    def _reset(self, seed):
      return {'state': np.ones(1, np.float32)}

    def _step(self, action):
      return {'state': np.ones(1, np.float32)}, 0.0, False, False, True

  def policy(seed):
    def act(obs):
      seen.append(seed)
      assert obs['state'] == 1
      return np.zeros(1, np.float32)

    return act

  maker = lambda *_: envs.Demonstrator(policy, lambda episode: True)
  monkeypatch.setattr(envs, 'make_demonstrator', maker)
  monkeypatch.setattr(envs, 'env_maker', lambda *_: Rest)
  recorder = record.Recorder(recipe(noise=0.0), 2)
  try:
    for indices in ([0, 1], [2]):
      assert all(recorder.attempts(indices))
  finally:
    recorder.close()
  assert len(set(seen)) == 3 and 0 not in seen


def test_scripts_record_the_same_with_any_number_of_workers(tmp_path, capsys):
  options = (
    '--task plate-slide --episodes 2 --seed 5 --noise 0.1 '
    '--env.image_size 16 --env.time_limit 40'
  ).split()
  for workers in '12':
    outdir = str(tmp_path / workers)
    collect.main([*options, '--outdir', outdir, '--workers', workers])
  out = capsys.readouterr().out
  assert 'plate-slide' in out and '71.1' in out
  assert names(tmp_path / '1') == names(tmp_path / '2')
  assert len(names(tmp_path / '1')) == 2
  loaded = []
  for path in episodes.find_episodes(tmp_path / '1'):
    episode = episodes.load_episode(path)
    loaded.append(episode)
    other = episodes.load_episode(tmp_path / '2' / path.name)
    for key, value in episode.items():
      np.testing.assert_array_equal(value, other[key], key)
    assert episode['image'].shape == (41, 16, 16, 3)
    assert episode['state'].shape == (41, 39)
    assert set(np.unique(episode['reward'])) == {0, 1}
    assert episode['success'][-1] and not episode['success'][0]
    assert np.abs(episode['action']).max() <= 1
    first = episode['success'].argmax()
    assert episode['reward'][first] == 1 and not episode['reward'][:first].any()
  assert (loaded[0]['state'][0] != loaded[1]['state'][0]).any()
  stored = json.loads((tmp_path / '1' / 'dataset.json').read_text())
  assert stored['env']['image_size'] == 16 and stored['seed'] == 5
  assert stored['env']['camera'] == moto_tf.make_config().env.camera
  with pytest.raises(SystemExit, match='env.image_size 16 there, 64 now'):
    collect.main([*options[:-4], '--outdir', str(tmp_path / '1')])
  dataset_script.main(['info', str(tmp_path / '1')])
  out = capsys.readouterr().out
  assert '2 (2 successful)' in out and '71.1' in out
  gif = tmp_path / 'out.gif'
  dataset_script.main(['video', str(tmp_path / '1'), '--out', str(gif)])
  assert decode(gif.read_bytes())[0].n_frames > 20


def test_scripts_explain_mistakes(tmp_path, capsys):
  with pytest.raises(SystemExit, match='no such directory'):
    dataset_script.main(['info', str(tmp_path / 'absent')])
  base = ['--task', 'hammer', '--outdir', str(tmp_path)]
  for wrong, message in (
    (['--rssm.deter', '5'], 'unknown option --rssm.deter'),
    (['--env.camra', 'x'], 'env.camera'),
  ):
    with pytest.raises(SystemExit) as error:
      collect.main([*base, *wrong])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
  with pytest.raises(SystemExit, match='hammock.*Did you mean hammer'):
    collect.main(['--task', 'hammock', '--outdir', str(tmp_path)])
  # Training says so too, before it asks for demonstrations of it.
  logdir = str(tmp_path / 'hammock' / 'moto' / '0')
  with pytest.raises(SystemExit, match='hammock.*Did you mean hammer'):
    train.main(['--task', 'metaworld_hammock', '--logdir', logdir])
  with pytest.raises(SystemExit, match='no directory .*demos. Record'):
    train.main(['--task', 'metaworld_hammer', '--logdir', logdir])
