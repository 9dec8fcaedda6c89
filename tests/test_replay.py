"""Replay: what is loaded, what is drawn, and that it can be drawn again."""

import errno
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from moto_tf import progress
from moto_tf.data import episodes as files
from moto_tf.data import inspect
from moto_tf.data import replay as module
from moto_tf.data.cloning import Cloning
from moto_tf.data.prefetch import Prefetcher
from moto_tf.data.replay import Replay, ReplayError
from moto_tf.errors import MotoError
from moto_tf.presets import make_config
from moto_tf.training.session import open_replay

OBS_SPACE = {
  'image': gymnasium.spaces.Box(0, 255, (2, 2, 1), np.uint8),
  'state': gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
}
ACT_SPACE = gymnasium.spaces.Box(-1, 1, (3,), np.float32)


def make_episode(number, transitions, success=False, terminal=False):
  """Every value tells the number of the episode and the record."""
  records = transitions + 1
  index = np.arange(records)
  state = np.stack([np.full(records, number), index], -1)
  action = np.repeat((index / 1000)[:, None], 3, 1)
  return {
    'image': np.repeat(index % 256, 4).reshape(-1, 2, 2, 1).astype(np.uint8),
    'state': state.astype(np.float32),
    'action': action.astype(np.float32),
    'reward': np.where(index > 0, number + index / 1000, 0).astype(np.float32),
    'is_first': index == 0,
    'is_last': index == transitions,
    'is_terminal': (index == transitions) & terminal,
    'success': (index == transitions) & success,
    'extra': np.zeros((records, 5), np.float32),
  }


def fill(directory, lengths, first=0, **kwargs):
  """Saves one episode per length, numbered from `first`."""
  for number, length in enumerate(lengths, first):
    episode = make_episode(number, length, **kwargs)
    files.save_episode(directory, f'e{number:04d}', episode)
  return directory


def make_replay(offline=None, online=None, **kwargs):
  settings = dict(
    batch=4,
    length=8,
    capacity=10_000,
    offline_share=-1,
    seed=0,
    cloning=Cloning(),
  )
  return Replay(offline, online, OBS_SPACE, ACT_SPACE, **(settings | kwargs))


def same(actual, expected):
  assert list(actual) == list(expected)
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    np.testing.assert_array_equal(actual[key], value, err_msg=key)


def numbers(batch):
  """Episode number of every record."""
  return batch['state'][..., 0].astype(int)


def held(replay):
  """Numbers of the episodes that batches are drawn from, ascending."""
  return sorted({n for i in range(40) for n in numbers(replay.sample(i)).flat})


# Sampling


def chi_square(counts):
  expected = counts.sum() / counts.size
  return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize('share', [-1, 0.5])
def test_records_are_uniform_at_every_position(tmp_path, share):
  lengths = [1, 2, 4, 11, 30]  # Of 2 to 31 records; the window has 8.
  starts = np.cumsum([0] + [n + 1 for n in lengths])
  if share < 0:
    fill(tmp_path / 'a', lengths[:2])
    fill(tmp_path / 'b', lengths[2:], 2)
  else:
    fill(tmp_path / 'a', lengths)
    fill(tmp_path / 'b', [3, 40], 90)
  replay = make_replay(
    tmp_path / 'a', tmp_path / 'b', batch=64, offline_share=share
  )
  counts = np.zeros((8, starts[-1]), int)
  for step in range(300):
    batch = replay.sample(step)
    state = batch['state'].astype(int)
    state = state[:32] if share > 0 else state  # The offline half.
    records = starts[state[..., 0]] + state[..., 1]
    for position in range(8):
      np.add.at(counts[position], records[:, position], 1)
  assert counts[0].sum() == 300 * (32 if share > 0 else 64)
  # 52 degrees of freedom: the mean is 52, one in a thousand exceeds 90.
  statistics = [chi_square(count) for count in counts]
  assert max(statistics[0], statistics[3], statistics[7]) < 90, statistics
  # The measure has the power to reject a share that is off by a quarter.
  uneven = counts[0].copy()
  uneven[: starts[3]] = uneven[: starts[3]] * 3 // 4
  uneven[starts[3] :] = uneven[starts[3] :] * 5 // 4
  assert chi_square(uneven) > 90


def test_windows_continue_record_by_record(tmp_path):
  lengths = [1, 3, 4, 20, 90]
  source = {n: make_episode(n, length) for n, length in enumerate(lengths)}
  replay = make_replay(fill(tmp_path, lengths), batch=16, length=25)
  starts_inside = 0
  for step in range(30):
    batch = replay.sample(step)
    for lane in range(16):
      previous = None
      for t in range(25):
        number, index = batch['state'][lane, t].astype(int)
        if previous and previous[1] < lengths[previous[0]]:
          assert (number, index) == (previous[0], previous[1] + 1)
        elif previous:
          assert index == 0
          starts_inside += 1
        assert batch['is_first'][lane, t] == (t == 0 or index == 0)
        for key in (*OBS_SPACE, 'action', 'reward', 'is_last', 'is_terminal'):
          expected = source[number][key][index]
          np.testing.assert_array_equal(batch[key][lane, t], expected, key)
        previous = number, index
  assert starts_inside > 400


def test_shapes_and_dtypes(tmp_path):
  replay = make_replay(fill(tmp_path, [5, 9]))
  batch = replay.sample(0)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
    'image': ((4, 8, 2, 2, 1), np.uint8),
    'state': ((4, 8, 2), np.float32),
    'action': ((4, 8, 3), np.float32),
    'reward': ((4, 8), np.float32),
    'is_first': ((4, 8), bool),
    'is_last': ((4, 8), bool),
    'is_terminal': ((4, 8), bool),
    'success': ((4, 8), np.float32),
  }


def test_batches_are_a_pure_function(tmp_path):
  fill(tmp_path, [5, 9, 30])
  replay = make_replay(tmp_path)
  first = [replay.sample(step) for step in range(5)]
  for step in (3, 0, 4):
    same(make_replay(tmp_path).sample(step), first[step])
    same(replay.sample(step), first[step])
  assert len({hash(batch['state'].tobytes()) for batch in first}) == 5
  other = make_replay(tmp_path, seed=1).sample(0)
  assert (other['state'] != first[0]['state']).any()
  # A batch is its own memory: changing it changes neither data nor others.
  expected = {key: value.copy() for key, value in first[0].items()}
  for value in first[0].values():
    value[...] = 1
  same(replay.sample(0), expected)


def test_batches_are_the_same_in_another_process(tmp_path):
  fill(tmp_path, [5, 9, 30])
  script = (
    'import sys, hashlib; sys.path[:0] = sys.argv[2:]\n'
    'from tests.test_replay import make_replay, Path\n'
    'batch = make_replay(Path(sys.argv[1]), seed=2**63 + 1).sample(10**12)\n'
    'data = b"".join(value.tobytes() for value in batch.values())\n'
    'print(hashlib.sha256(data).hexdigest())\n'
  )
  root = str(Path(__file__).parents[1])
  output = subprocess.run(
    [sys.executable, '-c', script, str(tmp_path), root],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  batch = make_replay(tmp_path, seed=2**63 + 1).sample(10**12)
  data = b''.join(value.tobytes() for value in batch.values())
  assert output.split()[-1] == hashlib.sha256(data).hexdigest()


def test_large_seeds_and_steps_differ(tmp_path):
  fill(tmp_path, [90] * 5)
  batches = {
    make_replay(tmp_path, seed=seed).sample(step)['state'].tobytes()
    for seed in (0, 1, 2**63, 2**63 + 1, 2**64 - 1)
    for step in (0, 1, 2**32, 2**40)
  }
  assert len(batches) == 20


@pytest.mark.parametrize(
  'share, count', [(0, 0), (0.25, 2), (0.5, 5), (0.77, 8), (0.96, 10), (1, 10)]
)
def test_offline_share_is_exact(tmp_path, share, count):
  replay = make_replay(
    fill(tmp_path / 'offline', [3, 40]),
    fill(tmp_path / 'online', [5, 6, 7], 100),
    offline_share=share,
    batch=10,
    length=20,
  )
  for step in range(20):
    offline = numbers(replay.sample(step)) < 100
    assert (offline == offline[:, :1]).all()
    assert offline[:, 0].sum() == count


@pytest.mark.parametrize('share', [0, 0.5, 1])
def test_offline_share_with_one_kind(tmp_path, share):
  fill(tmp_path / 'a', [3, 40])
  offline = make_replay(tmp_path / 'a', tmp_path / 'b', offline_share=share)
  assert held(offline) == [0, 1]
  online = make_replay(None, tmp_path / 'a', offline_share=share)
  assert held(online) == [0, 1]
  # The first online episode changes which lanes draw from where.
  offline.add(make_episode(100, 5), 'new')
  count = (numbers(offline.sample(0))[:, 0] < 100).sum()
  assert count == round(share * 4)


def test_some_offline_episodes(tmp_path, capsys):
  """Drawn by the seed, whatever is in them; more of one seed hold fewer."""
  fill(tmp_path / 'a', [3] * 12)
  draw = lambda **kwargs: held(make_replay(tmp_path / 'a', **kwargs))
  five = draw(offline_episodes=5)
  assert len(five) == 5 and draw(offline_episodes=5) == five
  assert '5 of 12 episodes in ' in capsys.readouterr().out
  assert set(five) < set(draw(offline_episodes=8))
  others = [draw(offline_episodes=5, seed=seed) for seed in range(1, 9)]
  assert len({tuple(x) for x in (five, *others)}) > 6
  assert set().union(five, *others) == set(range(12))
  whole = make_replay(tmp_path / 'a', offline_episodes=12).sample(3)
  same(whole, make_replay(tmp_path / 'a').sample(3))
  with pytest.raises(ReplayError, match=r'offline_episodes is 13.* has 12'):
    draw(offline_episodes=13)
  # Online ones are all there.
  fill(tmp_path / 'b', [3] * 7, 100)
  replay = make_replay(tmp_path / 'a', tmp_path / 'b', offline_episodes=5)
  assert [n for n in held(replay) if n < 100] == five
  assert replay.stats()['online_episodes'] == 7


def test_held_out_episodes_are_all_used(tmp_path):
  fill(tmp_path / 'a', [3] * 4)
  config = make_config('debug', {'replay.offline_episodes': 3})
  agent = types.SimpleNamespace(obs_keys=['state'])
  driver = types.SimpleNamespace(obs_space=OBS_SPACE, act_space=ACT_SPACE)
  args = (config, agent, driver, tmp_path / 'a', None, None)
  assert open_replay(*args).stats()['episodes'] == 3
  assert open_replay(*args, heldout=True).stats()['episodes'] == 4


@pytest.mark.parametrize('offline_share', [-1, 0.5])
@pytest.mark.parametrize('share, count', [(0.2, 2), (0.25, 2), (1, 10)])
def test_success_share_is_exact(tmp_path, offline_share, share, count):
  """The first lanes are of successes of both kinds, the others as without."""
  fill(tmp_path / 'a', [9, 40, 20])
  fill(tmp_path / 'a', [5, 6], 10, success=True)
  fill(tmp_path / 'b', [15, 7], 100)
  fill(tmp_path / 'b', [8], 110, success=True)
  replay = make_replay(
    tmp_path / 'a',
    tmp_path / 'b',
    success_share=share,
    offline_share=offline_share,
    batch=10,
    length=20,
  )
  seen, offline = set(), 0
  for step in range(40):
    batch = replay.sample(step)
    assert batch['success'][:count].all()
    seen |= set(numbers(batch)[:count].flat)
    others = numbers(batch)[count:, 0] < 100
    offline += others.sum()
    if offline_share > 0:
      assert others.sum() == round(0.5 * (10 - count))
  assert seen == {10, 11, 110}
  if offline_share < 0 and count < 10:
    assert 0 < offline < 40 * (10 - count)


def test_success_share_begins_with_the_first_success(tmp_path):
  fill(tmp_path / 'a', [9, 40])
  replay = make_replay(tmp_path / 'a', tmp_path / 'b', success_share=0.5)
  assert not replay.sample(0)['success'].any()
  replay.add(make_episode(100, 5), 'failure')
  assert held(replay) == [0, 1, 100]
  replay.add(make_episode(101, 5, success=True), 'success')
  for step in range(5):
    assert (numbers(replay.sample(step))[:2] == 101).all()


def test_without_share_both_kinds_mix(tmp_path):
  replay = make_replay(
    fill(tmp_path / 'a', [3, 4]), fill(tmp_path / 'b', [5], 100), length=30
  )
  offline = numbers(replay.sample(0)) < 100
  assert (offline != offline[:, :1]).any()


def test_success_of_episodes(tmp_path):
  fill(tmp_path, [5, 6])
  fill(tmp_path, [7, 8], 2, success=True)
  fill(tmp_path, [9], 4, terminal=True)
  # Rewards of episode n lie in [n, n + 1).
  for threshold, expected in ((0, {2, 3}), (3, {3, 4}), (1.006, {1, 2, 3, 4})):
    replay = make_replay(tmp_path, cloning=Cloning(threshold), length=20)
    assert replay.stats()['successes'] == len(expected)
    seen = set()
    for step in range(20):
      batch = replay.sample(step)
      marked = np.isin(numbers(batch), list(expected))
      np.testing.assert_array_equal(batch['success'], marked)
      ends = batch['state'][..., 1] == 9
      np.testing.assert_array_equal(
        batch['is_terminal'], (numbers(batch) == 4) & ends
      )
      seen |= set(numbers(batch).flat)
    assert seen == {0, 1, 2, 3, 4}


def test_success_by_targets(tmp_path, capsys):
  """For offline and online episodes alike, also after a reload."""
  offline, online = tmp_path / 'demos', tmp_path / 'online'

  def episode(number, *targets):
    made = make_episode(number, 5)
    for name in ('kettle', 'lamp', 'door'):
      made[f'log_{name}'] = (made['state'][:, 1] >= 2) & (name in targets)
    return made

  files.save_episode(offline, 'a', episode(0, 'kettle', 'lamp'))
  files.save_episode(offline, 'b', episode(1, 'kettle', 'door'))
  cloning = Cloning(targets=('log_kettle', 'log_lamp'))
  settings = dict(cloning=cloning, batch=64)
  replay = make_replay(offline, online, **settings)
  replay.add(episode(2, 'door', 'lamp'), 'c')
  replay.add(episode(3, 'kettle', 'lamp', 'door'), 'd')
  for found in (replay, make_replay(offline, online, **settings)):
    assert found.stats()['successes'] == 2
    batch = found.sample(0)
    assert not any(key.startswith('log_') for key in batch)
    np.testing.assert_array_equal(
      batch['success'], np.isin(numbers(batch), [0, 3])
    )
  # Of what is cloned, the records until both are in place.
  settings['cloning'] = cloning._replace(whole=False)
  found = make_replay(offline, online, **settings)
  batch = found.sample(0)
  both, record = np.isin(numbers(batch), [0, 3]), batch['state'][..., 1]
  np.testing.assert_array_equal(batch['success'], both & (record <= 2))
  problem = "'log_kettle' is missing, which bc_targets asks for"
  with pytest.raises(files.EpisodeError, match=problem):
    replay.add(make_episode(4, 5), 'e')
  assert not list(online.glob('e-*'))
  fill(offline, [5], 5)
  assert make_replay(offline, **settings).stats()['episodes'] == 2
  assert problem in ' '.join(capsys.readouterr().err.split())


def test_ways_to_a_further_target_are_cloned(tmp_path):
  """Of episodes that are not cloned otherwise, and in windows of their own."""
  rows = {
    # kettle, lamp, door first in place at these records; records to clone
    0: ((2, 3, None), range(0, 4)),
    1: ((None, 9, 25), range(10, 26)),
    2: ((None, 9, 4), range(0)),
    3: ((4, None, 9), range(0)),
    4: ((3, 5, 12), range(0, 6)),
    # Marked successful, though its targets were never in place at once.
    5: ((None, 9, 25), range(10, 26)),
  }
  for number, (places, _) in rows.items():
    episode = make_episode(number, 30)
    for name, place in zip(('kettle', 'lamp', 'door'), places, strict=True):
      row = np.zeros(31)
      row[30 if place is None else place :] = place is not None
      episode[f'log_{name}'] = row
    episode['success'][:] = number == 5
    files.save_episode(tmp_path, f'e{number}', episode)
  cloning = Cloning(
    targets=('log_kettle', 'log_lamp'), whole=False, onward='log_door'
  )
  replay = make_replay(
    tmp_path, cloning=cloning, batch=64, length=12, success_share=0.5
  )
  assert replay.stats()['successes'] == 2
  seen = {number: set() for number in rows}
  for step in range(20):
    batch = replay.sample(step)
    number, record = numbers(batch), batch['state'][..., 1].astype(int)
    expected = np.zeros(number.shape)
    for row, (_, cloned) in rows.items():
      expected += (number == row) & np.isin(record, cloned)
    np.testing.assert_array_equal(batch['success'], expected)
    # The first half has whole episodes and the way, eight records before it.
    assert set(number[:32].flat) <= {0, 1, 4, 5}
    for row in (1, 5):
      seen[row] |= set(record[:32][number[:32] == row].flat)
    # A new piece begins wherever records do not follow one another.
    breaks = (np.diff(number) != 0) | (np.diff(record) != 1)
    np.testing.assert_array_equal(batch['is_first'][:, 1:], breaks)
    assert batch['is_first'][:, 0].all()
  assert seen[1] == seen[5] == set(range(2, 26))
  for number in (0, 4):
    (tmp_path / f'e{number}-30.npz').unlink()
  # What is left to clone are ways alone.
  assert not make_replay(tmp_path, cloning=cloning).uncloned
  assert make_replay(tmp_path, cloning=cloning._replace(onward='')).uncloned


def test_half_of_what_is_cloned_achieves_the_task(tmp_path):
  """While only some of it does."""

  def lanes(cloning, share=0.5):
    replay = make_replay(
      tmp_path, cloning=cloning, batch=16, length=4, success_share=share
    )
    return [numbers(replay.sample(i)) for i in range(20)]

  fill(tmp_path, [30, 30, 30])
  fill(tmp_path, [30], 3, success=True)
  fill(tmp_path, [30], 4)
  # Rewards of episode n lie in [n, n + 1), so three are cloned.
  found = np.array(lanes(Cloning(2.0)))
  assert set(found[:, :4].flat) == {3}
  assert set(found[:, 4:8].flat) == {2, 3, 4}
  assert set(found[:, 8:].flat) == {0, 1, 2, 3, 4}
  assert set(np.array(lanes(Cloning(2.0), 0.06))[:, 0].flat) == {2, 3, 4}
  # What achieves the task without being cloned is not preferred.
  assert set(np.array(lanes(Cloning(4.0)))[:, :8].flat) == {4}
  assert set(np.array(lanes(Cloning()))[:, :8].flat) == {3}


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


# Adding and resuming


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


# Prefetching


@pytest.mark.parametrize('depth', [0, 1, 3])
def test_prefetcher_equals_sample(tmp_path, depth):
  replay = make_replay(fill(tmp_path / 'a', [9, 30]), tmp_path / 'b')
  prefetcher = Prefetcher(replay, depth)
  steps = [0, 1, 2, 3, 7, 8, 8, 4, 5, 6, 10**9, 10**9 + 1]
  for count, step in enumerate(steps * 5):
    if count % 7 == 3:
      replay.add(make_episode(100 + count, 9), f'e{count:04d}')
    if count % 5 == 2:
      time.sleep(0.002)  # Lets the thread run ahead.
    same(prefetcher.get(step), replay.sample(step))
  prefetcher.close()
  assert 0 < prefetcher.wait < 10


def test_prefetcher_runs_ahead(tmp_path):
  replay = make_replay(fill(tmp_path, [9, 30]))
  sampled = []
  sample = replay.sample

  class Counted:
    version = 0

    def sample(self, step):
      sampled.append((step, threading.current_thread()))
      return sample(step)

  prefetcher = Prefetcher(Counted(), 2)
  time.sleep(0.02)
  assert not sampled, 'the first step is not known yet'
  prefetcher.get(5)
  deadline = time.monotonic() + 5
  while len(sampled) < 3 and time.monotonic() < deadline:
    time.sleep(0.001)
  time.sleep(0.02)
  assert [step for step, _ in sampled] == [5, 6, 7]
  for step in (6, 7, 8):
    same(prefetcher.get(step), sample(step))
  prefetcher.close()
  steps = [step for step, _ in sampled]
  assert steps == sorted(set(steps)), 'no batch is made twice'
  assert threading.main_thread() not in [thread for _, thread in sampled]


def test_batch_made_during_an_addition_is_thrown_away(tmp_path):
  replay = make_replay(fill(tmp_path / 'a', [9]), tmp_path / 'b')
  started, resume = threading.Event(), threading.Event()

  class Slow:
    version = property(lambda self: replay.version)

    def sample(self, step):
      batch = replay.sample(step)
      if step == 1 and not resume.is_set():
        started.set()
        resume.wait(5)
      return batch

  prefetcher = Prefetcher(Slow(), 1)
  prefetcher.get(0)
  assert started.wait(5)
  old = replay.sample(1)
  replay.add(make_episode(100, 50), 'new')
  resume.set()
  batch = prefetcher.get(1)
  same(batch, replay.sample(1))
  assert (batch['state'] != old['state']).any()
  prefetcher.close()


def test_prefetcher_passes_errors_on(tmp_path):
  replay = make_replay(None, tmp_path / 'online')
  prefetcher = Prefetcher(replay, 2)
  for _ in range(2):
    with pytest.raises(ReplayError, match='prefill_episodes'):
      prefetcher.get(0)
  replay.add(make_episode(0, 9), 'first')
  same(prefetcher.get(1), replay.sample(1))
  prefetcher.close()
  with pytest.raises(ReplayError, match='closed'):
    prefetcher.get(2)
  prefetcher.close()
  with pytest.raises(ReplayError, match='prefetch is -1'):
    Prefetcher(replay, -1)


def test_prefetcher_measures_waiting(tmp_path):
  drawn = threading.Semaphore(0)

  class Slow:
    version = 0

    def sample(self, step):
      time.sleep(0.6)
      drawn.release()
      return {}

  prefetcher = Prefetcher(Slow(), 1)
  prefetcher.get(0)
  assert 0.5 < prefetcher.wait < 10
  for _ in range(2):
    assert drawn.acquire(timeout=60)
  before = prefetcher.wait
  prefetcher.get(1)
  assert prefetcher.wait - before < 0.5, 'the batch was ready'
  prefetcher.close()


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


def test_demonstrations_that_are_not_cloned(tmp_path, capsys):
  """Those of DreamerV2 have no flags of success."""
  fill(tmp_path / 'a', [3, 4], first=5)
  for threshold, wanted in (
    (0.0, 'none of 2 demonstrations .* Set --bc_threshold .* largest is 6.004'),
    (7.0, 'largest reward is 6.004, below bc_threshold 7'),
    (6.0, '^$'),
  ):
    replay = make_replay(tmp_path / 'a', cloning=Cloning(threshold))
    assert re.search(wanted, replay.uncloned)
  fill(tmp_path / 'b', [3], success=True)
  assert not make_replay(tmp_path / 'b').uncloned
  agent = types.SimpleNamespace(obs_keys=['state'])
  driver = types.SimpleNamespace(obs_space=OBS_SPACE, act_space=ACT_SPACE)
  drawn = {'replay.success_share': 0.5}
  for name, more, said in (
    ('moto', {}, True),
    ('dreamerv2', {}, False),
    ('no_bc', {}, False),
    ('dreamerv2', drawn, True),
  ):
    config = make_config(name, more)
    open_replay(config, agent, driver, tmp_path / 'a', None, None)
    assert ('Set --bc_threshold' in capsys.readouterr().err) == said
