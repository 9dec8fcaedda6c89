"""Algorithm 1 end to end: counters, resume, signals, failures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from moto_tf.agents.base import MismatchError
from moto_tf.data.episodes import find_episodes, load_episode
from moto_tf.envs.gym import wrap_gym
from moto_tf.ownership import OwnedError
from moto_tf.policy import ObservationError, load_policy
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError
from moto_tf.training import run as module
from moto_tf.training.algorithm import algorithm_1 as train
from moto_tf.training.checkpoint import Checkpoints
from moto_tf.training.session import Stopped

REPO = Path(__file__).parents[1]


class Reach(gymnasium.Env):
  """Moves a point on a line to a goal; the state is (point, goal)."""

  observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    self._state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
    self._steps = 0
    return self._state.copy(), {}

  def step(self, action):
    self._steps += 1
    self._state[0] = np.clip(self._state[0] + 0.2 * action[0], -2, 2)
    near = abs(self._state[0] - self._state[1]) < 0.1
    info = {'success': bool(near)}
    return self._state.copy(), float(near), False, self._steps >= 8, info


def tiny(logdir, **overrides):
  return make_config(
    'gym',
    'debug',
    'proprio',
    {
      'logdir': str(logdir),
      'task': 'custom_reach',
      'eager': False,
      'offline_steps': 0,
      'online_steps': 12,
      'updates_per_episode': 3,
      'prefill_episodes': 3,
      'checkpoint_every': 2,
      'log_every': 1,
      'eval_every': 6,
      'rssm.hidden': 8,
      'rssm.deter': 8,
      'rssm.stoch': 3,
      'rssm.discrete': 3,
      '.*layers': [8],
      'envs': 1,
      **overrides,
    },
  )


def make_run(config):
  return module.Run(config, make_env=lambda: wrap_gym(Reach(), config.env))


def rows(logdir):
  lines = (Path(logdir) / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def losses(logdir):
  """Everything learned and collected by gradient step, without timings."""
  return {
    row['gradient_step']: {
      k: v
      for k, v in row.items()
      if k.startswith(('train/', 'episode/', 'eval/', 'env_step'))
    }
    for row in rows(logdir)
  }


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """Log directory of a run that was never interrupted."""
  logdir = tmp_path_factory.mktemp('run') / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    train(run)
  return logdir


def test_counters_and_episodes(finished):
  last = rows(finished)[-1]
  # Three random episodes, then one per three of the twelve updates.
  assert last['gradient_step'] == 12
  assert last['episode'] == 3 + 4
  assert last['agent_step'] == last['env_step'] == 7 * 8
  paths = find_episodes(finished / 'episodes')
  assert [p.name for p in paths] == [f'{i:06d}-8.npz' for i in range(7)]
  assert all(len(load_episode(p)['reward']) == 9 for p in paths)
  assert {'eval/success', 'eval/return', 'time/data_wait_seconds'} <= set(last)


def test_cloned_episodes_are_those_of_the_targets(tmp_path):
  """By what the environment says in log_ observations, which are saved."""

  class Targets:
    """In place where the point is right of something."""

    def __init__(self, env):
      self._env, self.act_space = env, env.act_space
      self.action_repeat, self.close = env.action_repeat, env.close
      box = gymnasium.spaces.Box(0, 1, (), np.float32)
      names = ('log_left', 'log_far_right', 'log_never')
      logs = dict.fromkeys(names, box)
      self.obs_space = {**env.obs_space, **logs}

    def reset(self, seed):
      return self._with(self._env.reset(seed))

    def step(self, action):
      return self._with(self._env.step(action))

    def _with(self, record):
      place = record['state'][0]
      logs = {'log_left': place > -0.3, 'log_far_right': place > 0}
      logs['log_never'] = False
      return {**record, **{k: np.float32(v) for k, v in logs.items()}}

  def open_run(targets, name='moto', **settings):
    config = tiny(tmp_path / name / '0', bc_targets=targets, **settings)
    make_env = lambda: Targets(wrap_gym(Reach(), config.env))
    return module.Run(config, make_env=make_env)

  for name in ('kettle', 'far'):
    problem = (
      f"custom_reach does not say when '{name}' .* left, far right, never"
    )
    with pytest.raises(ConfigError, match=problem):
      open_run(name)
  with open_run('left, far right') as run:
    train(run)
    found = run.replay.stats()
  paths = find_episodes(tmp_path / 'moto' / '0' / 'episodes')
  places = [load_episode(path)['state'][1:, 0] for path in paths]
  assert found['successes'] == sum(x.max() > 0 for x in places)
  assert 0 < found['successes'] < found['episodes'] == len(paths)
  # The setting that ends cloning at the targets reaches the replay.
  for whole in (True, False):
    with open_run('left, far right', bc_whole=whole) as run:
      batches = [run.replay.sample(i) for i in range(20)]
    cloned = np.concatenate([b['success'] for b in batches]) > 0
    last = np.concatenate([b['is_last'] for b in batches])
    assert cloned.any() and (cloned & last).any() == whole
  # So does the target that others lead on to.
  with pytest.raises(
    ConfigError, match="bc_onward: .* when 'door' is in place"
  ):
    open_run('far right', bc_onward='door')
  for onward in ('far right', ''):
    with open_run('never, left', bc_onward=onward) as run:
      batches = [run.replay.sample(i) for i in range(20)]
    cloned = np.concatenate([b['success'] for b in batches]) > 0
    assert cloned.any() == bool(onward) and not cloned.all()
  # What is drawn first is the same where nothing is cloned.
  settings = {'method': 'no_bc', 'moto.beta': 0, 'replay.success_share': 0.5}
  settings['offline_data'] = str(tmp_path / 'moto' / '0' / 'episodes')
  with open_run('left, far right', 'no_bc', **settings) as run:
    assert run.replay.stats()['successes'] == found['successes']
  config = tiny(tmp_path / 'other', bc_targets='left')
  with pytest.raises(ConfigError, match='only whether the task was achieved'):
    make_run(config)


def test_units_are_those_of_the_first_data(finished):
  """Of the random episodes alone, also after twelve steps and four more."""
  paths = find_episodes(finished / 'episodes')
  arrays, _, _ = Checkpoints(finished / 'checkpoints', 3).load()
  states = [load_episode(path)['state'] for path in paths]
  first, later = np.concatenate(states[:3]), np.concatenate(states)
  units = {k: arrays[f'model/standardize/{k}/state'] for k in ('mean', 'scale')}
  np.testing.assert_allclose(units['mean'], first.mean(0), rtol=1e-5)
  np.testing.assert_allclose(units['scale'], first.std(0), rtol=1e-5)
  assert np.abs(units['mean'] - later.mean(0)).min() > 1e-3


def test_same_seed_same_run(finished, tmp_path):
  with make_run(tiny(tmp_path / 'moto' / '0')) as run:
    train(run)
  assert losses(tmp_path / 'moto' / '0') == losses(finished)


def test_other_seed_other_run(finished, tmp_path):
  with make_run(tiny(tmp_path / 'moto' / '0', seed=1)) as run:
    train(run)
  other = losses(tmp_path / 'moto' / '0')
  assert other[12] != losses(finished)[12]


@pytest.mark.parametrize('stop', [5, 7])
def test_resume_is_exact(finished, tmp_path, stop):
  """Dropped without warning after `stop` updates, as by SIGKILL."""
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    # What a killed process leaves: the files so far, nothing said goodbye.
    update = run.update

    def limited(batch):
      if run.gradient_step == stop:
        raise KeyError('killed')
      update(batch)

    run.update = limited
    with pytest.raises(KeyError):
      train(run)
  with make_run(tiny(logdir)) as run:
    assert run.gradient_step == stop - stop % 2
    train(run)
  assert losses(logdir) == losses(finished)
  for path in find_episodes(finished / 'episodes'):
    again = load_episode(logdir / 'episodes' / path.name)
    for key, value in load_episode(path).items():
      np.testing.assert_array_equal(again[key], value)


def test_one_owner_who_leaves_nothing_behind(finished, tmp_path, capsys):
  """A second run is refused before it touches anything of the first."""
  logdir = tmp_path / 'moto' / '0'
  shutil.copytree(finished, logdir)
  stray = [
    logdir / 'checkpoints' / 'ckpt.npz.tmp',
    logdir / 'episodes' / '.000005-25.npz-7.tmp',
    logdir / 'videos' / '.policy_image-00000012.gif-7.tmp',
    logdir / '.config.yaml.7.tmp',
  ]
  for path in stray:
    path.parent.mkdir(exist_ok=True)
    path.write_text('half')
  for path in find_episodes(logdir / 'episodes')[-2:]:
    path.unlink()
  lines = (logdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
  (logdir / 'metrics.jsonl').write_text(''.join(lines[:4] + lines[6:]))
  (logdir / 'sessions.json').unlink()
  with make_run(tiny(logdir, online_steps=15)):
    assert not any(path.exists() for path in stray)
    files = {p: p.read_bytes() for p in logdir.rglob('*') if p.is_file()}
    with pytest.raises(OwnedError, match='in use by this process itself'):
      make_run(tiny(logdir, online_steps=15))
    assert files == {
      p: p.read_bytes() for p in logdir.rglob('*') if p.is_file()
    }
  assert not list(logdir.rglob('.*'))
  # What was lost is said with its number.
  error = capsys.readouterr().err
  assert '2 of 7 online episodes of the checkpoint are not in' in error
  assert 'metrics.jsonl: 2 of 12 rows up to step 12 are lost' in error
  assert 'sessions.json is missing' in error


def test_superseded_episode_is_kept(tmp_path):
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir, checkpoint_every=2)) as run:
    run.prefill()
    run.collect_episode(0)
    run.update(run.sample())
    run.update(run.sample())
    run.update(run.sample())
    run.collect_episode(1)
  with make_run(tiny(logdir)) as run:
    assert run.gradient_step == 2
    assert run.episode == 4
  assert [p.name for p in (logdir / 'episodes' / 'superseded').iterdir()] == [
    '000004-8.npz'
  ]


def test_truncated_checkpoint_falls_back(finished, tmp_path, capsys):
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir, checkpoint_keep=2)) as run:
    train(run)
  newest = sorted((logdir / 'checkpoints').glob('*.npz'))[-1]
  newest.write_bytes(newest.read_bytes()[:-1000])
  with make_run(tiny(logdir)) as run:
    assert newest.name in capsys.readouterr().err
    assert run.gradient_step == 10
    train(run)
  assert losses(logdir) == losses(finished)


def test_non_finite_loss_stops_with_checkpoint(tmp_path):
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    run.prefill()
    run.update(run.sample())
    before = run.agent.save()
    batch = run.sample()
    batch['reward'][0, 1] = np.nan
    with pytest.raises(module.TrainingError) as info:
      run.update(batch)
    assert 'reward_loss = nan' in str(info.value)
    assert 'last good step is 1' in str(info.value)
    after = run.agent.save()
    assert run.gradient_step == 1
  weights = [k for k in before if k.startswith('model/')]
  for key in weights:
    np.testing.assert_array_equal(before[key], after[key])
  assert (logdir / 'checkpoints' / 'ckpt-00000001.npz').exists()


def test_offline_then_online(finished, tmp_path):
  logdir = tmp_path / 'moto' / '0'
  config = tiny(
    logdir,
    offline_data=str(finished / 'episodes'),
    heldout_data=str(finished / 'episodes'),
    offline_steps=4,
    online_steps=3,
    report_every=2,
  )
  with make_run(config) as run:
    train(run)
  phases = [row['phase'] for row in rows(logdir)]
  assert phases == ['offline'] * 4 + ['online'] * 3
  # No random episodes where there are demonstrations.
  assert rows(logdir)[-1]['episode'] == 1
  assert rows(logdir)[3]['env_step'] == 0
  assert 'eval/success' in rows(logdir)[3]
  assert {'heldout/model_loss', 'heldout/vector_loss'} <= set(rows(logdir)[3])


def test_offline_steps_that_are_done_stay_done(finished, tmp_path):
  """Fewer than these would count online episodes that never were."""
  data = {'offline_data': str(finished / 'episodes'), 'online_steps': 3}
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir, offline_steps=4, **data)) as run:
    for _ in run.offline_steps():
      run.update(run.sample())
      if run.gradient_step == 3:
        break
    run.session.save_if_new()
  message = 'less than the 3 steps .*--offline_steps 3 to begin'
  with pytest.raises(ConfigError, match=message):
    make_run(tiny(logdir, offline_steps=2, **data))
  with make_run(tiny(logdir, offline_steps=3, **data)) as run:
    train(run)
    assert (run.gradient_step, run.episode) == (6, 1)


def test_offline_only(finished, tmp_path):
  config = tiny(
    tmp_path / 'moto' / '0',
    offline_data=str(finished / 'episodes'),
    offline_steps=2,
    online_steps=0,
  )
  with make_run(config) as run:
    train(run)
    assert run.episode == 0
    assert run.gradient_step == 2


def test_data_errors_say_what_to_do(tmp_path):
  with pytest.raises(ConfigError, match='python -m moto_tf collect'):
    make_run(tiny(tmp_path / 'a' / '0', offline_data='auto'))
  with pytest.raises(ConfigError, match='offline_data is empty'):
    make_run(tiny(tmp_path / 'b' / '0', prefill_episodes=0))


def test_demonstrations_of_other_settings(finished, tmp_path, capsys):
  """Named where they differ; silent where they agree."""
  demos = tmp_path / 'demos'
  shutil.copytree(finished / 'episodes', demos)
  config = tiny(tmp_path / 'moto' / '0', offline_data=str(demos))
  env = dict(config.env)
  for camera in ('corner4', env['camera']):
    record = {'task': config.task, 'env': {**env, 'camera': camera}}
    (demos / 'dataset.json').write_text(json.dumps(record))
    make_run(config).close()
    warned = 'Warning' in capsys.readouterr().err
    assert warned == (camera == 'corner4')


def test_works_outside_the_main_thread(finished, tmp_path):
  """As in a notebook's widget; signals then do what they did before."""
  before = signal.getsignal(signal.SIGINT)
  problems = []

  def work():
    try:
      with make_run(tiny(tmp_path / 'moto' / '0')) as run:
        assert signal.getsignal(signal.SIGINT) is before
        train(run)
    except BaseException as error:
      problems.append(error)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert not problems
  assert losses(tmp_path / 'moto' / '0') == losses(finished)


def test_a_signal_before_the_first_step_saves(tmp_path):
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
      run.prefill()
  assert (logdir / 'checkpoints' / 'ckpt-00000000.npz').exists()


def test_a_signal_between_row_and_checkpoint(finished, tmp_path):
  """The row of the step stays the only one, and nothing of it is lost."""
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    write = run.logger.write

    def interrupted(counters):
      write(counters)
      if counters['gradient_step'] == 3:
        signal.raise_signal(signal.SIGTERM)

    run.logger.write = interrupted
    with pytest.raises(Stopped):
      train(run)
  assert [row['gradient_step'] for row in rows(logdir)] == [1, 2, 3]
  with make_run(tiny(logdir)) as run:
    assert run.gradient_step == 3
    train(run)
  assert losses(logdir) == losses(finished)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'seed': 3}, 'seed was 0'),
    ({'updates_per_episode': 5}, 'updates_per_episode was 3'),
    ({'offline_steps': 2}, 'offline_steps was 0'),
  ],
)
def test_counters_rest_on_settings(finished, change, message):
  before = (finished / 'config.yaml').read_bytes()
  with pytest.raises(ConfigError, match=message):
    make_run(tiny(finished, **change))
  assert (finished / 'config.yaml').read_bytes() == before


def test_other_sizes_leave_the_run_alone(finished):
  before = (finished / 'config.yaml').read_bytes()
  with pytest.raises(MismatchError, match='does not fit'):
    make_run(tiny(finished, **{'rssm.deter': 9}))
  assert (finished / 'config.yaml').read_bytes() == before


def test_milestones_are_continued_from_and_stay(finished, tmp_path):
  """Killed after five updates; nothing but the milestone of the third is there.

  Without the setting, later checkpoints come and go, and they stay.
  """
  logdir = tmp_path / 'moto' / '0'
  settings = {'checkpoint_every': 100, 'checkpoint_keep': 1}
  config = tiny(logdir, checkpoint_milestones=3, **settings)
  with pytest.raises(KeyError), make_run(config) as run:
    update = run.update

    def limited(batch):
      if run.gradient_step == 5:
        raise KeyError('killed')
      update(batch)

    run.update = limited
    train(run)
  with make_run(config) as run:
    assert run.gradient_step == 3
    train(run)
  assert losses(logdir) == losses(finished)
  names = lambda: sorted(p.name for p in (logdir / 'checkpoints').iterdir())
  kept = [f'ckpt-{step:08d}-milestone.npz' for step in (3, 6, 9, 12)]
  assert names() == kept
  settings['checkpoint_every'] = 1
  with make_run(tiny(logdir, online_steps=15, **settings)) as run:
    train(run)
  assert names() == [*kept, 'ckpt-00000015.npz']
  older = load_policy(logdir, 6)
  state = np.array([0.5, -0.5], np.float32)
  again = load_policy(logdir, logdir / 'checkpoints' / kept[1])
  np.testing.assert_array_equal(older(state), again(state))
  assert not np.array_equal(again(state), load_policy(logdir)(state))


def test_a_finished_run_goes_on_with_more_steps(finished, tmp_path, capsys):
  logdir = tmp_path / 'moto' / '0'
  shutil.copytree(finished, logdir)
  with make_run(tiny(logdir, online_steps=15)) as run:
    train(run)
    assert (run.gradient_step, run.episode) == (15, 8)
  assert 'online_steps: 12 -> 15' in capsys.readouterr().out


def test_load_policy(finished):
  policy = load_policy(finished)
  state = np.array([0.5, -0.5], np.float32)
  first = policy(state)
  assert first.shape == (1,) and abs(first[0]) <= 1
  second = policy({'state': state})
  assert not np.array_equal(first, second)  # It remembers.
  again = load_policy(finished)
  np.testing.assert_array_equal(again(state), first)
  np.testing.assert_array_equal(again(state), second)
  # A new episode forgets: it does not depend on what was seen before.
  for obs in (state, -state, state):
    policy(obs)
    policy.reset()
  for _ in range(3):
    again.reset()
  np.testing.assert_array_equal(policy(state), again(state))
  with pytest.raises(ValueError, match=r"'state'.*expected \(2,\)"):
    policy(np.zeros(3, np.float32))


def test_a_policy_refuses_what_is_no_observation(finished):
  """And it remembers what it did before."""
  cases = [
    ([np.nan, 0], r"'state' has 1 of 2 numbers .* the first at \[0\]"),
    ([0, -np.inf], r'the first at \[1\]'),
    ([1e300, 0], 'not finite as float32'),
    (np.array([0.5, None]), 'dtype object, expected'),
    (['0.5', '0.5'], 'dtype <U3, expected'),
    ([0.5j, 0.5], 'dtype complex128, expected'),
    ([0.5, [0.5, 1]], "Observation 'state': "),
    (None, 'dtype object, expected'),
    ({'other': [0, 0]}, "'state' is missing"),
  ]
  policy, other = load_policy(finished), load_policy(finished)
  state = np.array([0.5, -0.5], np.float32)
  for wrong, problem in cases:
    with pytest.raises(ObservationError, match=problem):
      policy(wrong)
    np.testing.assert_array_equal(policy(state), other(state))


def command(logdir, *extra):
  return [
    sys.executable,
    'scripts/train.py',
    *('--configs', 'gym', 'debug', 'proprio', '--task', 'gym_Pendulum-v1'),
    *('--logdir', str(logdir), '--eager', 'False', '--env.time_limit', '10'),
    *('--offline_steps', '0', '--prefill_episodes', '2', '--log_every', '1'),
    *('--checkpoint_every', '3', '--envs', '1', '--eval_every', '0', *extra),
  ]


def start(logdir, *extra):
  return subprocess.Popen(
    command(logdir, *extra),
    cwd=REPO,
    env={**os.environ, 'PYTHONPATH': str(REPO)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for_step(process, logdir, step):
  for _ in range(600):
    path = Path(logdir) / 'metrics.jsonl'
    if path.exists() and f'"gradient_step": {step},' in path.read_text():
      return
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.1)
  raise AssertionError('The run did not get there in a minute.')


def test_sigkill_and_sigterm(tmp_path):
  """The real script: killed, continued, asked to stop, continued."""
  whole, logdir = tmp_path / 'a' / '0', tmp_path / 'b' / '0'
  steps = ('--online_steps', '40', '--updates_per_episode', '5')
  process = start(whole, *steps)
  process.communicate(timeout=120)
  assert process.returncode == 0
  process = start(logdir, *steps)
  wait_for_step(process, logdir, 7)
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=60)
  # A step that only the next one can have logged.
  logged = (logdir / 'metrics.jsonl').read_text().splitlines()
  further = max(12, 1 + json.loads(logged[-1])['gradient_step'])
  process = start(logdir, *steps)
  wait_for_step(process, logdir, further)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=60)
  if process.returncode:  # Else it was done before the signal came.
    assert process.returncode == 128 + signal.SIGTERM
    assert 'The same command continues the run' in output
    process = start(logdir, *steps)
    process.communicate(timeout=120)
    assert process.returncode == 0
  assert losses(logdir) == losses(whole)


def test_unwritable_logdir(tmp_path):
  blocked = tmp_path / 'file'
  blocked.write_text('not a directory')
  process = start(blocked / 'moto' / '0')
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 1
  assert 'Traceback' not in output
  assert str(blocked) in output
