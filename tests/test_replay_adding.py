"""Replay: what is added meanwhile, and what a run comes back to."""

import errno
import os

import numpy as np
import pytest
from replay_helpers import fill, held, make_episode, make_replay, same

from moto_tf.data import episodes as files
from moto_tf.data.replay import ReplayError
from moto_tf.errors import MotoError


def test_add_is_seen_by_the_next_batch(tmp_path):
  replay = make_replay(fill(tmp_path / 'a', [50]), tmp_path / 'b')
  assert held(replay) == [0]
  episode = make_episode(1, 50, success=True)
  replay.add(episode, 'new')
  episode['state'][...] = 77  # The replay has its own memory.
  assert held(replay) == [0, 1]
  assert replay.stats()['successes'] == 1


def test_continued_and_reloaded_give_the_same_batches(tmp_path):
  fill(tmp_path / 'offline', [5, 60])
  first = make_replay(tmp_path / 'offline', tmp_path / 'online')
  rng = np.random.default_rng(0)
  # Names that do not sort in the order of addition.
  for number in (120, 110, 119, 101):
    episode = make_episode(number, int(rng.integers(2, 30)))
    # What float64 policies and environments return; must load the same.
    episode['action'] = episode['action'].astype(np.float64) * 1.00001
    first.add(episode, f'run-{number}')
  names = first.online_names()
  assert [name.split('-')[1] for name in names] == ['120', '110', '119', '101']
  second = make_replay(tmp_path / 'offline', tmp_path / 'online', keep=names)
  assert second.online_names() == names
  for replay in (first, second):
    expected = [first.sample(step) for step in range(10)]
    for step, batch in enumerate(expected):
      same(replay.sample(step), batch)
  # By name, without a list, the order is another but no episode is lost.
  third = make_replay(tmp_path / 'offline', tmp_path / 'online')
  assert third.online_names() == sorted(names)
  # And on: what both add next is the same again.
  first.add(make_episode(200, 7), 'next')
  fourth = make_replay(
    tmp_path / 'offline', tmp_path / 'online', keep=first.online_names()
  )
  same(fourth.sample(11), first.sample(11))


def test_later_episodes_are_superseded(tmp_path, capsys):
  online = fill(tmp_path / 'online', [10, 20, 30, 40])
  content = (online / 'e0002-30.npz').read_bytes()
  keep = ['e0000-10', 'e0001-20']
  for attempt in range(2):
    replay = make_replay(None, online, keep=keep)
    assert 'Moved 2 online episodes' in capsys.readouterr().out
    assert held(replay) == [0, 1] and replay.online_names() == keep
    # The run goes on, to different episodes of the same names.
    replay.add(make_episode(2, 30 if attempt else 33), 'e0002')
    replay.add(make_episode(3, 40), 'e0003')
    assert held(replay) == [0, 1, 2, 3]
  make_replay(None, online, keep=keep)
  assert {path.name for path in online.glob('*.npz')} == {
    *('e0000-10.npz', 'e0001-20.npz')
  }
  superseded = online / 'superseded'
  assert (superseded / 'e0002-30.npz').read_bytes() == content
  assert sorted(path.name for path in superseded.iterdir()) == [
    'e0002-30.2.npz',
    'e0002-30.npz',
    'e0002-33.npz',
    'e0003-40.2.npz',
    'e0003-40.3.npz',
    'e0003-40.npz',
  ]


def test_keep_nothing_and_keep_all(tmp_path):
  online = fill(tmp_path / 'online', [10, 20])
  assert held(make_replay(None, online)) == [0, 1]
  assert not (online / 'superseded').exists()
  assert make_replay(None, online, keep=[]).online_names() == []
  assert len(list((online / 'superseded').iterdir())) == 2


def test_trimmed_and_broken_episodes_are_not_superseded(tmp_path, capsys):
  online = fill(tmp_path / 'online', [10] * 6)
  (online / 'e0004-10.npz').write_bytes(b'broken')
  replay = make_replay(None, online, capacity=20)
  assert 'e0004-10.npz' in capsys.readouterr().err
  assert held(replay) == [3, 5]
  make_replay(None, online, capacity=20, keep=replay.online_names())
  assert 'e0004-10.npz' in capsys.readouterr().err
  assert not (online / 'superseded').exists()


def test_missing_episodes_of_a_checkpoint(tmp_path, capsys):
  online = fill(tmp_path / 'online', [10, 20])
  replay = make_replay(None, online, keep=['e0001-20', 'gone-5', 'e0000-10'])
  text = capsys.readouterr().err
  assert '1 of 3 online' in text and 'gone-5' in text
  assert replay.online_names() == ['e0001-20', 'e0000-10']


def test_names_are_taken_once(tmp_path):
  fill(tmp_path / 'a', [10])
  replay = make_replay(tmp_path / 'a', tmp_path / 'b')
  replay.add(make_episode(100, 10), 'e0000')  # Offline names do not matter.
  content = (tmp_path / 'b' / 'e0000-10.npz').read_bytes()
  with pytest.raises(ReplayError, match='e0000-10.npz exists already'):
    replay.add(make_episode(101, 10), 'e0000')
  assert (tmp_path / 'b' / 'e0000-10.npz').read_bytes() == content
  replay.add(make_episode(101, 11), 'e0000')
  assert replay.online_names() == ['e0000-10', 'e0000-11']
  assert held(replay) == [0, 100, 101]


def check_unchanged(replay, online, change, problem):
  replay.add(make_episode(100, 10), 'before')
  state = replay.stats(), replay.version, replay.online_names()
  expected = replay.sample(0)
  with pytest.raises(MotoError, match=problem):
    replay.add(make_episode(101, 12) | change, 'after')
  assert (replay.stats(), replay.version, replay.online_names()) == state
  same(replay.sample(0), expected)
  assert [path.name for path in online.iterdir()] == ['before-10.npz']


@pytest.mark.parametrize(
  'change, problem',
  [
    ({'state': np.zeros((13, 3), np.float32)}, "'state' has shape"),
    ({'action': np.full((13, 3), 2.0)}, 'action'),
    ({'reward': np.zeros(12)}, 'after'),
    ({'reward': np.full(13, np.nan)}, 'not finite'),
  ],
)
def test_bad_episodes_are_not_added(tmp_path, change, problem):
  replay = make_replay(None, tmp_path / 'online')
  check_unchanged(replay, tmp_path / 'online', change, problem)


def test_full_disk(tmp_path, monkeypatch):
  replay = make_replay(None, tmp_path / 'online')
  example = files.save_episode(tmp_path, 'example', make_episode(101, 12))
  expected = example.stat().st_size
  sync = os.fsync

  def full(handle):
    if os.fstat(handle).st_size == expected:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sync(handle)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', full)
    problem = 'after-12.npz.*No space left on device'
    check_unchanged(replay, tmp_path / 'online', {}, problem)
  replay.add(make_episode(101, 12), 'after')  # Works once there is space.
  assert held(replay) == [100, 101]
