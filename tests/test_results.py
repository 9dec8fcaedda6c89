"""Sessions and evaluations of a run, exports of it, and figures from these."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_plotting import row, write_run
from test_run import make_run, tiny

from moto_tf import files
from moto_tf.config import flatten
from moto_tf.files import FileError
from moto_tf.results import curves, plotting
from moto_tf.results import export as results
from moto_tf.training import evaluation, records
from moto_tf.training.algorithm import algorithm_1 as train

ROOT = Path(__file__).parents[1]
STEPS = (1000, 2000, 3000)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def evaluated(step, episodes=4, **changes):
  """A line of evaluations.jsonl that goes with `row(step)`."""
  rng = np.random.default_rng(step)
  counters = {**row(step), 'agent_step': 0, 'episode': 0, **changes}
  return {
    **counters,
    'seconds': step / 3,
    'first_seed': 1_000_000,
    'success': rng.integers(0, 2, episodes).tolist(),
    'return': rng.uniform(0, 1000, episodes).round(4).tolist(),
    'length': [100] * episodes,
  }


def add_evaluations(path, steps=STEPS, episodes=4):
  """Writes evaluations.jsonl and the same means into metrics.jsonl."""
  rows, metrics = [evaluated(step, episodes) for step in steps], []
  for found in rows:
    means = {f'eval/{k}': np.mean(found[k]) for k in ('success', 'return')}
    metrics.append({**row(found['gradient_step']), **means, 'time': 1.0})
  for name, content in (('metrics', metrics), ('evaluations', rows)):
    text = ''.join(json.dumps(line) + '\n' for line in content)
    (path / f'{name}.jsonl').write_text(text)
  return path


def exported(root, name='door-open/moto/0', **config):
  """A log directory with evaluations, and its export."""
  path = add_evaluations(write_run(root / name, [], **config))
  return path, results.export(path)


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """A run killed after an evaluation; its files then, and when it was done."""
  logdir = tmp_path_factory.mktemp('run') / 'reach' / 'moto' / '0'
  steps = {'online_steps': 6, 'eval_every': 5, 'checkpoint_every': 4}
  config = tiny(logdir, **steps, eval_episodes=3, eager=True)
  with make_run(config) as run:
    update = run.update

    def limited(batch):
      if run.gradient_step == 5:
        raise KeyError('killed')
      update(batch)

    run.update = limited
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
