"""Worker processes: the same episodes, failures, and their end."""

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
from driver_helpers import Count, equal, open_loop
from env_helpers import settings

from moto_tf import envs
from moto_tf.envs import EnvError
from moto_tf.envs.driver import Driver
from moto_tf.envs.worker import EnvWorker, WorkerError

REPO = Path(__file__).parents[2]


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
