"""Replay: which files are loaded, and how many of them are held."""

import os
import warnings

import numpy as np
import pytest
from replay_helpers import fill, held, make_episode, make_replay, same

from moto_tf import progress
from moto_tf.data import episodes as files
from moto_tf.data import inspect
from moto_tf.data import replay as module
from moto_tf.data.replay import ReplayError

# Loading


def test_unusable_files_are_named_and_stay(tmp_path, capsys):
  fill(tmp_path, [6, 7])
  good = make_episode(9, 6)

  def write(name, **changes):
    np.savez(tmp_path / name, **(good | changes))

  data = (tmp_path / 'e0000-6.npz').read_bytes()
  (tmp_path / 'cut-6.npz').write_bytes(data[: len(data) // 2])
  middle = bytearray(data)
  middle[120] ^= 255
  (tmp_path / 'flipped-6.npz').write_bytes(middle)
  (tmp_path / 'zero-6.npz').write_bytes(b'')
  (tmp_path / 'text-6.npz').write_text('not an episode')
  write('object-6.npz', state=np.array([{}] * 7, object))
  write('image-6.npz', image=np.zeros((7, 3, 3, 1), np.uint8))
  write('nan-6.npz', reward=np.full(7, np.nan))
  np.savez(tmp_path / 'key-6.npz', reward=good['reward'])
  np.savez(tmp_path / 'short-0.npz', **{k: v[:1] for k, v in good.items()})
  np.savez(tmp_path / 'none-0.npz', **{k: v[:0] for k, v in good.items()})
  before = {path.name for path in tmp_path.iterdir()}
  capsys.readouterr()
  replay = make_replay(tmp_path)
  text = capsys.readouterr().err
  assert text.startswith('Warning: 10 of 12 episode files are skipped')
  assert text.count('\n') == 1
  assert 'cut-6.npz' in text and text.endswith(' and 5 more.\n')
  assert '.,' not in text and '.;' not in text
  assert held(replay) == [0, 1]
  assert {path.name for path in tmp_path.iterdir()} == before
  # Each is refused for itself, too.
  for name in before - {'e0000-6.npz', 'e0001-7.npz'}:
    directory = tmp_path / 'single'
    directory.mkdir(exist_ok=True)
    os.replace(tmp_path / name, directory / name)
    with pytest.raises(ReplayError, match='none can be used'):
      make_replay(directory)
    assert name in capsys.readouterr().err
    os.replace(directory / name, tmp_path / name)


def test_names_need_not_tell_the_length(tmp_path):
  for number in range(3):
    path = files.save_episode(tmp_path, 'x', make_episode(number, 20))
    os.replace(path, tmp_path / f'demo-{number * 5000}.npz')
  replay = make_replay(tmp_path, capacity=60)
  assert replay.stats()['transitions'] == 60


def test_offline_directory_must_have_episodes(tmp_path):
  with pytest.raises(ReplayError, match='no directory .*nothing.*tf collect'):
    make_replay(tmp_path / 'nothing')
  with pytest.raises(ReplayError, match='has 0 episode files.*tf collect'):
    make_replay(tmp_path)


def test_empty_replay_says_what_to_do(tmp_path):
  replay = make_replay(None, tmp_path / 'online')
  assert replay.stats()['episodes'] == 0
  with pytest.raises(ReplayError, match=r'moto_tf collect.*prefill_episodes'):
    replay.sample(0)
  replay.add(make_episode(0, 3), 'first')
  assert replay.sample(0)['reward'].shape == (4, 8)


@pytest.mark.parametrize(
  'key, value',
  [
    ('batch', 0),
    ('length', 0),
    ('capacity', 0),
    ('offline_share', 1.1),
    ('offline_share', -0.5),
    ('offline_share', float('nan')),
    ('seed', -1),
  ],
)
def test_bad_arguments(tmp_path, key, value):
  with pytest.raises(ReplayError, match=f'{key} is {value}'):
    make_replay(None, tmp_path, **{key: value})


def test_other_bad_uses(tmp_path):
  fill(tmp_path, [3])
  with pytest.raises(ReplayError, match='of its own'):
    make_replay(tmp_path, tmp_path / '..' / tmp_path.name)
  with pytest.raises(ReplayError, match='step is -1'):
    make_replay(tmp_path).sample(-1)
  with pytest.raises(ReplayError, match='no online directory'):
    make_replay(tmp_path).add(make_episode(0, 3), 'name')


def test_only_wanted_keys_are_held(tmp_path, capsys):
  episode = make_episode(0, 9) | {'large': np.zeros((10, 2**17), np.float32)}
  files.save_episode(tmp_path, 'a', episode)
  assert 'large' not in make_replay(tmp_path).sample(0)
  assert capsys.readouterr().out == (
    'Replay: 1 offline episodes (9 transitions, 0 successful), 0 online '
    'episodes (0 transitions, 0 successful), 0 MiB.\n'
  )


# Capacity


def test_capacity_at_load(tmp_path, monkeypatch):
  fill(tmp_path / 'offline', [10, 10])
  fill(tmp_path / 'online', [10] * 200, 100)
  read = []
  load = files.load_episode

  def recorded(path, *args):
    read.append(path.stem)
    return load(path, *args)

  monkeypatch.setattr(files, 'load_episode', recorded)
  replay = make_replay(tmp_path / 'offline', tmp_path / 'online', capacity=55)
  assert sorted(read) == [
    *('e0000-10', 'e0001-10'),
    # The first that does not fit is looked at, too: it may be a broken one.
    *('e0296-10', 'e0297-10', 'e0298-10', 'e0299-10'),
  ]
  assert held(replay) == [0, 1, 297, 298, 299]
  assert len(replay.online_names()) == 200
  assert replay.stats() == {
    'episodes': 5,
    'transitions': 50,
    'offline_episodes': 2,
    'offline_transitions': 20,
    'online_episodes': 3,
    'online_transitions': 30,
    'successes': 0,
  }


def test_offline_beyond_capacity(tmp_path, capsys):
  fill(tmp_path / 'offline', [10] * 5)
  fill(tmp_path / 'online', [10] * 3, 100)
  replay = make_replay(tmp_path / 'offline', tmp_path / 'online', capacity=25)
  text = capsys.readouterr().err
  assert 'first 2 of 5' in text and 'capacity = 25' in text
  # Training online needs something from online: the newest.
  assert held(replay) == [0, 1, 102]
  replay.add(make_episode(103, 10), 'e0103')
  assert held(replay) == [0, 1, 103]


def test_a_gap_in_capacity_is_not_filled_by_older_ones(tmp_path):
  fill(tmp_path, [1, 20, 10])
  assert held(make_replay(None, tmp_path, capacity=15)) == [2]


def test_capacity_in_memory_and_after_reload(tmp_path):
  rng = np.random.default_rng(0)
  fill(tmp_path / 'offline', [7])
  replay = make_replay(tmp_path / 'offline', tmp_path / 'online', capacity=60)
  for number in range(100, 130):
    length = int(rng.integers(1, 40)) if number != 115 else 80
    before = replay.version
    path = replay.add(make_episode(number, length), f'e{number:04d}')
    assert path.name == f'e{number:04d}-{length}.npz' and path.exists()
    assert replay.version > before
    stats = replay.stats()
    assert stats['transitions'] <= 60 or stats['online_episodes'] == 1
    assert stats['offline_episodes'] == 1
    again = make_replay(tmp_path / 'offline', tmp_path / 'online', capacity=60)
    assert again.stats() == stats
    same(again.sample(number), replay.sample(number))
  assert len(list((tmp_path / 'online').iterdir())) == 30
  assert len(replay.online_names()) == 30


# Many files


def test_memory_and_progress_with_many_files(tmp_path, capsys, monkeypatch):
  path = files.save_episode(tmp_path, 'e', make_episode(0, 10))
  data = path.read_bytes()
  path.unlink()
  for index in range(600):
    (tmp_path / f'e{index:04d}-10.npz').write_bytes(data)
  opened = []
  header = files.episode_length
  monkeypatch.setattr(
    files, 'episode_length', lambda path: opened.append(path) or header(path)
  )
  replay = make_replay(None, tmp_path, capacity=100)
  assert replay.stats()['online_episodes'] == 10
  assert len(replay.online_names()) == 600
  assert len(opened) <= module.CHUNK
  assert '590 online on disk only' in capsys.readouterr().out
  # Every look at the clock is ten seconds later: a line for each chunk.
  clock = iter(range(0, 10**6, 10))
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    make_replay(None, tmp_path)
  assert '320/600 episodes' in capsys.readouterr().out


def test_a_parent_of_the_data_names_the_folder(tmp_path):
  fill(tmp_path / 'demos' / 'door', [3])
  fill(tmp_path / 'old', [3])
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ReplayError, match='episodes are old, demos/door, give'):
    make_replay(tmp_path)
  text = inspect.describe(inspect.inspect(tmp_path))
  assert 'no episodes here; its folders with episodes are old, demos/d' in text
