"""Replay: what is drawn, that it can be drawn again, and ahead of need."""

import hashlib
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from replay_helpers import (
  ACT_SPACE,
  OBS_SPACE,
  fill,
  held,
  make_episode,
  make_replay,
  numbers,
  same,
)

from moto_tf.data.prefetch import Prefetcher
from moto_tf.data.replay import ReplayError
from moto_tf.presets import make_config
from moto_tf.training.session import open_replay

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
    'from pathlib import Path\n'
    'from tests.replay_helpers import make_replay\n'
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


def test_without_share_both_kinds_mix(tmp_path):
  replay = make_replay(
    fill(tmp_path / 'a', [3, 4]), fill(tmp_path / 'b', [5], 100), length=30
  )
  offline = numbers(replay.sample(0)) < 100
  assert (offline != offline[:, :1]).any()


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
