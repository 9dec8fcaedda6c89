"""Grids: what is left to do, how long it takes, and the table of it."""

import io
import json

import pytest
from grid_helpers import finish, grid_of

from moto_tf.grid import GridError, plan, schedule, table
from moto_tf.grid import state as states


def needs(grid, seconds=60.0):
  return {run.label: plan.Needs(seconds, 2**20, 2**30) for run in grid.runs}


def test_plan(tmp_path, monkeypatch):
  grid = grid_of(tmp_path)
  finish(grid.runs[0])
  finish(grid.runs[1], 4)
  found = schedule.look(grid)
  text = plan.describe(grid, found, needs(grid), 2, 2)
  assert '6: 1 tasks x 3 methods x 2 seeds, 1 done, 1 begun' in text
  assert 'about 3 min, 2 at a time: moto 1 x 60 s, dreamerv2 2 x 60 s' in text
  assert 'about 2.0 GiB for 2 at a time on one' in text
  assert plan.makespan([3, 1, 1, 4], 2) == 6
  monkeypatch.setattr(plan.memory, 'host', lambda: 3 * 2**29)
  with pytest.raises(GridError, match='2.0 GiB .*; --processes 1 would fit'):
    plan.describe(grid, found, needs(grid), 2, 2)
  monkeypatch.setattr(plan.shutil, 'disk_usage', lambda path: Usage)
  with pytest.raises(GridError, match='Make room, or choose another --logdir'):
    plan.describe(grid, found, needs(grid), 1, 1)


class Usage:
  free = 10


def test_runs_of_one_speed_are_measured_once(tmp_path, monkeypatch):
  grid = grid_of(tmp_path)
  calls = []

  def call(function, title, started, **arguments):
    calls.append((title, arguments['cores'], arguments['threads']))
    fields = {x: 1 for x in plan.Measured.__dataclass_fields__}
    return {**fields, 'startup': 5.0}

  monkeypatch.setattr(plan.child, 'call', call)
  found = schedule.look(grid)
  measured = plan.measure(grid, found, [(0,), (1,)])
  assert sorted(x[0].split(' ')[0] for x in calls) == [
    'dreamerv2',
    'mine',
    'moto',
  ]
  assert {x[1] for x in calls} <= {(0,), (1,)}
  assert calls[0][2]['TF_NUM_INTRAOP_THREADS'] == '1'
  run = grid.runs[0]
  need = plan.needs(run, found[run.label], measured[run.label])
  # Start, first step, 8 steps, 4 + 5 episodes with as many actions, and
  # evaluations of one episode, reports and checkpoints after 4 steps and at
  # both ends, and one environment to evaluate in.
  assert need.seconds == 5 + 1 + 8 + 9 * 2 + 4 * 2 + 4 + 4 + 1
  finish(run)
  assert plan.needs(run, states.read(run), None).seconds == 0
  # They are known the next time, unless the file is damaged.
  plan.measure(grid, found, [(0,), (1,)])
  assert len(calls) == 3
  (grid.root / 'speed.json').write_text('{"a": 3}')
  plan.measure(grid, found, [(0,), (1,)])
  assert len(calls) == 6
  # Not what was measured without the demonstrations of the runs, but what was
  # measured before another one failed.
  missing = grid.runs[3].label
  has_data = lambda run: run.label != missing
  monkeypatch.setattr(plan, '_has_data', has_data)
  (grid.root / 'speed.json').unlink()

  def fail(function, title, *args, **arguments):
    if title.startswith('mine'):
      raise ChildProcessError
    return call(function, title, *args, **arguments)

  monkeypatch.setattr(plan.child, 'call', fail)
  with pytest.raises(ChildProcessError):
    plan.measure(grid, schedule.look(grid), [(0,)])

  def kept():
    found = json.loads((grid.root / 'speed.json').read_text())
    return [json.loads(x)[0].get('method', 'moto') for x in found]

  assert kept() == ['dreamerv2']
  monkeypatch.setattr(plan.child, 'call', call)
  found = plan.measure(grid, schedule.look(grid), [(0,)])
  assert missing in found and kept() == ['dreamerv2', 'no_bc']


def test_table(tmp_path):
  grid = grid_of(tmp_path)
  finish(grid.runs[0], time=80.0, **{'eval/success': 1.0})
  finish(grid.runs[1], 2, time=10.0)
  finish(grid.runs[1], 4, time=20.0)
  board = schedule.Board(
    {run.label: run for run in grid.runs}, schedule.look(grid)
  )
  labels = list(board.runs)
  board.running = {labels[1]: 0.0}
  board.failed = {labels[2]: 'it broke'}
  board.elsewhere = {labels[3]: {'host': 'other', 'pid': 7}}
  board.waiting = labels[4:]
  shown = table.LiveTable(needs(grid), 2, io.StringIO())
  lines = shown.lines(board, 4)
  assert len(lines) == 5
  assert lines[0].split()[1:] == [
    *('##########..........', '50%', 'success', '-', 'running,'),
    *('20', 's', 'left'),
  ]
  assert lines[1].endswith('elsewhere (process 7 on other), 80 s left')
  assert lines[2].endswith('failed: it broke') and 'waiting' in lines[3]
  # 20 and, by a run of that method, 80 s, then twice what was forecast.
  assert shown.left(board) == 140
  assert lines[-1] == (
    '6 runs: 1 running, 1 elsewhere, 1 failed, 2 waiting, 1 done; about 2 min '
    'left'
  )
  whole = shown.lines(board, 50)
  assert (
    whole[-2].startswith(labels[0]) and '100% success  1.00 done' in whole[-2]
  )
  # Where the output is no terminal, only what changed is said at once.
  shown.show(board)
  shown.show(board)
  assert shown._stream.getvalue().count('6 runs') == 1
  del board.failed[labels[2]]
  shown.show(board)
  assert shown._stream.getvalue().count('6 runs') == 2
