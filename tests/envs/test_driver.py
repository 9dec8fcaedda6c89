"""The driver: alignment, lanes, cut episodes, wrong actions."""

import time

import numpy as np
import pytest
from driver_helpers import Count, equal, open_loop

from moto_tf.envs import EnvError
from moto_tf.envs.driver import Driver


def test_episode_format_and_alignment(drive):
  driver = drive(Count, 1, 'none')
  (episode,) = driver.run(open_loop, [2])
  assert driver.action_repeat == 2
  assert {k: (v.shape, v.dtype.name) for k, v in episode.items()} == {
    'state': ((6, 3), 'float32'),
    'image': ((6, 4, 4, 3), 'uint8'),
    'action': ((6, 2), 'float32'),
    'reward': ((6,), 'float32'),
    'is_first': ((6,), 'bool'),
    'is_last': ((6,), 'bool'),
    'is_terminal': ((6,), 'bool'),
    'success': ((6,), 'bool'),
  }
  # action[i] led into state[i], reward[i] came with it.
  led = np.cumsum(episode['action'].sum(1, dtype=float))
  np.testing.assert_allclose(episode['state'][:, 2], led, atol=1e-5)
  assert (episode['action'][0] == 0).all() and (
    episode['action'][1:] != 0
  ).all()
  np.testing.assert_array_equal(episode['reward'], np.arange(6))
  np.testing.assert_array_equal(episode['image'][:, 0, 0, 0], np.arange(6))
  assert episode['is_first'].tolist() == [True] + 5 * [False]
  assert episode['is_last'].tolist() == 5 * [False] + [True]
  assert episode['is_terminal'].tolist() == 5 * [False] + [True]
  assert episode['success'].tolist() == 3 * [False] + 3 * [True]


@pytest.mark.parametrize('count', [1, 2, 5])
def test_policy_sees_its_lanes(drive, count):
  """Batch size, seeds, steps, states and firsts of every call."""
  seeds = [4, 9, 6, 3, 3]
  finished, kept = [], []

  def policy(obs, state, lanes):
    state = np.zeros(count, int) if state is None else state
    assert {k: v.shape for k, v in obs.items()} == {
      'state': (count, 3),
      'image': (count, 4, 4, 3),
      'is_first': (count,),
    }
    kept.append((obs['state'], obs['state'].copy()))
    state = np.where(obs['is_first'], 0, state + 1)
    for i, (seed, step) in enumerate(zip(*lanes, strict=True)):
      if seed in seeds and not is_over(obs['state'][i]):
        assert obs['state'][i, :2].tolist() == [seed, step]
        assert obs['is_first'][i] == (step == 0)
        # The policy's own count of steps runs along.
        assert state[i] == step
      else:
        # What it answers for an idle lane is ignored.
        assert seed == 0 or is_over(obs['state'][i])
    actions = open_loop(obs, None, lanes)[0]
    actions[[is_over(s) or s[0] == 0 for s in obs['state']]] = np.nan
    return actions, state

  def is_over(state):
    return state[1] == 3 + state[0] % 4

  driver = drive(Count, count, 'none')
  episodes = driver.run(policy, seeds, finished.append)
  assert [e['state'][0, 0] for e in episodes] == seeds
  # The policy may keep what it was given.
  assert all(np.array_equal(a, b) for a, b in kept)
  assert len(finished) == 5
  assert all(any(e is f for f in finished) for e in episodes)
  assert equal(episodes, drive(Count, 1, 'none').run(open_loop, seeds))


def test_driver_can_be_used_again(drive):
  driver = drive(Count, 2, 'none')
  first = driver.run(open_loop, [1, 2, 3])
  assert equal(driver.run(open_loop, [3, 2, 1]), first[::-1])
  assert driver.run(open_loop, []) == []


@pytest.mark.parametrize('count', [1, 3])
def test_a_policy_may_cut_episodes(drive, count):
  """Where it has nothing more to do; the others go on."""
  cut = {4: 2, 6: 0}
  seen = []

  def policy(obs, state, lanes):
    seen[:] = [cut.get(s, 99) <= t for s, t in zip(*lanes)]
    return open_loop(obs, state, lanes)

  driver = drive(Count, count, 'none')
  plain = driver.run(open_loop, [4, 5, 6, 8])
  ended = []
  found = driver.run(policy, [4, 5, 6, 8], ended.append, lambda: seen)
  assert [len(episode['is_last']) for episode in found] == [3, 5, 1, 4]
  assert len(ended) == 4
  for whole, part in zip(plain, found, strict=True):
    size = len(part['is_last'])
    for key in set(whole) - {'is_last', 'is_terminal'}:
      np.testing.assert_array_equal(part[key], whole[key][:size])
    assert part['is_last'].tolist() == [False] * (size - 1) + [True]
    # A cut is no end of the task.
    ends = size == len(whole['is_last'])
    assert part['is_terminal'][-1] == ends


def test_seconds(drive):
  def slow(obs, state, lanes):
    time.sleep(0.02)
    return open_loop(obs, state, lanes)

  driver = drive(Count, 1, 'none')
  assert driver.seconds == {'env': 0, 'policy': 0}
  for _ in range(2):
    begin = time.perf_counter()
    driver.run(slow, [0])
    wall = time.perf_counter() - begin
    # Three calls, of this run alone.
    assert driver.seconds['policy'] >= 0.06
    assert 0 < driver.seconds['env'] < wall - driver.seconds['policy']


@pytest.mark.parametrize(
  'actions, message',
  [
    (np.zeros((1, 3)), r'shape \(1, 3\), expected \(1, 2\)'),
    (np.zeros(2), r'shape \(2,\)'),
    (np.array([[0, np.nan]]), 'not finite'),
  ],
)
def test_wrong_actions(drive, actions, message):
  driver = drive(Count, 1, 'none')
  with pytest.raises(EnvError, match=message):
    driver.run(lambda *args: (actions, None), [0])
  assert len(driver.run(open_loop, [0])) == 1


def test_actions_are_recorded_as_executed(drive):
  driver = drive(Count, 1, 'none')
  (episode,) = driver.run(lambda *args: (np.array([[3, -3]]), None), [0])
  np.testing.assert_array_equal(episode['action'][1:], 3 * [[1, -1]])


def test_wrong_arguments():
  with pytest.raises(EnvError, match='got 0'):
    Driver(Count, 0, 'none')
  with pytest.raises(EnvError, match="'threads'"):
    Driver(Count, 1, 'threads')


def test_inline_errors_are_plain(drive, tmp_path):
  trouble = tmp_path / 'trouble'
  trouble.write_text('1 1 raise')
  driver = drive(lambda: Count(trouble), 1, 'none')
  with pytest.raises(ArithmeticError, match='exploded'):
    driver.run(open_loop, [1])
  assert len(driver.run(open_loop, [1])) == 1
