"""Exports of runs: what they hold, and which of them are replaced."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from results_helpers import (
  STEPS,
  add_evaluations,
  evaluated,
  lines,
  row,
  write_run,
)
from run_helpers import tiny

from moto_tf.config import flatten
from moto_tf.results import curves
from moto_tf.results import export as results
from moto_tf.training import records

ROOT = Path(__file__).parents[1]


def exported(root, name='door-open/moto/0', **config):
  """A log directory with evaluations, and its export."""
  path = add_evaluations(write_run(root / name, [], **config))
  return path, results.export(path)


def test_curve_is_subsampled(tmp_path):
  rng = np.random.default_rng(0)
  rows = [row(10 * (i + 1), train_kl=rng.normal()) for i in range(250)]
  rows[7]['train/kl'] = None
  path = write_run(tmp_path / 'door' / 'moto' / '0', rows)
  curve = results.export(path)['curve']
  assert len(curve['train/kl']) == len(curve['env_step']) == 100
  assert curve['gradient_step'][:2] == [30, 60]
  assert curve['gradient_step'][-1] == 2500
  mean = np.mean([rows[i]['train/kl'] for i in (6, 8)])
  assert np.isclose(curve['train/kl'][2], mean, rtol=1e-4)
  assert 'train/model_loss' not in curve


def test_size(tmp_path):
  path = write_run(tmp_path / 'door' / 'moto' / '0', [])
  (path / 'config.yaml').write_text(str(tiny(path)))
  for step in (None, *range(0, 5000, 1000)):
    records.Records(path, tiny(path), step)
  add_evaluations(path, range(1000, 21000, 1000), 20)
  rng = np.random.default_rng(0)
  with (path / 'metrics.jsonl').open('w') as file:
    for step in range(50, 20001, 50):
      values = {name: 1e4 * rng.normal() for name in results.METRICS}
      file.write(json.dumps({**row(step), **values}) + '\n')
  ((target, content),) = results.export_all([tmp_path], tmp_path).items()
  text = target.read_text()
  assert len(content['evaluations']) == 20 and len(content['sessions']) == 6
  assert len(text) < 60_000 and text.count('\n') < 60
  assert json.loads(text) == content


def test_runs_without_records(tmp_path):
  """Their evaluations have means only."""
  path, _ = exported(tmp_path)
  expected = lines(path / 'metrics.jsonl')
  (path / 'evaluations.jsonl').unlink()
  content = results.export(path)
  assert content['sessions'] == [] and content['final'] is None
  for found, metrics in zip(content['evaluations'], expected, strict=True):
    assert found['success'] == metrics['eval/success']
  ((target, _),) = results.export_all([tmp_path], tmp_path / 'out').items()
  run = curves.load_export(target)
  _, y = curves.curve(run, 'eval/success', 'gradient_step')
  np.testing.assert_allclose(y, [x['eval/success'] for x in expected])


def test_what_a_suite_logs_is_read(tmp_path):
  """In the kitchen, whether each object was ever in place."""
  exported(tmp_path)
  ((target, content),) = results.export_all(
    [tmp_path], tmp_path / 'out'
  ).items()
  for found in content['evaluations']:
    found['kettle'] = [1, *[0] * (len(found['success']) - 1)]
  target.write_text(json.dumps(content))
  run = curves.load_export(target)
  _, y = curves.curve(run, 'eval/kettle', 'gradient_step')
  expected = [1 / len(x['success']) for x in content['evaluations']]
  np.testing.assert_allclose(y, expected)


def test_no_paths(tmp_path):
  data = tmp_path / 'demos' / 'drawer-open'
  places = {'offline_data': str(data), 'heldout_data': '~/me/held/out'}
  path = write_run(tmp_path / 'moto' / '0', [row(1)], **places)
  line = f"python scripts/train.py --logdir={path} --x '' --offline_data {data}"
  session = {'command': line, 'changes': {'offline_data': ['', str(data)]}}
  (path / 'sessions.json').write_text(json.dumps([session]))
  content = results.export(path)
  assert content['config']['offline_data'] == 'demos/drawer-open'
  assert content['config']['heldout_data'] == 'held/out'
  assert [session['command'] for session in content['sessions']] == [
    "python scripts/train.py --logdir=moto/0 --x '' --offline_data "
    'demos/drawer-open'
  ]
  assert str(tmp_path) not in results._layout(content)


def test_damage_is_named(tmp_path, capsys):
  path, content = exported(tmp_path / 'runs')
  with (path / 'evaluations.jsonl').open('a') as file:
    file.write('{"gradient_step": 3')
  (path / 'sessions.json').write_text('[')
  again = results.export(path)
  assert again == content
  error = capsys.readouterr().err
  assert 'evaluations.jsonl: the last line is half written' in error
  assert f'{path}/sessions.json is no list of sessions, left out' in error
  with pytest.raises(
    results.ExportError, match='--logdir of the command train'
  ):
    results.export(tmp_path)
  # Exported files that are not whole, of the future, or not as they were.
  out = tmp_path / 'out'
  ((good, _),) = results.export_all([tmp_path / 'runs'], out).items()
  (out / 'half.json').write_text(good.read_text()[:500])
  for name, change in {
    'later': {'format': 2},
    'list': {'config': []},
    'short': {'curve': {'gradient_step': [1, 2], 'train/kl': [1]}},
    'empty': {'evaluations': [{}]},
  }.items():
    (out / f'{name}.json').write_text(json.dumps({**content, **change}))
  (out / 'benchmark.json').write_text('{"format": 1, "runs": {}}')
  (out / 'other.json').write_text('[1]')
  capsys.readouterr()
  runs = curves.find_runs([out])
  assert [run.path for run in runs] == [good]
  error = capsys.readouterr().err.splitlines()
  names = ('empty', 'half', 'later', 'list', 'short')
  assert len(error) == len(names)
  for line, name in zip(error, names, strict=True):
    assert line.startswith(f'Warning: {out}/{name}.json ')
  assert 'format 2 instead of 1' in error[2]


def test_longer_runs_are_kept(tmp_path):
  path, content = exported(tmp_path / 'a')
  _, other = exported(tmp_path / 'a', 'door-open/moto/1')
  out = tmp_path / 'out'
  first, second = results.export_all([tmp_path / 'a'], out)
  add_evaluations(path, STEPS[:2])
  second.write_text('{')
  with pytest.raises(results.ExportError) as error:
    results.export_all([tmp_path / 'a'], out)
  assert f'{first} has 3000 gradient steps, its replacement only 2000.' in str(
    error.value
  )
  assert f'{second} is not what export.py writes.' in str(error.value)
  assert '--force' in str(error.value)
  assert json.loads(first.read_text()) == content
  assert second.read_text() == '{'
  results.export_all([tmp_path / 'a'], out, force=True)
  assert len(json.loads(first.read_text())['evaluations']) == 2
  assert json.loads(second.read_text()) == other
  # The same name in another suite.
  add_evaluations(write_run(tmp_path / 'b/moto/0', [], 'gym_door-open'))
  (path_b,) = results.export_all([tmp_path / 'b'], out)
  assert path_b == out / 'gym_door-open' / 'moto' / '0.json'
  both = results.export_all([tmp_path / 'a', tmp_path / 'b'], out, force=True)
  assert set(both) == {first, second, path_b}
  both = results.export_all([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'new')
  names = {path.parents[1].name for path in both}
  assert names == {'gym_door-open', 'metaworld_door-open'}
  # As many or more are replaced without asking.
  add_evaluations(path, STEPS)
  results.export_all([tmp_path / 'a'], out)
  assert json.loads(first.read_text()) == content


def test_other_settings_are_kept(tmp_path):
  """Two suites may write into one directory."""
  out, alpha = tmp_path / 'out', {'moto.alpha': 1.0}
  exported(tmp_path / 'a', **{'moto.alpha': 10.0})
  (file,) = results.export_all([tmp_path / 'a'], out)
  exported(tmp_path / 'b', **alpha, log_every=7, online_steps=9)
  with pytest.raises(results.ExportError, match='other settings: moto.alpha. '):
    results.export_all([tmp_path / 'b'], out)
  results.export_all([tmp_path / 'b'], out, force=True)
  assert json.loads(file.read_text())['config']['moto.alpha'] == 1
  # The same again needs no force.
  results.export_all([tmp_path / 'b'], out)


def test_command_line(tmp_path):
  exported(tmp_path / 'runs')
  exported(tmp_path / 'runs', 'door-open/no_bc/1')
  command = [sys.executable, ROOT / 'scripts' / 'export.py']
  command += ['--indir', tmp_path / 'runs', '--methods', 'moto']
  env = {**os.environ, 'PYTHONPATH': str(ROOT)}
  run = lambda *extra: subprocess.run(
    [*command, *extra], env=env, cwd=tmp_path, capture_output=True, text=True
  )
  done = run()
  value = np.mean(evaluated(STEPS[-1])['success'])
  path = Path('results', 'door-open', 'moto', '0.json')
  assert done.stdout == (
    f'Wrote {path}: success {value:.2f} at gradient step 3000.\n'
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert list(tmp_path.glob('results/**/*.json')) == [tmp_path / path]
  done = run('--tasks', 'kitchen')
  assert done.returncode == 1
  assert done.stderr.startswith('Error: No runs below')
  # Exported files are not exported again.
  done = run('--indir', 'results')
  assert done.stderr.startswith('Error: No runs below results: of 0 runs')


def test_import_is_light():
  code = (
    'import sys, moto_tf.results;'
    'sys.exit(bool({"tensorflow", "matplotlib"} & set(sys.modules)))'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_config_is_flat(tmp_path):
  _, content = exported(tmp_path, rssm='{deter: 3}')
  assert content['config'] == flatten(content['config'])
  assert content['config']['rssm.deter'] == 3
