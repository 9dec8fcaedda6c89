"""Environments that fail, hang, or break down, and requests to stop."""

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from env_helpers import settings
from gymnasium.spaces import Box

from moto_tf import envs
from moto_tf.data import record
from moto_tf.envs import Env, EnvError, SimulationError, make_env, render
from moto_tf.envs.driver import LOST, Driver
from moto_tf.envs.worker import GRACE, WorkerError
from moto_tf.signals import StopAsked, StopRequest

REPO = Path(__file__).parents[2]


class Fragile(Env):
  """Three steps; what goes wrong in the second one depends on the seed.

  Args:
    troubles: what happens by seed.
    once: a file of which the existence says that it has happened.
  """

  def __init__(self, troubles=None, once=None):
    space = {'state': Box(-np.inf, np.inf, (2,), np.float32)}
    super().__init__(space, 1, time_limit=3)
    self._troubles, self._once = troubles or {}, once

  def _reset(self, seed):
    self._seed, self._state = seed, np.float32([seed, 0])
    return {'state': self._state.copy()}

  def _step(self, action):
    self._state[1] += 1
    if self._state[1] == 2:
      self._fail(self._troubles.get(self._seed))
    return {'state': self._state.copy()}, 0.0, False, False, False

  def _fail(self, how):
    if not how or (self._once and Path(self._once).exists()):
      return
    if self._once:
      Path(self._once).touch()
    if how == 'nan':
      self._state[1] = np.nan
    elif how == 'defect':
      raise ArithmeticError('a defect')
    elif how == 'contract':
      raise EnvError('This will not work with any seed.')
    elif how == 'hang':
      time.sleep(600)
    elif how == 'stop':
      os.kill(os.getpid(), signal.SIGSTOP)


def still(obs, state, lanes):
  return np.zeros((len(obs['is_first']), 1)), state


@pytest.fixture
def drive():
  """Makes drivers of a Fragile, and closes them."""
  with contextlib.ExitStack() as stack:

    def build(count=1, workers='process', troubles=None, once=None, **options):
      make = functools.partial(Fragile, troubles, once)
      driver = Driver(make, count, workers, **options)
      stack.callback(driver.close)
      return driver

    yield build


def seeds_of(episodes):
  return [None if e is None else int(e['state'][0, 0]) for e in episodes]


@pytest.mark.parametrize('how', ['hang', 'stop'])
def test_a_worker_that_does_not_answer_is_replaced(drive, tmp_path, capfd, how):
  once = str(tmp_path / 'once')
  # Long enough for the healthy one, which may be late on a busy machine.
  driver = drive(2, troubles={5: how}, once=once, timeout=3)
  pids = [env.process.pid for env in driver._envs]
  episodes = driver.run(still, [4, 5, 6])
  assert seeds_of(episodes) == [4, 5, 6]
  assert all(len(e['reward']) == 4 for e in episodes)
  err = capfd.readouterr().err
  assert f'The worker process {pids[1]} of the environment did not' in err
  assert 'answer for 3 s' in err and 'the episode of seed 5 again' in err
  # It is gone, and the other one is the same.
  assert not Path(f'/proc/{pids[1]}').exists()
  assert driver._envs[0].process.pid == pids[0]


@pytest.mark.parametrize('workers', ['process', 'none'])
def test_lost_episodes_are_left_out(drive, workers):
  """At once, since a seed that breaks down does so again."""
  driver = drive(2, workers, {2: 'nan', 5: 'nan'})
  lost = []
  episodes = driver.run(
    still, [1, 2, 3, 4, 5], on_lost=lambda *args: lost.append(args)
  )
  assert seeds_of(episodes) == [1, None, 3, 4, None]
  assert sorted(seed for seed, _ in lost) == [2, 5]
  assert all('its simulation broke down' in text for _, text in lost)
  # Nobody asks for it to be left out: it is told as what it is.
  with pytest.raises(SimulationError, match='not finite in'):
    driver.run(still, [2])
  assert seeds_of(driver.run(still, [3])) == [3]


def test_a_run_of_lost_episodes_is_raised(drive):
  driver = drive(1, 'none', dict.fromkeys(range(1, 20), 'nan'))
  lost = []
  lose = lambda seed, problem: lost.append(seed)
  with pytest.raises(WorkerError, match=f'{LOST} episodes .*seed 5: .*broke'):
    driver.run(still, [1, 2, 3, 4, 5, 6], on_lost=lose)
  assert lost == [1, 2, 3, 4]
  # One that went well in between ends the row.
  lost.clear()
  seeds = [1, 2, 3, 4, 0, 5, 6]
  found = driver.run(still, seeds, on_lost=lose)
  assert lost == [1, 2, 3, 4, 5, 6] and seeds_of(found)[4] == 0


@pytest.mark.parametrize('workers', ['process', 'none'])
def test_what_no_seed_can_mend_is_raised_at_once(drive, workers, capfd):
  driver = drive(1, workers, {1: 'contract'})
  with pytest.raises(EnvError, match='^This will not work with any seed'):
    driver.run(still, [1], on_lost=lambda *args: None)
  assert 'again' not in capfd.readouterr().err


def test_a_recording_drops_a_lost_attempt(tmp_path, capsys):
  """And it does not try it again when it goes on."""
  troubles = {record._seed(0, 1): 'nan'}
  act = lambda obs: np.zeros(1, np.float32)
  envs.register_suite(
    'fragile',
    lambda name, config: Fragile(troubles),
    demonstrator=lambda name, order='': envs.Demonstrator(
      lambda seed: act, lambda episode: True
    ),
  )
  try:
    for count in (2, 3):
      recording = record.Recording('fragile_task', {})
      assert len(record.collect(recording, tmp_path, count).lengths) == count
      assert ('attempt 1 is lost' in capsys.readouterr().err) == (count == 2)
  finally:
    envs.SUITES.remove('fragile')
  names = [path.name for path in sorted(tmp_path.glob('*.npz'))]
  assert names == ['000000-3.npz', '000002-3.npz', '000003-3.npz']


def test_a_defect_in_this_process_keeps_its_traceback(drive):
  driver, lost = drive(1, 'none', {1: 'defect'}), []
  driver.run(still, [1, 2], on_lost=lambda *args: lost.append(args))
  ((seed, text),) = lost
  assert seed == 1 and "raise ArithmeticError('a defect')" in text


@pytest.mark.parametrize('how', ['hang', 'stop'])
def test_a_request_to_stop_is_heard_while_a_worker_hangs(drive, how):
  stop = StopRequest()
  driver = drive(2, troubles=dict.fromkeys((1, 2), how), check=stop.check)
  driver.run(still, [3, 4])
  timer = threading.Timer(0.3, setattr, (stop, 'number', signal.SIGTERM))
  timer.start()
  begin = time.monotonic()
  with pytest.raises(StopAsked) as info:
    driver.run(still, [1, 2])
  assert info.value.number == signal.SIGTERM
  assert time.monotonic() - begin < 5
  begin = time.monotonic()
  driver.close()
  # Both at once.
  assert time.monotonic() - begin < 2 * GRACE - 1
  timer.join()


def test_a_request_to_stop_is_heard_at_every_step(drive):
  stop, calls = StopRequest(), []
  driver = drive(1, 'none', check=stop.check)

  def policy(obs, state, lanes):
    calls.append(1)
    stop.number = signal.SIGINT
    return still(obs, state, lanes)

  with pytest.raises(StopAsked):
    driver.run(policy, [1])
  assert len(calls) == 1
  stop.number = None
  assert seeds_of(driver.run(still, [2])) == [2]


COMMAND = """
import os, sys, time
from moto_tf.signals import interruptible
with interruptible('Go on.'):
  try:
    print('ready', flush=True)
    time.sleep(60)
  finally:
    print('tidied', flush=True)
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_commands_end_tidily(number):
  """One signal, also SIGTERM, of which Python itself knows nothing."""
  process = subprocess.Popen(
    [sys.executable, '-c', COMMAND],
    env={**os.environ, 'PYTHONPATH': str(REPO)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    # Programs that a shell starts in the background ignore it.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(number)
  out, err = process.communicate(timeout=20)
  assert out == 'tidied\n' and err == '\nStopped. Go on.\n'
  assert process.returncode == 128 + number


@pytest.mark.parametrize('task', ['metaworld_hammer', 'kitchen_mixed'])
def test_an_unstable_simulation_is_no_episode(task, capfd):
  """MuJoCo would reset it and go on, in the middle of the episode."""
  env = make_env(task, settings(time_limit=0))
  action = np.zeros(env.act_space.shape)
  env.reset(0)
  first = env.step(action)['state']
  data = getattr(env, 'data', None) or env._env.data
  data.qvel[0] = 1e12
  with pytest.raises(SimulationError, match='became unstable'):
    env.step(action)
  # The next episode is as it was.
  env.reset(0)
  np.testing.assert_array_equal(env.step(action)['state'], first)
  env.close()


def test_an_unstable_gymnasium_simulation_is_no_episode():
  env = make_env('gym_HalfCheetah-v5', settings(time_limit=0))
  action = np.zeros(env.act_space.shape)
  env.reset(0)
  env.step(action)
  env._env.unwrapped.data.qvel[0] = np.nan
  with pytest.raises(SimulationError, match='became unstable'):
    env.step(action)
  env.reset(0)
  env.step(action)
  env.close()


OPENGL = """
import moto_tf
from moto_tf.envs import render
with moto_tf.explain_errors():
  mujoco = render.load_mujoco()
  geom = '<geom size="1 1 1" type="box"/>'
  model = mujoco.MjModel.from_xml_string(
    f'<mujoco><worldbody>{geom}</worldbody></mujoco>'
  )
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  view = render.View(0, -45, 4, (0, 0, 0))
  print(render.Renderer(model, 32, view, True)(data).max() > 0)
"""


@pytest.mark.parametrize(
  'variables, wanted',
  [
    ({'MUJOCO_GL': ''}, 'True'),
    ({'MUJOCO_GL': '', 'DISPLAY': ':77'}, 'DISPLAY=:77 may not be there'),
    ({'MUJOCO_GL': 'eggl'}, 'Set MUJOCO_GL to egl, osmesa or glfw'),
  ],
)
def test_opengl_is_not_called_missing(variables, wanted):
  """Where the fault is in the variables that choose it."""
  left_out = ('MUJOCO_GL', 'DISPLAY', 'PYOPENGL_PLATFORM')
  rest = {k: v for k, v in os.environ.items() if k not in left_out}
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', OPENGL],
    env={**rest, 'PYTHONPATH': str(REPO), **variables},
    capture_output=True,
    text=True,
  )
  text = done.stdout + done.stderr
  assert wanted in text
  assert 'Install' not in text and 'Traceback' not in text


@pytest.mark.parametrize(
  'told, problem, wanted',
  [
    ('glfw', '', 'DISPLAY is not set. Set MUJOCO_GL=egl'),
    ('disable', '', 'MUJOCO_GL=disable switches images off'),
    ('egl', 'PYOPENGL_PLATFORM is glx', 'Unset .* PYOPENGL_PLATFORM'),
    ('egl', 'no library', 'Install OpenGL: .*libegl1'),
    ('osmesa', 'no library', 'Install OpenGL: .*libosmesa6'),
  ],
)
def test_advice_on_opengl(monkeypatch, told, problem, wanted):
  monkeypatch.delenv('DISPLAY', raising=False)
  monkeypatch.setenv('MUJOCO_GL', told)
  assert re.search(wanted, render.advice(RuntimeError(problem)))
