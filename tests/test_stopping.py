"""Runs that are asked to stop anywhere, and environments that break down.

With the toy method and an environment of this file, so that it takes seconds.
"""

import json
import signal

import numpy as np
import pytest
from gymnasium.spaces import Box

from moto_tf import files, make_config
from moto_tf.data.cloning import Cloning
from moto_tf.data.episodes import load_episode
from moto_tf.data.replay import Replay
from moto_tf.envs import Env
from moto_tf.envs.driver import LOST, Driver, random_policy
from moto_tf.envs.worker import WorkerError
from moto_tf.training.algorithm import algorithm_1
from moto_tf.training.collectors import episode_seed
from moto_tf.training.evaluation import EVAL_SEED
from moto_tf.training.run import Run, TrainingError
from moto_tf.training.session import Stopped

STEPS, REPEAT = 8, 3


class Killed(BaseException):
  """What SIGKILL does, as far as files are concerned."""


class Line(Env):
  """A point on a line; a hook sees (seed, step) and may break it down."""

  def __init__(self, hook):
    spaces = {'state': Box(-9, 9, (2,), np.float32)}
    super().__init__(spaces, 1, REPEAT, STEPS)
    self._hook = hook

  def _reset(self, seed):
    self._seed = seed
    self._state = np.random.default_rng(seed).uniform(-1, 1, 2)
    return {'state': self._state.astype(np.float32)}

  def _step(self, action):
    broken = self._hook and self._hook(self._seed, self._steps)
    self._state[0] += np.nan if broken else 0.2 * action[0]
    near = abs(self._state[0] - self._state[1]) < 0.2
    state = {'state': self._state.astype(np.float32)}
    return state, float(near), False, False, near


pytestmark = pytest.mark.usefixtures('toy')


def start(logdir, hook=None, **overrides):
  """A run that evaluates at the steps 6 and 12, and begins with episodes."""
  config = make_config(
    *('gym', 'debug', 'linear'),
    {
      'logdir': str(logdir),
      'task': 'custom_line',
      'offline_steps': 0,
      'online_steps': 12,
      'updates_per_episode': 3,
      'prefill_episodes': 2,
      'checkpoint_every': 4,
      'log_every': 2,
      'eval_every': 6,
      'eval_episodes': 3,
      'replay.length': 4,
      'replay.prefetch': 0,
      'linear.rate': 0.01,
      'envs': 1,
      'env_workers': 'none',
      **overrides,
    },
  )
  return Run(config, lambda: Line(hook))


def finish(logdir, hook=None, **overrides):
  with start(logdir, hook, **overrides) as run:
    algorithm_1(run)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def content(logdir):
  """All that a run learned, collected and logged, without the clock."""
  timed = lambda key: key.startswith(('time', 'memory', 'seconds'))
  rows = {
    name: [
      {k: v for k, v in row.items() if not timed(k)}
      for row in lines(logdir / name)
    ]
    for name in ('metrics.jsonl', 'evaluations.jsonl')
  }
  episodes = sorted(p.name for p in (logdir / 'episodes').glob('*.npz'))
  newest = sorted((logdir / 'checkpoints').glob('*.npz'))[-1]
  with np.load(newest) as arrays:
    weights = {k: arrays[k].tolist() for k in arrays if k != 'meta'}
  return {**rows, 'episodes': episodes, newest.name: weights}


def checkpoints(logdir):
  return sorted(int(p.stem[5:]) for p in (logdir / 'checkpoints').glob('*.npz'))


def once(when, what):
  """A hook that does something the first time that `when` is true."""
  done = []

  def hook(seed, step):
    if not done and when(seed, step):
      done.append(seed)
      return what()

  return hook


def terminate():
  signal.raise_signal(signal.SIGTERM)


def kill():
  raise Killed


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """What a run that nothing interrupted leaves."""
  logdir = tmp_path_factory.mktemp('whole')
  finish(logdir)
  found = content(logdir)
  assert [row['gradient_step'] for row in found['evaluations.jsonl']] == [6, 12]
  last = found['metrics.jsonl'][-1]
  assert (last['episode'], last['agent_step'], last['env_step']) == (6, 48, 144)
  reports = [row for row in found['metrics.jsonl'] if 'report/reward' in row]
  assert [row['gradient_step'] for row in reports] == [4, 8, 12]
  return found


def test_the_seed_reaches_episodes_and_batches(tmp_path):
  with start(tmp_path, seed=3) as run:
    run.prefill()
    batch = run.sample()
    settings = {k: v for k, v in run.config.replay.items() if k != 'prefetch'}
  driver = Driver(lambda: Line(None), 1, 'none')
  spaces = driver.obs_space, driver.act_space
  for number in range(2):
    seed = episode_seed(3, number, 0)
    (expected,) = driver.run(random_policy(driver.act_space), [seed])
    (path,) = tmp_path.glob(f'episodes/{number:06d}-*.npz')
    found = load_episode(path)
    for key in ('state', 'action'):
      np.testing.assert_array_equal(found[key], expected[key])
  for seed in (3, 0):
    replay = Replay(
      None, tmp_path / 'episodes', *spaces, **settings, seed=seed,
      cloning=Cloning(),
    )  # fmt: skip
    same = np.array_equal(replay.sample(0)['state'], batch['state'])
    assert same == (seed == 3)


def test_the_last_episode_may_have_fewer_updates(tmp_path):
  finish(tmp_path, online_steps=10)
  found = content(tmp_path)
  assert found['metrics.jsonl'][-1]['gradient_step'] == 10
  assert len(found['episodes']) == 2 + 4
  assert [row['gradient_step'] for row in found['evaluations.jsonl']] == [6, 10]


@pytest.mark.parametrize('step', [6, 12])
def test_stopped_within_an_evaluation(tmp_path, whole, step):
  """Within an episode of it, and at the next start it is made up for."""
  count = [0]

  def evaluating(seed, _):
    count[0] += seed == EVAL_SEED + 1
    return count[0] == 3 + (step - 6) // 6 * STEPS

  with pytest.raises(Stopped) as info:
    finish(tmp_path, once(evaluating, terminate))
  assert info.value.number == signal.SIGTERM
  assert checkpoints(tmp_path)[-1] == step
  assert len(lines(tmp_path / 'evaluations.jsonl')) == (step > 6)
  # What the command evaluate found of this checkpoint belongs to the run.
  mine, late = (
    tmp_path / 'evaluation' / f'evaluation-{number}.json'
    for number in (step, step + 1)
  )
  for path in (mine, late):
    files.write_json(path, {})
  # Stopped again while it is made up for; then killed after it.
  again = once(lambda seed, _: seed == EVAL_SEED, terminate)
  with pytest.raises(Stopped):
    start(tmp_path, again).__enter__()
  run = start(tmp_path)
  run.session.save = kill
  with pytest.raises(Killed):
    run.__enter__()
  assert lines(tmp_path / 'evaluations.jsonl')[-1]['gradient_step'] == step
  assert mine.exists() and not late.exists()
  finish(tmp_path)
  sessions = json.loads((tmp_path / 'sessions.json').read_text())
  assert [x['gradient_step'] for x in sessions] == [0, step, step, step]
  assert content(tmp_path) == whole


@pytest.mark.parametrize('episode', [0, 1, 3])
def test_stopped_within_an_episode(tmp_path, whole, episode):
  """Of the random ones, and of those of the policy."""
  wanted = episode_seed(0, episode, 0)
  hook = once(lambda seed, step: seed == wanted and step == 3, terminate)
  with pytest.raises(Stopped):
    finish(tmp_path, hook)
  assert checkpoints(tmp_path)[-1] == max(0, (episode - 2) * 3)
  finish(tmp_path)
  found = content(tmp_path)
  # The row at the stop is one more, and splits the next one.
  for name in whole.keys() - {'metrics.jsonl'}:
    assert found[name] == whole[name]


def test_a_second_signal_interrupts_at_once(tmp_path):
  def hook(seed, step):
    terminate()
    terminate()

  with pytest.raises(KeyboardInterrupt) as info:
    finish(tmp_path, hook)
  assert not isinstance(info.value, Stopped)


def breaking(*places):
  """A hook for which the seeds of (episode, lost before) break down."""
  seeds = {episode_seed(0, *place) for place in places}
  return lambda seed, step: seed in seeds and step == 4


def test_lost_episodes_are_replaced_and_counted(tmp_path, whole, capsys):
  hook = breaking((0, 0), (3, 0), (3, 1))
  finish(tmp_path / 'a', hook)
  err = capsys.readouterr().err
  for place in ((0, 0), (3, 0), (3, 1)):
    assert f'episode of seed {episode_seed(0, *place)} is lost' in err
  assert 'not finite' in err and 'another seed takes its place' in err
  expected = content(tmp_path / 'a')
  counts = [row['lost_episodes'] for row in expected['metrics.jsonl']]
  assert counts == [1, 3, 3, 3, 3, 3]
  assert expected['episodes'] == whole['episodes']
  # Saved before another seed is tried; killed there, it goes on the same way.
  third = episode_seed(0, 3, 2)
  killed = once(lambda seed, step: seed == third, kill)
  with pytest.raises(Killed):
    finish(tmp_path / 'b', lambda *args: hook(*args) or killed(*args))
  assert checkpoints(tmp_path / 'b') == [0, 3]
  finish(tmp_path / 'b', hook)
  assert content(tmp_path / 'b') == expected


def test_a_run_of_lost_episodes_ends_the_run_saved(tmp_path, whole):
  places = [(4, lost) for lost in range(LOST)]
  wanted = f'{LOST} episodes in a row were lost.*saved in.*not finite'
  for _ in range(2):
    with pytest.raises(TrainingError, match=wanted):
      finish(tmp_path, breaking(*places))
    assert checkpoints(tmp_path)[-1] == 6
  # With an environment that is mended, nothing shows of it.
  finish(tmp_path)
  assert content(tmp_path) == whole


def test_lost_evaluation_episodes_are_skipped(tmp_path, whole, capsys):
  finish(tmp_path, lambda seed, step: seed == EVAL_SEED + 1)
  assert f'seed {EVAL_SEED + 1} is lost and left out' in capsys.readouterr().err
  found = content(tmp_path)
  for row, old in zip(
    found['evaluations.jsonl'], whole['evaluations.jsonl'], strict=True
  ):
    assert row.pop('seeds') == [EVAL_SEED, EVAL_SEED + 2]
    for key in ('return', 'success', 'length'):
      assert row[key] == old[key][::2]
  evaluated = [row for row in found['metrics.jsonl'] if 'eval/lost' in row]
  assert [row['gradient_step'] for row in evaluated] == [6, 12]
  assert all(row['eval/lost'] == 1 for row in evaluated)
  # What is learned and collected is the same.
  for key in whole.keys() - {'metrics.jsonl', 'evaluations.jsonl'}:
    assert found[key] == whole[key]


def test_an_evaluation_of_nothing_is_skipped(tmp_path, whole, capsys):
  evaluating = lambda seed, step: EVAL_SEED <= seed < EVAL_SEED + 3
  finish(tmp_path, evaluating)
  assert 'there is no evaluation: the episodes of all 3 seeds' in (
    capsys.readouterr().err
  )
  rows = lines(tmp_path / 'metrics.jsonl')
  assert [row.get('eval/lost') for row in rows] == 2 * [None, None, 3]
  assert not any('eval/success' in row for row in rows)


def test_a_broken_evaluation_ends_the_run_saved(tmp_path, whole):
  many = {'eval_episodes': LOST}
  finish(tmp_path / 'a', **many)
  with pytest.raises(WorkerError, match=f'{LOST} episodes in a row'):
    finish(tmp_path / 'b', lambda seed, step: seed < 2_000_000, **many)
  assert checkpoints(tmp_path / 'b')[-1] == 6
  finish(tmp_path / 'b', **many)
  assert content(tmp_path / 'b') == content(tmp_path / 'a')
