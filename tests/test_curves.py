"""Curves of runs on disk, and aggregation over seeds against plain loops."""

import json

import numpy as np
import pytest
from results_helpers import row, write_run, write_runs

from moto_tf.files import FileError
from moto_tf.results import curves, plotting


def one_run(tmp_path, rows, name='0', **config):
  write_run(tmp_path / 'door' / 'moto' / name, rows, **config)
  (run,) = curves.find_runs([tmp_path])
  return run


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
  cut = f'cut at env_step 10000 of 20000, where {short} ends'
  assert cut in error and cut in found['cut']
  table = plotting.table({'eval/success': {'door': {'moto': found}}})
  assert cut in table.splitlines()[-1]
  rows = [row(x, eval_success=0.5) for x in (1000, 1960)]
  write_run(tmp_path / 'door' / 'no_bc' / '0', rows)
  runs = curves.find_runs([tmp_path], methods='no_bc')
  assert 'cut' not in curves.aggregate(runs, 'eval/success')


def test_unequal_budgets_are_named(tmp_path, capsys):
  """Or a method that had more would be called better."""
  ends = {'moto': 3000, 'no_bc': 2950, 'dreamerv2': 1400}
  for method, end in ends.items():
    rows = [row(x, eval_success=0.5) for x in (1000, 1400, end)]
    write_run(tmp_path / 'runs' / method / '0', rows)
  plot = lambda **options: plotting.plot(
    [tmp_path / 'runs'], tmp_path / 'x', ['eval/success'], **options
  )[-1].read_text()
  said = (
    'On metaworld_door-open the final values are after unequal environment '
    'steps: moto 20,000, no_bc 19,500, dreamerv2 4,000.'
  )
  assert said in plot(statistics=True)
  assert f'{said} --until X cuts all there.' in capsys.readouterr().err
  for options in ({'methods': 'moto|no_bc'}, {'until': 4000}):
    assert 'unequal' not in plot(**options)
    assert 'unequal' not in capsys.readouterr().err


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
