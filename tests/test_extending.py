"""What users register works in every command, with no edit elsewhere.

The suite, the format, the study and the method with a world model are those of
docs/extending.md, word for word; toy_method.py is a method without one.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from waiting import until

ROOT = Path(__file__).parents[1]
TASK = ('--task', 'line_reach', '--env.time_limit', '12')
STEPS = 120


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A directory with the files of docs/extending.md and the toy method."""
  place = tmp_path_factory.mktemp('own')
  text = (ROOT / 'docs' / 'extending.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  names = ('cloning.py', 'line.py', 'csvdata.py', 'first_success.py')
  for name, block in zip(names, blocks, strict=True):
    (place / name).write_text(block)
  (place / 'toy_method.py').write_text(
    (ROOT / 'tests' / 'toy_method.py').read_text()
  )
  run('collect', place, '--plugins', place / 'line.py', '--episodes', 8)
  return place


def start(command, place, *words):
  """Starts `python -m moto_tf COMMAND` on the toy task."""
  if command == 'collect':
    words = (*words, *TASK, '--env.image', 'False', '--outdir', place / 'demos')
  return subprocess.Popen(
    [sys.executable, '-m', 'moto_tf', command, *map(str, words)],
    cwd=place,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(command, place, *words, code=0):
  process = start(command, place, *words)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == code, output
  return output


def train_words(place, logdir, method, *words):
  return (
    *('--plugins', f'{place / "line.py"},{place / "toy_method.py"}'),
    *('--configs', 'debug', 'proprio', method, *TASK, '--eager', 'False'),
    *('--logdir', logdir, '--offline_data', place / 'demos'),
    *('--env_workers', 'none', '--offline_steps', STEPS // 2),
    *('--online_steps', STEPS // 2, '--updates_per_episode', 10),
    *('--log_every', 5, '--checkpoint_every', 15, '--eval_every', 60),
    *('--report_every', 0, *words),
  )


def rows(logdir):
  lines = (logdir / 'metrics.jsonl').read_text().splitlines()
  keep = ('train/', 'episode/', 'eval/', 'env_step', 'gradient_step')
  return [
    {k: v for k, v in row.items() if k.startswith(keep)}
    for row in map(json.loads, lines)
  ]


def saved(logdir):
  """Gradient step of the newest checkpoint."""
  names = [path.stem for path in (logdir / 'checkpoints').glob('ckpt-*.npz')]
  return max((int(name.split('-')[1]) for name in names), default=0)


def test_from_data_to_figures(place):
  """Trained, killed, continued, evaluated, diagnosed, exported, drawn."""
  whole, killed = (place / 'runs' / x / '0' for x in ('whole', 'killed'))
  # Many steps, so that it is killed long before it would end.
  words = lambda logdir: train_words(
    *(place, logdir, 'linear', '--online_steps', 9 * STEPS),
    *('--offline_steps', STEPS, '--eval_every', 5 * STEPS),
  )
  run('train', place, *words(whole))
  process = start('train', place, *words(killed))
  # The first ones may be gone by the time that somebody looks.
  until(lambda: process.poll() is not None or saved(killed) >= 30)
  assert process.poll() is None, process.stdout.read()
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert rows(killed)[-1]['gradient_step'] < 10 * STEPS
  output = run('train', place, *words(killed))
  assert 'Continuing from ckpt-' in output
  assert rows(killed) == rows(whole)
  assert rows(whole)[-1]['gradient_step'] == 10 * STEPS
  # It says nothing of what it expects.
  assert 'eval/success' in rows(whole)[-1]
  assert 'eval/overestimation' not in rows(whole)[-1]
  losses = [x['train/linear_loss'] for x in rows(whole)]
  assert losses[-1] < 0.7 * losses[0]

  plugins = ('--plugins', f'{place / "line.py"},{place / "toy_method.py"}')
  output = run('evaluate', place, *plugins, '--logdir', whole, '--episodes', 4)
  assert 'success' in output and f'gradient step {10 * STEPS}' in output
  message = run('evaluate', place, '--logdir', whole, code=1)
  assert 'method: linear is not registered' in message
  assert str(place / 'toy_method.py') in message  # What to give again.

  studies = f'{plugins[1]},{place / "first_success.py"}'
  output = run(
    *('diagnose', place, '--plugins', studies, '--logdir', whole),
    *('--episodes', 4, '--data', place / 'demos'),
  )
  found = json.loads((whole / 'diagnosis' / 'diagnosis.json').read_text())
  assert found['first_success']['recorded']['successes'] == 8
  assert (whole / 'diagnosis' / 'first_success.png').exists()
  # Those that need a world model say so, and are no error.
  assert 'No penalty.png' in output and 'world model' in output

  run('export', place, '--indir', whole, '--outdir', place / 'results')
  path = place / 'results' / 'reach' / 'linear' / '0.json'
  content = json.loads(path.read_text())
  assert content['method'] == 'linear'
  assert content['config']['linear.rate'] == 0.3
  run(
    *('plot', place, *plugins, '--indir', place / 'results'),
    *('--outdir', place / 'plots'),
  )
  assert '| line_reach | linear | 1 |' in (place / 'plots/table.md').read_text()


def test_settings_of_a_registered_method(place):
  words = ('--plugins', place / 'toy_method.py')
  output = run('train', place, *words, '--help')
  assert '--linear.rate 0.3' in output and 'Linear regression' in output
  output = run(
    *('train', place, *words, '--configs', 'small', 'linear'),
    *('--linear.rate', '0.5', '--print-config'),
  )
  assert 'linear.rate: 0.5  # given' in output
  assert 'method: linear  # linear' in output
  output = run(
    'train', place, *words, '--linear.rate', '0.5', '--dry-run', code=2
  )
  assert 'linear.rate has no effect on moto' in output
  output = run('train', place, '--configs', 'linear', code=2)
  assert "unknown preset 'linear'" in output
  output = run('train', place, '--plugins', 'nothing.py', code=2)
  assert 'there is no file' in output and 'nothing.py' in output


def test_a_suite_that_is_not_registered_again(place):
  logdir = place / 'runs' / 'debug' / '0'
  words = train_words(place, logdir, 'moto', '--online_steps', 0)
  run('train', place, '--plugins', 'line.py', *words[2:])  # Relative.
  message = run('evaluate', ROOT, '--logdir', logdir, code=1)
  assert f'--plugins {place / "line.py"}; give that again' in message
  run(
    *('benchmark', place, '--plugins', place / 'line.py', '--configs', 'debug'),
    *('proprio', *TASK, '--env_workers', 'none', '--parts', 'policy', 'replay'),
  )


def test_the_method_of_the_documents_learns(place):
  """A world model whose actor only clones; its settings are its own."""
  logdir = place / 'runs' / 'cloning' / '0'
  plugins = f'{place / "line.py"},{place / "cloning.py"}'
  words = train_words(place, logdir, 'cloning', '--cloning.entropy', '1e-3')
  run('train', place, '--plugins', plugins, *words[2:])
  last = rows(logdir)[-1]
  assert last['gradient_step'] == STEPS and last['train/bc_share'] > 0
  assert 'train/critic_loss' not in last
  assert 'eval/success' in last and 'eval/overestimation' not in last


def test_the_format_of_the_documents_is_read(place):
  folder, outdir = place / 'logs', place / 'imported'
  folder.mkdir()
  for i in range(3):
    table = np.arange(20.0).reshape(5, 4) / 20 + i / 100
    table[-1, 3] = 1
    header = 's0,s1,a0,reward'
    np.savetxt(folder / f'{i}.csv', table, delimiter=',', header=header)
  plugins = f'{place / "line.py"},{place / "csvdata.py"}'
  output = run(
    *('dataset', place, 'import', '--plugins', plugins, '--format', 'csv'),
    *(folder, outdir, '--task', 'line_reach'),
  )
  assert len(list(outdir.glob('*.npz'))) == 3, output
  episode = np.load(sorted(outdir.glob('*.npz'))[0])
  np.testing.assert_allclose(episode['action'][1:, 0], np.arange(2, 18, 4) / 20)
  assert episode['action'][0] == 0 and episode['state'].shape == (5, 2)
