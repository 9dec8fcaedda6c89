"""Commands print their own lines and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


def run(*words, **environment):
  """Output of a command in the environment of a user's shell."""
  env = {k: v for k, v in os.environ.items() if not k.startswith('TF_')}
  return subprocess.run(
    [sys.executable, *map(str, words)],
    cwd=REPO,
    env={**env, 'PYTHONPATH': str(REPO), **environment},
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Log directory of a tiny run, and what the command printed."""
  logdir = tmp_path_factory.mktemp('runs') / 'moto' / '0'
  done = run(
    *('-m', 'moto_tf', 'train', '--configs', 'gym', 'debug', 'proprio'),
    *('--logdir', logdir, '--eager', 'False', '--env.time_limit', '10'),
    *('--prefill_episodes', '2', '--envs', '1'),
  )
  return logdir, done


def check(done, *starts):
  """Nothing on stderr, and lines that start with these words alone."""
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  # A file of the output shows carriage returns as one endless line.
  assert '\r' not in done.stdout
  for line in filter(None, done.stdout.split('\n')):
    assert line.startswith(starts), line


def test_train(trained):
  _, done = trained
  starts = ('Replay:', 'Method:', 'offline ', 'online ', 'Done.')
  check(done, *starts)


def test_evaluate(trained):
  logdir, _ = trained
  done = run('-m', 'moto_tf', 'evaluate', '--logdir', logdir, '--episodes', 2)
  check(done, 'evaluation ', 'success ', 'Checkpoint: ', 'Numbers:')


def test_diagnose(trained):
  logdir, _ = trained
  done = run(
    *('-m', 'moto_tf', 'diagnose', '--logdir', logdir, '--episodes', 2),
    *('--data', logdir / 'episodes'),
  )
  assert done.returncode == 0 and done.stderr == '' and '\r' not in done.stdout
  assert 'Numbers: ' in done.stdout


def test_plot_and_export(trained):
  logdir, _ = trained
  indir, outdir = logdir.parents[1], logdir / 'plots'
  for command in ('plot', 'export'):
    words = ('-m', 'moto_tf', command, '--indir', indir, '--outdir', outdir)
    check(run(*words), 'Wrote ')


def test_collect(tmp_path):
  """The kitchen's package greets with notices about other environments."""
  done = run(
    *('-m', 'moto_tf', 'collect', '--task', 'kitchen_mixed'),
    *('--episodes', '1', '--outdir', tmp_path, '--env.image', 'False'),
  )
  numbers = ('episodes', 'transitions', 'steps', 'mean', 'objects', 'share')
  check(done, 'mixed ', 'kitchen_mixed', *numbers, '  ')


def test_a_plugin_that_imports_tensorflow(tmp_path):
  plugin = tmp_path / 'own.py'
  plugin.write_text(
    'import tensorflow as tf\n'
    'import moto_tf\n'
    'def make(config, obs_space, act_space):\n'
    '  from moto_tf.agents.dreamer import Dreamer\n'
    '  from moto_tf.agents.model_based import ModelBasedAgent\n'
    '  return ModelBasedAgent(config, obs_space, act_space, Dreamer)\n'
    "moto_tf.register_method('own', make)\n"
  )
  words = ('--configs', 'gym', 'debug', 'proprio', 'own', '--dry-run')
  for text in (plugin.read_text(), plugin.read_text().split('\n', 1)[1]):
    plugin.write_text(text)  # With and without the first import.
    done = run('-m', 'moto_tf', 'train', '--plugins', plugin, *words)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 'method          own on gym_Pendulum-v1' in done.stdout


def test_threads_hold_back_together():
  """And stderr is afterwards what it was before; it may also be closed."""
  code = (
    'import os, threading, time, moto_tf\n'
    'from moto_tf import startup\n'
    'def work():\n'
    '  for _ in range(50):\n'
    '    with startup.quiet():\n'
    '      time.sleep(0.001)\n'
    '      os.write(2, b"notice")\n'
    'threads = [threading.Thread(target=work) for _ in range(4)]\n'
    '[x.start() for x in threads]\n'
    '[x.join() for x in threads]\n'
    'os.write(2, b"end")\n'
    'os.close(2)\n'
    'assert moto_tf.make_config\n'
  )
  done = run('-c', code)
  assert done.returncode == 0 and done.stderr == 'end'


def test_no_warning_of_retracing_for_many_agents():
  """Each agent has functions of its own, traced once."""
  code = (
    'import sys; sys.path.insert(0, "tests")\n'
    'from helpers import make_agent, make_batch, tiny_config\n'
    'config = tiny_config(eager=False)\n'
    'batch = make_batch(config)\n'
    'for _ in range(6):\n'
    '  make_agent(config).report([batch], 0)\n'
  )
  done = run('-c', code)
  assert done.returncode == 0 and 'retracing' not in done.stderr, done.stderr


def test_what_is_held_back_is_shown_with_an_exception():
  code = (
    'import os\n'
    'from moto_tf import startup\n'
    'with startup.quiet():\n'
    '  os.write(2, b"notice\\n")\n'
    '  {}\n'
  )
  assert run('-c', code.format('pass')).stderr == ''
  done = run('-c', code.format('import no_such_module'))
  assert done.stderr.startswith('notice\nTraceback')
  done = run('-c', code.format('pass'), TF_CPP_MIN_LOG_LEVEL='0')
  assert done.stderr == 'notice\n'
