"""Algorithm 1 end to end: counters, data, seeds, failures, policies."""

import json
import shutil
import signal
import threading

import gymnasium
import numpy as np
import pytest
from run_helpers import Reach, losses, make_run, rows, tiny

from moto_tf.data.episodes import find_episodes, load_episode
from moto_tf.envs.gym import wrap_gym
from moto_tf.policy import ObservationError, load_policy
from moto_tf.rules import ConfigError
from moto_tf.training import run as module
from moto_tf.training.algorithm import algorithm_1 as train
from moto_tf.training.checkpoint import Checkpoints


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
  longer = {'online_steps': 13}  # A finished run takes no other settings.
  for whole in (True, False):
    with open_run('left, far right', bc_whole=whole, **longer) as run:
      batches = [run.replay.sample(i) for i in range(20)]
    cloned = np.concatenate([b['success'] for b in batches]) > 0
    last = np.concatenate([b['is_last'] for b in batches])
    assert cloned.any() and (cloned & last).any() == whole
  # So does the target that others lead on to.
  with pytest.raises(
    ConfigError, match="bc_onward: .* when 'door' is in place"
  ):
    open_run('far right', bc_onward='door', **longer)
  for onward in ('far right', ''):
    with open_run('never, left', bc_onward=onward, **longer) as run:
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
