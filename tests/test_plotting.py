"""Runs on disk, aggregation over seeds against plain loops, figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moto_tf.files import FileError
from moto_tf.results import curves, plotting

ROOT = Path(__file__).parents[1]


def write_run(path, rows, task='metaworld_door-open', seed=None, **config):
  """A run directory; the seed is the last part of the path by default."""
  path.mkdir(parents=True)
  seed = int(path.name) if seed is None else seed
  lines = [
    f'{k}: {v}' for k, v in {'task': task, 'seed': seed, **config}.items()
  ]
  (path / 'config.yaml').write_text('\n'.join(lines) + '\n')
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (path / 'metrics.jsonl').write_text(text)
  return path


def row(step, offline=1000, **metrics):
  """Row of a Meta-World run, where 20 updates follow 200 environment steps."""
  online = step > offline
  env_step = 10 * (step - offline) if online else 0
  return {
    'gradient_step': step,
    'env_step': env_step,
    'phase': 'online' if online else 'offline',
    **{key.replace('_', '/', 1): value for key, value in metrics.items()},
  }


def score(rng, step, top):
  share = 0.2 + (top - 0.2) * max(0, step - 1000) / 20000
  return rng.binomial(10, share) / 10


def write_runs(root, tasks, seeds=3):
  """What a small benchmark leaves: methods of different skill on tasks."""
  for method, top in (('moto', 0.95), ('no_bc', 0.6), ('dreamerv2', 0.3)):
    for task in tasks:
      for seed in range(seeds if method != 'dreamerv2' else 2):
        rng = np.random.default_rng((seed, len(task), len(method)))
        rows = []
        for step in range(500, 21001, 500):
          metrics = {'train_loss': float(rng.normal())}
          if step % 1000 == 0:
            metrics['eval_success'] = score(rng, step, top)
            metrics['eval_return'] = 50 * metrics['eval_success']
          rows.append(row(step, **metrics))
        path = root / task / method / str(seed)
        write_run(path, rows, f'metaworld_{task}')


def one_run(tmp_path, rows, name='0', **config):
  write_run(tmp_path / 'door' / 'moto' / name, rows, **config)
  (run,) = curves.find_runs([tmp_path])
  return run


def test_import_without_pyplot():
  code = (
    'import sys, moto_tf.results.plotting;'
    'slow = {"tensorflow", "matplotlib.pyplot"};'
    'sys.exit(bool(slow & set(sys.modules)))'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_command_line(tmp_path):
  write_runs(tmp_path / 'runs', ['door-open', 'hammer'])
  command = [sys.executable, ROOT / 'scripts' / 'plot.py']
  command += ['--indir', tmp_path / 'runs', '--outdir', tmp_path / 'out']
  env = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  names = {path.name for path in (tmp_path / 'out').iterdir()}
  figures = {'eval_success.png', 'eval_return.png'}
  assert names == {'results.json', 'table.md', *figures}
  results = json.loads((tmp_path / 'out' / 'results.json').read_text())
  assert results['xaxis'] == 'env_step'
  panel = results['results']['eval/success']['metaworld_hammer']
  assert list(panel) == ['moto', 'no_bc', 'dreamerv2']
  assert panel['moto']['seeds'] == [0, 1, 2]
  assert panel['moto']['grid'] == list(range(0, 200001, 10000))
  assert panel['moto']['interval'] == panel['dreamerv2']['interval'] == 'range'
  assert len(panel['moto']['each']) == 3
  command += ['--tasks', 'kitchen']
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  assert done.returncode == 1
  assert done.stderr.startswith('Error: No runs below')
  assert 'of 16 runs' in done.stderr and '--tasks' in done.stderr


def test_figure(tmp_path):
  write_runs(tmp_path / 'runs', ['door-open', 'hammer'])
  paths = plotting.plot([tmp_path / 'runs'], tmp_path, ['eval/success'])
  with Image.open(paths[1]) as image:
    pixels = np.asarray(image.convert('RGB'))
  assert pixels.shape[1] > 1000 and pixels.shape[0] > 500
  # Every method has a line of its colour in both panels.
  for index in (0, 2, 4):
    color = plotting.COLORS[index].lstrip('#')
    color = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)])
    drawn = (np.abs(pixels.astype(int) - color) < 8).all(-1)
    half = pixels.shape[1] // 2
    assert drawn[:, :half].sum() > 100 and drawn[:, half:].sum() > 100
  results = json.loads(paths[0].read_text())['results']
  figure = plotting.figure(results['eval/success'], 'eval/success')
  axes = figure.axes
  assert [ax.get_title() for ax in axes] == ['door-open', 'hammer']
  texts = [text.get_text() for text in axes[0].texts]
  assert texts == ['online starts']
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert labels == [
    'MOTO (3 seeds)',
    'MOTO without cloning (3 seeds)',
    'DreamerV2 (2 seeds)',
    'after offline training',
    'range of 2-3 seeds',
  ]


def test_the_legend_of_many_methods_fits(tmp_path):
  write_runs(tmp_path, ['door-open'])
  runs = curves.find_runs([tmp_path])
  panel = curves.aggregate_all(runs, ['eval/success'])['eval/success'].popitem()
  panel = {f'a_long_name_{i}': panel[1]['dreamerv2'] for i in range(12)}
  figure = plotting.figure({'metaworld_door-open': panel}, 'eval/success')
  figure.canvas.draw()
  legend = figure.legends[0].get_window_extent()
  assert figure.bbox.x0 <= legend.x0 and legend.x1 <= figure.bbox.x1
  (label,) = (x for x in figure.texts if x.get_text().startswith('Success'))
  label = label.get_window_extent()
  assert figure.bbox.y0 <= label.y0 and label.y1 <= legend.y0


def test_table(tmp_path):
  for seed, values in enumerate([(0.1, 0.9, 0.7), (0.3, 0.5, 0.5)]):
    rows = [row(x, eval_success=y) for x, y in zip((1000, 1010, 1020), values)]
    rows[-1]['time'] = 600 * (seed + 1)
    write_run(tmp_path / 'door' / 'moto' / str(seed), rows)
  rows = [row(1010, eval_success=0.25, eval_return=1234.5678)]
  write_run(tmp_path / 'door' / 'mine' / '0', rows)
  path = plotting.plot([tmp_path], tmp_path)[-1]
  intro, first, one, second, two = path.read_text().split('\n\n')
  assert 'the range of all seeds below five' in intro
  assert 'environment steps' in intro
  assert first == '## Success rate (evaluation)'
  assert second == '## Return (evaluation)'
  head, rule, *lines = one.splitlines()
  assert head.startswith('| task | method | seeds | after offline training |')
  assert head.count('|') == rule.count('|') == 9
  # Two seeds: means with lowest and highest. One: no interval.
  cells = '| 0.20 [0.10, 0.30] | 0.60 [0.50, 0.70] | 0.70 [0.50, 0.90] |'
  assert lines[0].startswith(f'| metaworld_door-open | moto | 2 {cells} 0.')
  assert lines[0].endswith('| 15 [10, 20] |')
  cells = '| - | 0.25 | 0.25 | 0.25 | - |'
  assert lines[1:] == [f'| metaworld_door-open | mine | 1 {cells}']
  assert two.splitlines()[2:] == [
    '| metaworld_door-open | mine | 1 | - | 1235 | 1235 | 1235 | - |'
  ]


def test_colors_do_not_depend_on_others(tmp_path):
  write_runs(tmp_path, ['hammer'])
  colors = []
  for methods in ('', 'no_bc', 'no_bc|dreamer'):
    runs = curves.find_runs([tmp_path], methods=methods)
    results = curves.aggregate_all(runs, ['eval/success'])
    ax = plotting.figure(results['eval/success'], 'eval/success').axes[0]
    colors.append({line.get_color() for line in ax.lines})
  assert colors[1] < colors[2] < colors[0]


def test_aggregate(tmp_path):
  # Seeds that were evaluated at different steps, and one that ends early.
  points = [
    {0: 0.1, 100: 0.5, 300: 0.9},
    {0: 0.3, 200: 0.7, 300: 0.2},
    {0: 0.2, 100: 0.4, 290: 1.0},
  ]
  for seed, values in enumerate(points):
    rows = [row(1000 + x // 10, eval_success=y) for x, y in values.items()]
    write_run(tmp_path / 'door' / 'moto' / str(seed), rows)
  runs = curves.find_runs([tmp_path])
  found = curves.aggregate(runs, 'eval/success')
  grid = [0, 100, 200, 290]
  assert found['grid'] == grid
  table = []
  for values in points:
    line = []
    for x in grid:
      left = max(at for at in values if at <= x)
      right = min(at for at in values if at >= x)
      share = (x - left) / (right - left) if right > left else 0
      line.append(values[left] + share * (values[right] - values[left]))
    table.append(line)
  table = np.array(table)
  np.testing.assert_allclose(found['mean'], table.mean(0))
  np.testing.assert_allclose(found['final']['values'], table[:, -1])
  np.testing.assert_allclose(found['best']['values'], table.max(1))
  assert found['offline']['values'] == [0.1, 0.3, 0.2]
  assert found['online_start'] == 0
  for area, line in zip(found['area']['values'], table):
    fine = np.interp(np.linspace(0, 290, 29001), grid, line)
    assert abs(area - fine.mean()) < 1e-3
  # Below five seeds the band is their range, and each of them is drawn.
  assert found['interval'] == 'range'
  np.testing.assert_allclose(found['low'], table.min(0))
  np.testing.assert_allclose(found['high'], table.max(0))
  np.testing.assert_allclose(found['each'], table)


def test_interval_kinds():
  values = np.array([[1.0, 5.0], [3.0, 2.0]])
  low, high, kind = curves.interval(values)
  assert kind == 'range'
  assert low.tolist() == [1, 2] and high.tolist() == [3, 5]
  assert curves.interval(values[:1]) == (None, None, None)
  values = np.random.default_rng(0).normal(size=(40, 1))
  low, high, kind = curves.interval(values)
  error = 2.0227 * values.std(ddof=1) / 40**0.5
  assert kind == 't'
  np.testing.assert_allclose(high - low, 2 * error, rtol=1e-4)
  np.testing.assert_allclose((high + low) / 2, values.mean())


def test_five_seeds_have_an_interval(tmp_path):
  """Of a share it ends at 1; only the range draws every seed."""
  for seed in range(5):
    rows = [row(1010, eval_success=1 - 0.1 * (seed == 0), eval_return=9 + seed)]
    write_run(tmp_path / 'door' / 'moto' / str(seed), rows)
  runs = curves.find_runs([tmp_path])
  found = curves.aggregate(runs, 'eval/success')
  assert found['interval'] == 't' and found['each'] is None
  assert found['high'] == [1.0] and 0.9 < found['low'][0] < 0.98
  assert found['final']['high'] == 1.0
  assert curves.aggregate(runs, 'eval/return')['high'][0] > 12
  path = plotting.plot([tmp_path], tmp_path / 'out', ['eval/success'])[1]
  panels = curves.aggregate_all(runs, ['eval/success'])['eval/success']
  labels = plotting.figure(panels, 'eval/success').legends[0].get_texts()
  assert path.exists() and labels[-1].get_text() == '95% t interval'


def test_methods_differ_without_colour(tmp_path):
  write_runs(tmp_path, ['hammer'])
  panels = curves.aggregate_all(curves.find_runs([tmp_path]), ['eval/success'])[
    'eval/success'
  ]
  ax = plotting.figure(panels, 'eval/success').axes[0]
  lines = [line for line in ax.lines if line.get_linewidth() == 1.8]
  seen = {(line.get_linestyle(), line.get_marker()) for line in lines}
  assert len(seen) == len(lines) == 3
  names = [f'mine_{i}' for i in range(20)]
  looks = [tuple(plotting.look(x, names).values()) for x in names]
  assert len(set(looks)) == 20
  # Seeds are few, so each has its line.
  assert sum(line.get_linewidth() == 0.6 for line in ax.lines) == 8


def test_empty_cells_are_said_to_be_empty(tmp_path):
  write_runs(tmp_path / 'runs', ['hammer'], seeds=1)
  tasks = [f'metaworld_{x}' for x in ('assembly', 'door-open', 'hammer')]
  layout = plotting.Layout(tasks, ['moto', 'no_unc', 'dreamerv2'])
  paths = plotting.plot(
    [tmp_path / 'runs'], tmp_path, ['eval/success'], layout=layout
  )
  found = json.loads(paths[0].read_text())['results']['eval/success']
  figure = plotting.figure(found, 'eval/success', layout=layout)
  titles = [ax.get_title() for ax in figure.axes]
  assert titles == ['assembly', 'door-open', 'hammer']
  texts = [[x.get_text() for x in ax.texts] for ax in figure.axes]
  assert texts[:2] == [['not run'], ['not run']]
  assert 'not run: no_unc' in texts[2]
  text = paths[-1].read_text()
  assert text.count('| 0 | not run |') == 7 and 'no_bc' not in text
  with pytest.raises(curves.PlotError, match='None of the runs is of kitchen'):
    layout = plotting.Layout(['kitchen_mixed'], ['moto'])
    plotting.plot([tmp_path / 'runs'], tmp_path, layout=layout)


def test_single_seed(tmp_path):
  run = one_run(tmp_path, [row(1000, eval_return=2.0)])
  found = curves.aggregate([run], 'eval/return')
  assert found['low'] is found['high'] is found['interval'] is None
  assert found['final'] == {
    'mean': 2.0,
    'low': None,
    'high': None,
    'values': [2.0],
  }
  # Even this much can be drawn.
  plotting.plot([tmp_path], tmp_path / 'out', ['eval/return'])


def test_gradient_axis(tmp_path):
  rows = [row(x, eval_success=x / 4000) for x in range(500, 2001, 500)]
  run = one_run(tmp_path, rows)
  found = curves.aggregate([run], 'eval/success', 'gradient_step')
  assert found['grid'] == [500, 1000, 1500, 2000]
  assert found['online_start'] == 1000 and found['offline']['mean'] == 0.25
  found = curves.aggregate([run], 'eval/success')
  assert found['grid'] == [0, 5000, 10000]
  assert found['mean'] == [0.25, 0.375, 0.5]


def test_no_offline_phase(tmp_path):
  rows = [row(x, offline=0, eval_success=0.5) for x in (10, 20)]
  found = curves.aggregate([one_run(tmp_path, rows)], 'eval/success')
  assert found['online_start'] is None and found['offline'] is None
  paths = plotting.plot([tmp_path], tmp_path / 'out', ['eval/success'])
  assert [path.name for path in paths] == [
    'results.json',
    'eval_success.png',
    'table.md',
  ]


def test_repeated_rows(tmp_path):
  # Stopped after 4000 and continued from 2000, differently.
  steps = [1000, 2000, 3000, 4000, 3000, 5000]
  values = [0.0, 0.2, 0.9, 0.9, 0.3, 0.5]
  rows = [row(s, eval_success=v) for s, v in zip(steps, values)]
  # Two rows of one step, where the second holds other metrics.
  rows.append(row(5000, eval_return=7.0))
  rows.append(row(5000, eval_success=0.6))
  x, y = curves.curve(one_run(tmp_path, rows), 'eval/success')
  assert x.tolist() == [0, 10000, 20000, 40000]
  assert y.tolist() == [0.0, 0.2, 0.3, 0.6]


def test_missing_values(tmp_path):
  rows = [row(1000 + i, eval_success=v) for i, v in enumerate([0.1, None, 0.3])]
  rows.append({'gradient_step': 1004, 'eval/success': float('nan')})
  x, y = curves.curve(one_run(tmp_path, rows), 'eval/success')
  assert x.tolist() == [0, 20] and y.tolist() == [0.1, 0.3]


def test_smooth(tmp_path):
  values = [0.0, 1.0, 0.0, 1.0, 1.0]
  rows = [row(1000 + i, eval_success=v) for i, v in enumerate(values)]
  found = curves.aggregate([one_run(tmp_path, rows)], 'eval/success', smooth=3)
  np.testing.assert_allclose(found['mean'], [0, 1 / 2, 1 / 3, 2 / 3, 2 / 3])
  assert found['final']['mean'] == 1 and found['best']['mean'] == 1


def test_longer_runs_are_cut_for_equal_budgets(tmp_path):
  steps = [1000, 2000, 3000, 5000]
  for seed, last in enumerate([5000, 3000]):
    rows = [
      row(x, eval_success=x / 5000) | {'time': 60.0 * i}
      for i, x in enumerate(steps)
      if x <= last
    ]
    rows.insert(0, {'gradient_step': 10, 'phase': 'offline', 'time': 0.0})
    write_run(tmp_path / f'{seed}' / 'moto' / f'{seed}', rows)
  plotting.plot([tmp_path], tmp_path / 'out', ['eval/success'], until=20000)
  content = json.loads((tmp_path / 'out' / 'results.json').read_text())
  found = content['results']['eval/success']['metaworld_door-open']['moto']
  assert content['until'] == 20000
  assert found['grid'] == [0, 10000, 20000]
  assert found['final']['values'] == found['best']['values'] == [0.6, 0.6]
  # The time until then, not that of the whole run.
  assert found['minutes']['values'] == [2, 2]
  plotting.plot([tmp_path], tmp_path / 'all', ['eval/success'])
  content = json.loads((tmp_path / 'all' / 'results.json').read_text())
  found = content['results']['eval/success']['metaworld_door-open']['moto']
  assert 'until' not in content and found['minutes']['values'] == [3, 2]


def test_long_curves(tmp_path):
  rng = np.random.default_rng(0)
  rows = [row(1000 + i, episode_return=rng.normal()) for i in range(900)]
  found = curves.aggregate([one_run(tmp_path, rows)], 'episode/return')
  values = [x['episode/return'] for x in rows]
  assert len(found['grid']) == curves.POINTS
  assert found['best']['mean'] == max(values)
  assert found['final']['mean'] == values[-1]


@pytest.mark.parametrize(
  ('path', 'config', 'method'),
  [
    ('door-open/mine/3', {}, 'mine'),
    ('runs/no_bc/seed_3', {}, 'no_bc'),
    ('door-open/3', {'beta': 0.0}, 'no_bc'),
    ('logdir/moto-test', {'behavior': 'moto'}, 'moto'),
    ('x', {'behavior': 'moto', 'alpha': 0.0, 'beta': 0.0}, 'no_bc_no_unc'),
    ('x', {'behavior': 'dreamer', 'alpha': 10.0}, 'dreamerv2'),
  ],
)
def test_method(tmp_path, path, config, method):
  write_run(tmp_path / path, [row(1)], seed=3, **config)
  (run,) = curves.find_runs([tmp_path])
  assert (run.method, run.seed) == (method, 3)


def test_filters(tmp_path):
  write_runs(tmp_path, ['door-open', 'hammer'], seeds=1)
  runs = curves.find_runs([tmp_path], tasks='door', methods='^no_')
  assert [(run.task, run.method) for run in runs] == [
    ('metaworld_door-open', 'no_bc')
  ]
  # A directory inside another is not counted twice.
  again = curves.find_runs([tmp_path, tmp_path / 'hammer'])
  assert len(again) == len(curves.find_runs([tmp_path]))
  with pytest.raises(curves.PlotError, match=r"--methods '\(' is not"):
    curves.find_runs([tmp_path], methods='(')


def test_damage_is_named(tmp_path, capsys):
  rows = [row(1000, eval_success=0.5), row(1010, eval_success=0.7)]
  good = write_run(tmp_path / 'door' / 'moto' / '0', rows)
  with (good / 'metrics.jsonl').open('a') as file:
    file.write('{"gradient_step": 3')
  lost = write_run(tmp_path / 'door' / 'moto' / '1', rows)
  (lost / 'config.yaml').unlink()
  empty = write_run(tmp_path / 'door' / 'moto' / '2', [])
  bad = write_run(tmp_path / 'door' / 'moto' / '3', rows)
  (bad / 'config.yaml').write_text('task: [x\n')
  part = write_run(tmp_path / 'door' / 'moto' / '4', rows)
  (part / 'config.yaml').write_text('task: x\n')
  other = write_run(tmp_path / 'door' / 'moto' / '5', [row(3, train_loss=1.0)])
  twice = write_run(tmp_path / 'again' / 'moto' / '0', rows[:1])
  runs = curves.find_runs([tmp_path])
  found = curves.aggregate_all(runs, ['eval/success'])
  found = found['eval/success']['metaworld_door-open']['moto']
  assert found['seeds'] == [0] and found['runs'] == [str(good)]
  assert found['mean'] == [0.5, 0.7]
  error = capsys.readouterr().err
  for text in (
    f'{good}/metrics.jsonl: the last line is half written',
    f'{lost} has metrics.jsonl but no config.yaml',
    f'{empty}/metrics.jsonl has no rows',
    f'{bad}/config.yaml is unreadable',
    f'{part}/config.yaml lacks task or seed',
    f'{other} left out, without values',
    f'{good} and {twice} are both seed 0 of moto',
  ):
    assert f'Warning: {text}' in error or f': {text}' in error, text


def test_unfinished_seed_is_named(tmp_path, capsys):
  rows = [row(x, eval_success=0.5) for x in range(1000, 3001, 100)]
  write_run(tmp_path / 'door' / 'moto' / '0', rows)
  short = write_run(tmp_path / 'door' / 'moto' / '1', rows[:11])
  runs = curves.find_runs([tmp_path])
  found = curves.aggregate(runs, 'eval/success')
  assert found['grid'][-1] == 10000
  error = capsys.readouterr().err
  assert f'cut at env_step 10000 of 20000, where {short} ends' in error


def test_errors(tmp_path, capsys):
  with pytest.raises(curves.PlotError, match='nothing is not a directory'):
    curves.find_runs([tmp_path / 'nothing'])
  with pytest.raises(curves.PlotError, match='of 0 runs'):
    curves.find_runs([tmp_path])
  run = one_run(tmp_path, [row(1, eval_success=0.5)])
  with pytest.raises(curves.PlotError, match='hold .*eval/success'):
    curves.aggregate_all([run], ['eval/succes'])
  with pytest.raises(curves.PlotError, match='--smooth is 0'):
    plotting.plot([tmp_path], tmp_path / 'out', smooth=0)
  with pytest.raises(curves.PlotError, match='--until is nan'):
    plotting.plot([tmp_path], tmp_path / 'out', until=float('nan'))
  with pytest.raises(FileError, match='Cannot write .*metrics.jsonl'):
    plotting.plot([tmp_path], run.path / 'metrics.jsonl')
  plotting.plot([tmp_path], tmp_path / 'out')
  assert 'no run has values of eval/return' in capsys.readouterr().err
