"""Driver and worker processes: alignment, determinism, failures."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from env_helpers import settings
from gymnasium.spaces import Box

from moto_tf import envs
from moto_tf.envs import Env, EnvError
from moto_tf.envs.driver import Driver
from moto_tf.envs.worker import EnvWorker, WorkerError

REPO = Path(__file__).parents[2]


class Count(Env):
  """Counts its steps; observes (seed, steps, sum of actions).

  The episode of seed s has 3 + s % 4 steps. The file `trouble` says what goes
  wrong in the second step of which seed, and how often.
  """

  def __init__(self, trouble=None):
    super().__init__(
      {
        'state': Box(-np.inf, np.inf, (3,), np.float32),
        'image': Box(0, 255, (4, 4, 3), np.uint8),
      },
      actions=2,
      action_repeat=2,
    )
    self._trouble = trouble and Path(trouble)

  def _reset(self, seed):
    self._seed, self._count, self._sum = seed, 0, 0.0
    return self._observe()

  def _step(self, action):
    self._count += 1
    self._sum += float(action.sum())
    if self._count == 2:
      self._fail()
    done = self._count == 3 + self._seed % 4
    return self._observe(), self._count, done, False, self._count == 3

  def _observe(self):
    return {
      'state': np.float32([self._seed, self._count, self._sum]),
      'image': np.full((4, 4, 3), self._count, np.uint8),
    }

  def _fail(self):
    if not (self._trouble and self._trouble.exists()):
      return
    seed, left, how = self._trouble.read_text().split()
    if int(seed) != self._seed or int(left) == 0:
      return
    self._trouble.write_text(f'{seed} {int(left) - 1} {how}')
    if how == 'raise':
      raise ArithmeticError('the simulation exploded')
    if how == 'exit':
      os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def open_loop(obs, state, lanes):
  """Actions that depend on seed and step alone."""
  values = [
    np.random.default_rng([s, t]).uniform(-1, 1, 2) for s, t in zip(*lanes)
  ]
  return np.array(values), state


@pytest.fixture
def drive():
  """Makes drivers and closes them."""
  with contextlib.ExitStack() as stack:

    def build(make_env, count, workers):
      driver = Driver(make_env, count, workers)
      stack.callback(driver.close)
      return driver

    yield build


def equal(a, b):
  return len(a) == len(b) and all(
    x.keys() == y.keys()
    and all(x[k].dtype == y[k].dtype and np.array_equal(x[k], y[k]) for k in x)
    for x, y in zip(a, b, strict=True)
  )


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


def test_workers_give_the_same_episodes(drive):
  seeds = [0, 1, 2, 3, 7]
  expected = drive(Count, 1, 'none').run(open_loop, seeds)
  driver = drive(Count, 3, 'process')
  assert driver.obs_space == Count().obs_space
  assert driver.act_space == Count().act_space
  assert driver.action_repeat == 2
  assert equal(driver.run(open_loop, seeds), expected)


@pytest.mark.parametrize(
  'how, message',
  [
    ('raise', 'ArithmeticError: the simulation exploded'),
    ('exit', 'ended with code 7'),
    ('kill', 'died of SIGKILL, perhaps for lack of memory'),
  ],
)
def test_failed_worker_is_reported_and_replaced(
  drive, tmp_path, capfd, how, message
):
  seeds = [1, 5, 2]
  expected = drive(Count, 1, 'none').run(open_loop, seeds)
  trouble = tmp_path / 'trouble'
  driver = drive(functools.partial(Count, str(trouble)), 2, 'process')
  # The second seed fails twice and then runs; below it always fails.
  trouble.write_text(f'5 2 {how}')
  assert equal(driver.run(open_loop, seeds), expected)
  err = capfd.readouterr().err
  assert err.count(message) == 2
  assert err.count('the episode of seed 5 again') == 2
  if how == 'raise':
    # Where in the environment it was.
    assert "raise ArithmeticError('the simulation exploded')" in err
    trouble.write_text(f'5 9 {how}')
    with pytest.raises(WorkerError, match='Seed 5 failed 3 times.*') as info:
      driver.run(open_loop, seeds)
    assert message in str(info.value)
    assert isinstance(info.value.error, ArithmeticError)
    # The driver is still of use.
    assert equal(driver.run(open_loop, seeds[:1]), expected[:1])


def test_worker_killed_between_runs(drive, capfd):
  driver = drive(Count, 1, 'process')
  first = driver.run(open_loop, [3])
  process = driver._envs[0].process
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert equal(driver.run(open_loop, [3]), first)
  assert 'SIGKILL' in capfd.readouterr().err


def test_interrupted_run_leaves_no_old_records(drive):
  driver = drive(Count, 2, 'process')
  expected = driver.run(open_loop, [1, 2])
  driver._envs[1].reset_async(9)
  assert equal(driver.run(open_loop, [1, 2]), expected)


def test_setting_errors_read_the_same_in_a_worker():
  make_env = envs.env_maker('metaworld_drawer-opn', None)
  with pytest.raises(EnvError, match=r'Did you mean drawer-open\?'):
    Driver(make_env, 2, 'process')


def alive(pid):
  try:
    state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
  except FileNotFoundError:
    return False
  return state != 'Z'


def wait_until(condition, seconds=20):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_close_ends_the_processes():
  driver = Driver(Count, 2, 'process')
  pids = [env.process.pid for env in driver._envs]
  assert all(map(alive, pids))
  driver.close()
  driver.close()
  assert not any(map(alive, pids))


def test_worker_has_the_protocol():
  worker = EnvWorker(lambda: Count())
  with contextlib.closing(worker):
    first = worker.reset(np.int64(3))
    assert first['is_first'] and first['state'].tolist() == [3, 0, 0]
    assert worker.step(np.ones(2, np.float32))['state'].tolist() == [3, 1, 2]
    worker.reset_async(4)
    assert worker.busy
    assert worker.result()['state'][0] == 4
    assert not worker.busy
    pid = worker.process.pid
    worker.restart()
    assert worker.process.pid != pid
    with pytest.raises(WorkerError, match='call reset'):
      worker.step(np.zeros(2))


SCRIPT = """
import os, signal, sys, time
# Programs that a shell script starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules['tensorflow'] = None  # As if it were imported here.
import numpy as np
from gymnasium.spaces import Box
from moto_tf.envs.driver import Driver
from moto_tf.envs import Env

print('script', os.getpid(), flush=True)

class Here(Env):
  # A class of the script itself; there is no `if __name__ ...` either.
  def __init__(self):
    super().__init__({'state': Box(-9, 9, (1,), np.float32)}, 1)
    # In one piece, between those of the other worker.
    line = f"worker {os.getpid()} {'tensorflow' in sys.modules}\\n"
    os.write(1, line.encode())
  def _reset(self, seed):
    return {'state': np.zeros(1, np.float32)}
  def _step(self, action):
    time.sleep(0.05)
    return {'state': np.zeros(1, np.float32)}, 0.0, False, False, False

driver = Driver(Here, 2, 'process')
try:
  driver.run(lambda obs, state, lanes: (np.zeros((2, 1)), None), [0, 1])
except KeyboardInterrupt:
  driver.close()
  print('closed', flush=True)
"""


@pytest.fixture
def script(tmp_path):
  """A running script with two workers, and the process ids of these."""
  path = tmp_path / 'script.py'
  path.write_text(SCRIPT)
  process = subprocess.Popen(
    [sys.executable, str(path)],
    env={**os.environ, 'PYTHONPATH': str(REPO)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )
  try:
    # Without its own re-import the script names itself once.
    assert process.stdout.readline() == f'script {process.pid}\n'
    lines = [process.stdout.readline().split() for _ in range(2)]
    # The workers import the environment, and no TensorFlow.
    assert [(a, c) for a, _, c in lines] == 2 * [('worker', 'False')]
    pids = [int(pid) for _, pid, _ in lines]
    time.sleep(0.5)
    assert all(map(alive, pids))
    yield process, pids
  finally:
    process.kill()
    process.wait()


def test_interrupt_ends_quietly(script):
  process, pids = script
  for pid in pids:
    os.kill(pid, signal.SIGINT)
  # As Ctrl-C does, to the whole process group.
  os.killpg(process.pid, signal.SIGINT)
  out, _ = process.communicate(timeout=20)
  assert out == 'closed\n' and process.returncode == 0
  assert not any(map(alive, pids))


def test_workers_end_when_the_parent_is_killed(script):
  process, pids = script
  process.kill()
  process.wait()
  wait_until(lambda: not any(map(alive, pids)))
  assert process.stdout.read() == ''


def test_metaworld_in_workers(drive):
  """With images; one environment or two give the same episodes."""
  config = settings(image_size=32, time_limit=6, image=True)

  def policy(obs, state, lanes):
    values = [np.sin(s + t + np.arange(4)) for s, t in zip(*lanes)]
    return np.array(values), state

  make_env = envs.env_maker('metaworld_window-open', config)
  inline = drive(make_env, 1, 'none').run(policy, [5, 6, 7])
  assert equal(drive(make_env, 2, 'process').run(policy, [5, 6, 7]), inline)
  assert inline[0]['image'].shape == (7, 32, 32, 3)
  assert not np.array_equal(inline[0]['image'], inline[1]['image'])
