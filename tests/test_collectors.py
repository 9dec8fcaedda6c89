"""Episodes that processes collect beside learning.

With the toy method, which the processes load as a plugin.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box

import moto_tf
from moto_tf import make_config
from moto_tf.agents import make_agent
from moto_tf.data.episodes import load_episode
from moto_tf.envs import Env
from moto_tf.envs.driver import LOST, Driver
from moto_tf.training import rows
from moto_tf.training.collectors import Collectors, episode_seed
from moto_tf.training.run import Run, TrainingError
from moto_tf.training.session import Stopped

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / 'toy_method.py'
UPDATES = 3

pytestmark = pytest.mark.usefixtures('toy')


class Point(Env):
  """A point that actions move; seeds in `broken` end in NaN."""

  def __init__(self, broken=(), pause=0.0, steps=5, says=''):
    spaces = {'state': Box(-9, 9, (2,), np.float32)}
    super().__init__(spaces, 1, time_limit=steps)
    self._broken, self._pause, self._says = broken, pause, says

  def _reset(self, seed):
    if self._says:
      print(self._says, flush=True)
    self._lost = 'all' in self._broken or seed in self._broken
    self._state = np.random.default_rng(seed).uniform(-1, 1, 2)
    return {'state': self._state.astype(np.float32)}

  def _step(self, action):
    time.sleep(self._pause)
    self._state[0] += np.nan if self._lost else 0.2 * action[0]
    return {'state': self._state.astype(np.float32)}, 1.0, False, False, False


def configure(logdir, **overrides):
  return make_config(
    *('gym', 'debug', 'linear'),
    {
      'logdir': str(logdir),
      'task': 'custom_point',
      'offline_steps': 0,
      'online_steps': 4 * UPDATES,
      'updates_per_episode': UPDATES,
      'prefill_episodes': 2,
      'eval_every': 0,
      'eval_episodes': 1,
      'report_every': 0,
      'log_every': 1,
      'replay.length': 4,
      'env_workers': 'none',
      'collect': 'async',
      'plugins': str(TOY),
      'linear.rate': 0.05,
      'replay.prefetch': 0,
      **overrides,
    },
  )


def train(config, weights, make_env=Point):
  """Trains; notes the weights that act before each gradient step."""
  with Run(config, make_env) as run:
    run.prefill()
    for episode in run.online_episodes():
      weights[run.gradient_step] = run.agent.save_policy()
      run.collect_episode(episode)
      for _ in run.updates(episode):
        run.update(run.sample())
  return run


@pytest.mark.parametrize('count', [1, 2])
def test_which_weights_act(count, tmp_path):
  """Those from `count` episodes before; nothing else is different."""
  config, weights = configure(tmp_path, collectors=count), {}
  run = train(config, weights)
  assert run.episode == 6 and run.gradient_step == 12
  driver = Driver(Point, 1, 'none')
  agent = make_agent(config, driver.obs_space, driver.act_space)
  acted = []
  for number in range(2, 6):
    step = max(0, UPDATES * (number - 2 - count))
    acted.append(step)
    agent.load(weights[step], policy_only=True)
    seed = episode_seed(config.seed, number, 0)
    (expected,) = driver.run(agent.policy, [seed])
    (path,) = tmp_path.glob(f'episodes/{number:06d}-*.npz')
    found = load_episode(path)
    for key in ('action', 'state'):
      np.testing.assert_allclose(found[key], expected[key], atol=1e-5)
      # Other weights act otherwise, so that the test can fail.
      if key == 'action' and number > 3:
        agent.load(weights[9], policy_only=True)
        (other,) = driver.run(agent.policy, [seed])
        assert np.abs(other[key] - found[key]).max() > 1e-3
        agent.load(weights[step], policy_only=True)
  logged = rows.read(tmp_path / 'metrics.jsonl')[0]
  ages = [x['episode/policy_age'] for x in logged if 'episode/policy_age' in x]
  assert ages == [i * UPDATES - step for i, step in enumerate(acted)]
  assert sum(x['time/episode_wait_seconds'] for x in logged) > 0


def test_the_last_episode_may_have_fewer_updates(tmp_path):
  run = train(configure(tmp_path, online_steps=3 * UPDATES + 1), {})
  assert (run.gradient_step, run.episode) == (3 * UPDATES + 1, 2 + 4)


def test_it_goes_on_after_a_stop_and_a_lost_episode(tmp_path):
  config = configure(tmp_path)
  broken = episode_seed(config.seed, 3, 0)
  make_env = lambda: Point((broken,), 0.02)

  with pytest.raises(Stopped), Run(config, make_env) as run:
    run.prefill()
    run.collect_episode(0)
    processes = [x.process for x in run.session.collectors()._workers]
    # While the next episode is played.
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in run.updates(0):
      run.update(run.sample())
  assert all(x.poll() is not None for x in processes)
  run = train(config, {}, make_env)
  counters = run.session.counters
  assert (counters.episode, counters.lost_episodes) == (6, 1)
  names = sorted(x.name[:6] for x in tmp_path.glob('episodes/*.npz'))
  assert names == [f'{i:06d}' for i in range(6)]


def test_a_run_of_lost_episodes_ends_the_run_saved(tmp_path, capsys):
  config = configure(tmp_path, prefill_episodes=1)
  with Run(config, Point) as run:
    run.prefill()
    run.save()
  with (
    pytest.raises(TrainingError, match=f'{LOST} episodes in a row were lost'),
    Run(config, lambda: Point(('all',))) as run,
  ):
    run.collect_episode(0)
  assert capsys.readouterr().err.count('another seed takes its place') == 4


def test_a_collector_that_dies_begins_its_episode_again(tmp_path, capsys):
  config = configure(tmp_path)
  with Run(config, lambda: Point((), 0.05)) as run:
    run.prefill()
    run.collect_episode(0)
    (worker,) = run.session.collectors()._workers
    worker.process.kill()
    for _ in run.updates(0):
      run.update(run.sample())
    run.collect_episode(1)
    assert run.episode == 4
  assert 'Starting the collector and episode 3 again' in capsys.readouterr().err


def test_what_a_collector_cannot_do_is_raised(tmp_path):
  config = configure(tmp_path)

  def make_env():
    raise moto_tf.envs.EnvError('There is no such thing.')

  collectors = Collectors(config, make_env, lambda: None)
  with pytest.raises(moto_tf.envs.EnvError, match='^There is no such thing.$'):
    collectors.next(0, 1, dict, 0)
  collectors.close()


def test_a_signal_is_heard_while_a_collector_starts(tmp_path):
  """However long its environment takes: weights are more than a pipe holds."""

  def make_env():
    time.sleep(30)

  def check():
    raise Stopped(signal.SIGTERM)

  collectors = Collectors(configure(tmp_path), make_env, check)
  weights = lambda: {'weights': np.zeros(2**21, np.float32)}
  with pytest.raises(Stopped):
    collectors.next(0, 1, weights, 0)
  collectors.close()


def abandon(logdir):
  """Asks for an episode of a minute, in a process that will be killed."""
  config = configure(logdir)
  make_env = lambda: Point((), 1.0, 60, 'plays')
  driver = Driver(make_env, 1, 'none')
  agent = make_agent(config, driver.obs_space, driver.act_space)
  collectors = Collectors(config, make_env, lambda: None)
  collectors.next(0, 1, agent.save_policy, 0)


def test_collectors_leave_with_a_run_that_was_killed(tmp_path):
  """In the middle of an episode, since nobody waits for it any more."""
  code = 'import test_collectors as t, sys; import toy_method; '
  code += 't.abandon(sys.argv[1])'
  run = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path)],
    env={**os.environ, 'PYTHONPATH': f'{ROOT}:{Path(__file__).parent}'},
    stdout=subprocess.PIPE,
  )
  children = Path(f'/proc/{run.pid}/task/{run.pid}/children')
  assert run.stdout.readline() == b'plays\n'
  (pid,) = children.read_text().split()
  run.kill()
  run.wait()
  end = time.monotonic() + 30
  while Path(f'/proc/{pid}').exists():
    assert time.monotonic() < end
    time.sleep(0.1)
  run.stdout.close()
