"""Figures and tables of runs on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from results_helpers import row, write_run, write_runs

from moto_tf.results import curves, plotting

ROOT = Path(__file__).parents[1]


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


def test_runs_of_other_settings_are_named(tmp_path, capsys):
  """Otherwise they would count as seeds of one method."""
  rows = [row(2000, eval_success=0.5)]
  for seed, config in ((0, {'moto.alpha': 1}), (1, {'moto.alpha': 3})):
    same = {'horizon': 5, 'log_every': seed + 1}
    write_run(tmp_path / 'moto' / str(seed), rows, **same, **config)
  plotting.plot([tmp_path], tmp_path / 'out', ['eval/success'])
  error = capsys.readouterr().err
  assert error.count('runs of different settings') == 1
  assert 'differ in moto.alpha. --methods leaves' in error


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
  intro, first, one, remark, second, two = path.read_text().split('\n\n')
  assert 'the range of all seeds below five' in intro
  assert 'environment steps' in intro
  assert first == '## Success rate (evaluation)'
  assert remark.endswith('unequal environment steps: moto 200, mine 100.')
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
