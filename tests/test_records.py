"""Sessions and evaluations of a run, and its export."""

import datetime
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from results_helpers import add_evaluations, lines, write_run
from run_helpers import kill_at, make_run, tiny

from moto_tf import files
from moto_tf.files import FileError
from moto_tf.results import curves, plotting
from moto_tf.results import export as results
from moto_tf.training import evaluation, records
from moto_tf.training.algorithm import algorithm_1 as train

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """A run killed after an evaluation; its files then, and when it was done."""
  logdir = tmp_path_factory.mktemp('run') / 'reach' / 'moto' / '0'
  steps = {'online_steps': 6, 'eval_every': 5, 'checkpoint_every': 4}
  config = tiny(logdir, **steps, eval_episodes=3, eager=True)
  with make_run(config) as run:
    kill_at(run, 5)
    with pytest.raises(KeyError):
      train(run)
  before = lines(logdir / 'evaluations.jsonl')
  config = tiny(logdir, **steps, eval_episodes=3, eager=True, checkpoint_keep=2)
  with make_run(config) as run:
    train(run)
  return logdir, before


def test_sessions(killed):
  sessions = json.loads((killed[0] / 'sessions.json').read_text())
  assert [session['gradient_step'] for session in sessions] == [0, 4]
  changes = [session['changes'] for session in sessions]
  assert changes == [{}, {'checkpoint_keep': [3, 2]}]
  for session in sessions:
    assert session['command'].startswith('python ')
    assert session['commit'] == records.commit()
    assert session['machine']['precision'] == 'float32'
    assert {'processor', 'cores', 'jit'} <= session['machine'].keys()
    assert 'tensorflow' in session['machine']['versions']
    started = datetime.datetime.fromisoformat(session['started'])
    assert started.utcoffset() == datetime.timedelta(0)


def test_evaluations(killed):
  """An evaluation beyond the checkpoint is dropped and comes again."""
  logdir, before = killed
  rows = lines(logdir / 'evaluations.jsonl')
  assert [x['gradient_step'] for x in before] == [5]
  assert [x['gradient_step'] for x in rows] == [5, 6]
  first, again = dict(before[0]), dict(rows[0])
  assert first.pop('seconds') > 0
  assert again.pop('seconds') < rows[1]['seconds']
  assert first == again
  metrics = {x['gradient_step']: x for x in lines(logdir / 'metrics.jsonl')}
  for found in rows:
    step = metrics[found['gradient_step']]
    for name in ('agent_step', 'env_step', 'episode', 'phase'):
      assert found[name] == step[name]
    assert found['first_seed'] == evaluation.EVAL_SEED
    assert found['seconds'] <= step['time']
    assert set(found['success']) <= {0, 1} and found['length'] == [8] * 3
    for name in ('success', 'return', 'length'):
      assert np.isclose(np.mean(found[name]), step[f'eval/{name}'], atol=1e-4)


def test_export_of_a_run(killed):
  logdir, _ = killed
  summary = {
    'task': 'custom_reach',
    'logdir': str(logdir),
    'seed': 7,
    'gradient_step': 6,
    'success': 0.5,
    'success_low': 0.1234567,
    'rollouts': [
      {'seed': 7 + i, 'success': i == 1, 'return': i / 3, 'length': 8}
      for i in range(2)
    ],
  }
  directory = logdir / 'evaluation'
  files.write_json(directory / 'evaluation-00000006.json', summary)
  # Of another run that was here before, and a damaged one.
  other = {**summary, 'gradient_step': 9}
  files.write_json(directory / 'evaluation-00000009.json', other)
  (directory / 'evaluation-00000010.json').write_text('{"gradient_')
  content = results.export(logdir)
  assert (content['task'], content['method']) == ('custom_reach', 'moto')
  assert content['seed'] == 0
  assert content['config']['rssm.deter'] == 8
  assert content['config']['encoder.mlp_layers'] == [8]
  assert content['config']['logdir'] == 'moto/0'
  assert content['final'] == {
    'task': 'custom_reach',
    'gradient_step': 6,
    'first_seed': 7,
    'success_low': 0.12346,
    'success': [0, 1],
    'return': [0.0, 0.3333],
    'length': [8, 8],
  }
  assert results.success(content) == (0.5, 6)
  rows = lines(logdir / 'metrics.jsonl')
  assert np.isclose(content['wall_clock_seconds'], rows[-1]['time'], rtol=1e-4)
  curve = content['curve']
  assert curve['gradient_step'] == [1, 2, 3, 4, 5, 6]
  assert curve['env_step'] == [x['env_step'] for x in rows]
  assert curve['episode/success'][1] is None
  values = [x['train/kl'] for x in rows]
  np.testing.assert_allclose(curve['train/kl'], values, rtol=1e-4)
  assert set(curve) == {'gradient_step', 'env_step', *results.METRICS}
  # Nothing of this machine, wherever it is.
  text = results._layout(content)
  for word in (str(logdir.parents[2]), '"/', "'/", ' /', '=/', '~'):
    assert word not in text
  assert json.loads(text) == content


@pytest.mark.parametrize(
  'method, kept', [('moto', True), ('mine', True), ('dreamerv2', False)]
)
def test_an_evaluation_stays_when_its_run_gets_a_variant(
  killed, tmp_path, capsys, method, kept
):
  """Before, it was called by its method."""
  logdir = tmp_path / 'run'
  shutil.copytree(killed[0], logdir, ignore=lambda *_: ['evaluation'])
  path = logdir / 'config.yaml'
  path.write_text(path.read_text().replace("variant: ''", 'variant: mine'))
  summary = {
    'task': 'custom_reach',
    'method': method,
    'checkpoint': 'checkpoints/ckpt-00000006.npz',
    'gradient_step': 6,
    'rollouts': [{'seed': 7, 'success': True, 'return': 1.0, 'length': 8}],
  }
  place = logdir / 'evaluation' / 'evaluation-00000006.json'
  files.write_json(place, summary)
  content = results.export(logdir)
  assert content['method'] == 'mine'
  assert bool(content['final']) is kept
  assert ('of another task or method' in capsys.readouterr().err) is not kept


def test_round_trip(killed, tmp_path):
  """Figures from the exported files alone are those of the runs."""
  logdir, _ = killed
  write_run(tmp_path / 'runs' / 'door-open' / 'mine' / '3', [])
  add_evaluations(tmp_path / 'runs' / 'door-open' / 'mine' / '3')
  shutil.copytree(logdir, tmp_path / 'runs' / 'reach' / 'moto' / '0')
  out = tmp_path / 'results'
  written = results.export_all([tmp_path / 'runs'], out)
  names = [str(path.relative_to(out)) for path in written]
  assert names == ['reach/moto/0.json', 'door-open/mine/3.json']
  metrics = ('eval/success', 'eval/return', 'train/kl', 'episode/return')
  found = []
  # The second time, results.json of the first lies among the runs.
  for indir in (tmp_path / 'runs', out, out):
    paths = plotting.plot([indir], out, metrics)
    found.append(json.loads(paths[0].read_text())['results'])
  assert found[1] == found[2]
  for metric in metrics:
    assert list(found[0][metric]) == list(found[1][metric])
    for task, panel in found[0][metric].items():
      for method, expected in panel.items():
        again = found[1][metric][task][method]
        assert expected.pop('runs') != again.pop('runs')
        assert again['online_start'] == expected['online_start']
        for name in ('grid', 'mean'):
          np.testing.assert_allclose(again[name], expected[name], rtol=1e-4)
        for name in plotting.COLUMNS:
          assert (again[name] is None) == (expected[name] is None)
          if expected[name]:
            values = expected[name]['values']
            np.testing.assert_allclose(again[name]['values'], values, 1e-4)
  # By any counter, and a log directory goes before its export.
  (run,) = curves.find_runs([out], tasks='door')
  x, y = curves.curve(run, 'eval/success', 'time')
  assert len(y) == 3 and x[-1] == 1000
  both = curves.find_runs([tmp_path])
  assert all(run.path.is_dir() for run in both)


def test_new_run_starts_new_records(tmp_path):
  config = tiny(tmp_path)
  records.Records(tmp_path, config, None)
  kept = records.Records(tmp_path, config, 4)
  summary = {'rollouts': [{'seed': 3, 'success': 1, 'length': 5}]}
  summary['rollouts'][0]['return'] = np.nan
  kept.evaluated({'gradient_step': 5}, 1.5, summary)
  (found,) = lines(tmp_path / 'evaluations.jsonl')
  assert found['return'] == [None] and found['seconds'] == 1.5
  records.Records(tmp_path, config, None)
  assert len(json.loads((tmp_path / 'sessions.json').read_text())) == 1
  assert (tmp_path / 'evaluations.jsonl').read_text() == ''
  assert lines(tmp_path / 'evaluations-old-1.jsonl') == [found]


def test_an_evaluation_that_comes_again_is_dropped(tmp_path):
  """Where a checkpoint does not say how many there were, by its step."""
  config = tiny(tmp_path)
  summary = {
    'rollouts': [{'seed': 3, 'success': 1, 'length': 5, 'return': 2.0}]
  }
  for unfinished in (False, True):
    made = records.Records(tmp_path, config, 5)
    made.evaluated({'gradient_step': 5}, 1.5, summary)
    again = records.Records(tmp_path, config, 5, unfinished=unfinished)
    found = lines(tmp_path / 'evaluations.jsonl')
    assert again.count == len(found) == (0 if unfinished else 1)


@pytest.mark.parametrize('text', ['[{"command":', '{}', '[3]', '\0'])
def test_broken_sessions(tmp_path, capsys, text):
  path = tmp_path / 'sessions.json'
  path.write_text(text)
  records.Records(tmp_path, tiny(tmp_path), 4)
  error = capsys.readouterr().err
  assert f'Warning: {path} is no list of sessions: now sessions-old-1' in error
  assert (tmp_path / 'sessions-old-1.json').read_text() == text
  (session,) = json.loads(path.read_text())
  assert session['gradient_step'] == 4


def test_sessions_are_written_whole(tmp_path, monkeypatch):
  records.Records(tmp_path, tiny(tmp_path), None)
  before = (tmp_path / 'sessions.json').read_bytes()

  def full(*args):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', full)
    (tmp_path / 'evaluations.jsonl').unlink()
    with pytest.raises(FileError, match='sessions.json: No space'):
      records.Records(tmp_path, tiny(tmp_path), 4)
  assert (tmp_path / 'sessions.json').read_bytes() == before
  assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize(
  ('argv', 'text'),
  [
    (['scripts/train.py', '--seed', '1'], 'scripts/train.py --seed 1'),
    (['ROOT/scripts/train.py', '--a=x y'], "scripts/train.py --a='x y'"),
    (['mine.py', '--logdir', 'HOME/a b/0'], "mine.py --logdir ~/'a b/0'"),
    (['mine.py', '--logdir=HOME/a'], 'mine.py --logdir=~/a'),
    (['mine.py', 'HOMES/a', '/b', ''], "mine.py HOMES/a /b ''"),
    (['HOME/mine.py', r'--.*\.norm', 'layer'], r"~/mine.py '--.*\.norm' layer"),
    ([''], ''),
    (['-c', 'HOME'], '-c ~'),
    (['python -m moto_tf train', '--a', 'b c'], "-m moto_tf train --a 'b c'"),
  ],
)
def test_command(monkeypatch, argv, text):
  monkeypatch.setenv('HOME', '/somewhere/me')
  monkeypatch.chdir(ROOT)
  places = {'HOME': '/somewhere/me', 'ROOT': str(ROOT)}
  for name, place in places.items():
    argv = [word.replace(name, place) for word in argv]
  text = text.replace('HOMES', '/somewhere/meS')
  assert records.command(argv) == f'python {text}'.strip()


def test_commit(tmp_path, monkeypatch):
  for name in [name for name in os.environ if name.startswith('GIT_')]:
    monkeypatch.delenv(name)

  def git(*args):
    user = ('-c', 'user.name=me', '-c', 'user.email=me@example.com')
    line = ('git', '-C', str(tmp_path), *user, *args)
    return subprocess.run(line, check=True, capture_output=True, text=True)

  assert records.commit(tmp_path) is None
  git('init')
  package = tmp_path / 'moto_tf' / '__init__.py'
  package.parent.mkdir()
  package.write_text('')
  (tmp_path / 'other').write_text('')
  git('add', 'other')
  git('commit', '-m', 'other')
  # The package is there, but not of this repository.
  assert records.commit(tmp_path) is None
  git('add', 'moto_tf')
  git('commit', '-m', 'package')
  head = git('rev-parse', 'HEAD').stdout.strip()
  (tmp_path / 'new').write_text('')
  assert records.commit(tmp_path) == head
  package.write_text('changed')
  assert records.commit(tmp_path) == f'{head} (modified)'
  monkeypatch.setenv('PATH', str(tmp_path))
  assert records.commit(tmp_path) is None
