"""Runs that are stopped, killed or refused, and go on as if they were not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_helpers import kill_at, losses, make_run, rows, tiny

from moto_tf.agents.base import MismatchError
from moto_tf.data.episodes import EpisodeError, find_episodes, load_episode
from moto_tf.ownership import OwnedError
from moto_tf.policy import load_policy
from moto_tf.rules import ConfigError
from moto_tf.training.algorithm import algorithm_1 as train
from moto_tf.training.checkpoint import Checkpoints
from moto_tf.training.session import Stopped

REPO = Path(__file__).parents[1]


@pytest.mark.parametrize('stop', [5, 7])
def test_resume_is_exact(finished, tmp_path, stop):
  """Dropped without warning after `stop` updates, as by SIGKILL."""
  logdir = tmp_path / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    # What a killed process leaves: the files so far, nothing said goodbye.
    kill_at(run, stop)
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


def test_a_finished_run_keeps_its_settings(finished, tmp_path):
  """Its config.yaml would claim what it was not trained with."""
  logdir = tmp_path / 'moto' / '0'
  shutil.copytree(finished, logdir)
  before, other = (logdir / 'config.yaml').read_bytes(), {'moto.alpha': 0.0}
  message = r'is finished, .*\n  moto.alpha: 10.0 -> 0.0\n.*another --logdir'
  with pytest.raises(ConfigError, match=message):
    make_run(tiny(logdir, eval_every=3, **other))
  assert (logdir / 'config.yaml').read_bytes() == before
  # What changes nothing of it, and more steps, are another matter.
  with make_run(tiny(logdir, eval_every=3, variant='mine')) as run:
    train(run)
    assert run.gradient_step == 12
  with make_run(tiny(logdir, online_steps=13, **other)) as run:
    assert run.gradient_step == 12


def copy_demos(finished, tmp_path):
  """Episodes as demonstrations, and ends that their actions might have."""
  demos = tmp_path / 'demos'
  shutil.copytree(finished / 'episodes', demos)
  size = load_episode(find_episodes(demos)[0])['action'].shape[-1]
  return demos, {'low': [-2.0] * size, 'high': [9.0] * size}


def test_what_actions_mean_outlives_the_demonstrations(finished, tmp_path):
  """Checkpoints know from where imported actions were scaled."""
  demos, ends = copy_demos(finished, tmp_path)
  logdir, size = tmp_path / 'moto' / '0', len(ends['low'])
  file = demos / 'dataset.json'
  write = lambda ends: file.write_text(
    json.dumps({f'action_{name}': end for name, end in ends.items()})
  )
  write({**ends, 'low': [-2.0] * (size + 1)})
  data = {'offline_data': str(demos), 'offline_steps': 2}
  with pytest.raises(EpisodeError, match='dataset.json: action_low has'):
    make_run(tiny(logdir, online_steps=0, **data))
  write(ends)
  with make_run(tiny(logdir, online_steps=0, **data)) as run:
    train(run)
  known = lambda: Checkpoints(logdir / 'checkpoints', 1).load()[1]
  assert known()['action_range'] == ends
  file.unlink()
  with make_run(tiny(logdir, online_steps=2, **data)) as run:
    train(run)
  assert known()['counters']['gradient_step'] == 4
  assert known()['action_range'] == ends
  # The same numbers would be other actions: imported again, or held out.
  other = {**ends, 'high': [*ends['high'][:-1], 12.0]}
  write(other)
  with pytest.raises(ConfigError, match='to 9, those in .* -2 to 12.*stats'):
    make_run(tiny(logdir, online_steps=4, **data))
  heldout = tmp_path / 'heldout'
  shutil.copytree(demos, heldout)
  write(ends)
  data['heldout_data'] = str(heldout)
  with pytest.raises(ConfigError, match='held-out data in .* to 12, those of'):
    make_run(tiny(logdir, online_steps=4, **data))
  shutil.copy(file, heldout)
  with make_run(tiny(logdir, online_steps=4, **data)) as run:
    assert run.gradient_step == 4


def test_data_that_was_not_scaled_stays_so(finished, tmp_path):
  demos, ends = copy_demos(finished, tmp_path)
  logdir = tmp_path / 'moto' / '0'
  data = {'offline_data': str(demos), 'offline_steps': 2, 'online_steps': 0}
  with make_run(tiny(logdir, **data)) as run:
    train(run)
  ends = {f'action_{name}': end for name, end in ends.items()}
  (demos / 'dataset.json').write_text(json.dumps(ends))
  with pytest.raises(ConfigError, match='are as they were recorded, those in'):
    make_run(tiny(logdir, **data | {'online_steps': 2}))


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
    make_run(tiny(finished, online_steps=13, **{'rssm.deter': 9}))
  assert (finished / 'config.yaml').read_bytes() == before


def test_milestones_are_continued_from_and_stay(finished, tmp_path):
  """Killed after five updates; nothing but the milestone of the third is there.

  Without the setting, later checkpoints come and go, and they stay.
  """
  logdir = tmp_path / 'moto' / '0'
  settings = {'checkpoint_every': 100, 'checkpoint_keep': 1}
  config = tiny(logdir, checkpoint_milestones=3, **settings)
  with pytest.raises(KeyError), make_run(config) as run:
    kill_at(run, 5)
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
