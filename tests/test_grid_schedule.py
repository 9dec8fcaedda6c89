"""Grids: who runs what when, where, and after what. Nothing trains."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from grid_helpers import finish, grid_of
from waiting import until

from moto_tf import ownership
from moto_tf.grid import GridError, local, schedule, slots
from moto_tf.grid import state as states
from moto_tf.signals import StopRequest
from moto_tf.training import machine
from moto_tf.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]


class Fake:
  """A launcher whose runs do in an instant what a script says.

  script: by label a list of 'done', 'fail', 'lost' or a function of the run.
  """

  def __init__(self, size=1, script=None):
    self.size, self.script = size, script or {}
    self.started, self.now, self.stops, self.closed = [], [], 0, False
    self.most = 0

  def room(self, elsewhere):
    return len(self.now) + len(elsewhere) < self.size

  def start(self, run):
    self.started.append(run.label)
    self.now.append(run)
    self.most = max(self.most, len(self.now))

  def ended(self):
    found = []
    for run in self.now:
      act = self.script.get(run.label, ['done']).pop(0)
      if act == 'done':
        finish(run)
        self.script[run.label] = []
      if callable(act):
        act(run)
      problem = 'it broke' if act == 'fail' else ''
      found.append(schedule.Ended(run, problem, act == 'lost'))
    self.now = []
    return found

  def stop(self):
    self.stops += 1

  def close(self):
    self.closed = True


def work(grid, fake, stop=None, **options):
  stop = stop or StopRequest()
  options = {'sleep': lambda seconds: None, **options}
  found = schedule.look(grid)
  return schedule.Scheduler(grid, found, fake, **options).work(stop)


def test_everything_is_done_once(tmp_path):
  grid = grid_of(tmp_path)
  fake = Fake(2)
  board = work(grid, fake)
  assert fake.started == [run.label for run in grid.runs]
  assert fake.most == 2 and fake.closed
  assert len(board.finished) == 6 and not board.failed
  # The same command has nothing left to do.
  again = Fake()
  work(grid, again)
  assert again.started == []


def test_a_failed_run_is_tried_once_more(tmp_path):
  grid = grid_of(tmp_path, seeds=[0])
  moto, dreamer, mine = (run.label for run in grid.runs)
  fake = Fake(1, {moto: ['fail', 'done'], dreamer: ['fail', 'fail', 'done']})
  board = work(grid, fake)
  assert fake.started == [moto, moto, dreamer, dreamer, mine]
  assert board.failed == {dreamer: 'it broke'}
  assert board.kind(dreamer) == 'failed' and board.kind(moto) == 'done'
  # Whoever starts the suite again has mended something.
  work(grid, again := Fake())
  assert again.started == [dreamer]


def test_a_run_that_ends_well_too_early_has_failed(tmp_path):
  grid = grid_of(tmp_path, methods='moto', seeds=[0])
  half = lambda run: finish(run, 4)
  (label,) = (run.label for run in grid.runs)
  board = work(grid, Fake(1, {label: [half, half]}))
  assert board.failed == {label: 'it ended before its last step'}


def test_a_lost_machine_is_no_failure(tmp_path):
  grid = grid_of(tmp_path, methods='moto', seeds=[0])
  (label,) = (run.label for run in grid.runs)
  fake = Fake(1, {label: ['lost', 'lost', 'fail', 'lost', 'done']})
  assert not work(grid, fake).failed and len(fake.started) == 5
  other = grid_of(tmp_path, methods='mine', seeds=[0])
  fake = Fake(1, {other.runs[0].label: ['lost'] * 9})
  board = work(other, fake)
  assert len(fake.started) == schedule.LOSSES + 1 and board.failed


def test_a_run_of_another_process_is_waited_for(tmp_path):
  """As one that outlived the suite that started it."""
  grid = grid_of(tmp_path, methods='moto')
  first, second = grid.runs
  owner = ownership.Owner(first.logdir)
  seen, fake = [], Fake(2)

  def show(board):
    seen.append({x: board.kind(x) for x in board.runs})
    if len(seen) == 3:
      finish(first)
      owner.close()

  board = work(grid, fake, show=show)
  assert fake.started == [second.label]
  assert seen[0][first.label] == seen[2][first.label] == 'elsewhere'
  assert board.finished == [first.label, second.label]


def test_a_run_that_nobody_has_any_more_goes_on(tmp_path):
  grid = grid_of(tmp_path, methods='moto', seeds=[0])
  (run,) = grid.runs
  owner = ownership.Owner(run.logdir)
  fake = Fake()
  board = work(grid, fake, show=lambda board: owner.close())
  assert fake.started == [run.label] == board.finished


def test_two_suites_share_the_work(tmp_path):
  """Whoever comes second to a run has not failed."""
  grid = grid_of(tmp_path, methods='moto', seeds=[0])
  (run,) = grid.runs
  owners = []
  taken = lambda run: owners.append(ownership.Owner(run.logdir))

  def show(board):
    if board.kind(run.label) == 'elsewhere':
      finish(run)
      owners[0].close()

  fake = Fake(1, {run.label: ['fail', taken]})
  board = work(grid, fake, show=show)
  assert not board.failed and board.finished and len(fake.started) == 2


def test_a_signal_stops_runs_and_waits_for_them(tmp_path):
  grid = grid_of(tmp_path)
  stop, fake = StopRequest(), Fake(2)
  left = lambda run: finish(run, 4)
  fake.script = {run.label: [left, 'done'] for run in grid.runs}
  stop.number = signal.SIGTERM
  board = work(grid, fake, stop)
  assert fake.stops == 1 and fake.closed
  assert len(fake.started) == 2 and not board.running and not board.failed
  assert [board.kind(x) for x in board.runs][:3] == [
    'begun',
    'begun',
    'waiting',
  ]

  def again(seconds):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    work(grid, fake := Fake(2), stop, sleep=again)
  assert fake.stops == 2 and fake.closed


def test_states_come_from_directories(tmp_path):
  grid = grid_of(tmp_path, methods='moto', seeds=[0])
  (run,) = grid.runs
  new = states.read(run)
  assert (new.step, new.total, new.finished) == (0, 8, False)
  finish(run, 4, time=10.0, **{'eval/success': 0.5})
  finish(run, 6, time=14.0)
  found = states.read(run)
  assert (found.step, found.success, found.pace) == (6, 0.5, 2.0)
  assert not found.finished and found.counters['gradient_step'] == 6
  # Its last evaluation is to be made up for.
  finish(run)
  path = run.logdir / 'checkpoints' / 'ckpt-00000008.npz'
  arrays, said, _ = Checkpoints(path.parent, 3).load()
  Checkpoints(path.parent, 3).save(8, arrays, {**said, 'unfinished': True})
  assert not states.read(run).finished
  Checkpoints(path.parent, 3).save(8, arrays, said)
  assert states.read(run).finished
  # Of a damaged one nothing is believed.
  path.write_bytes(path.read_bytes()[:200])
  assert states.read(run).counters['gradient_step'] == 6


def test_other_settings_are_refused(tmp_path):
  grid = grid_of(tmp_path, methods='moto', seeds=[0])
  finish(grid.runs[0])
  other = grid_of(
    tmp_path, methods='moto', seeds=[0], more=[{'horizon': 5, 'envs': 1}]
  )
  with pytest.raises(GridError, match='horizon 3 there, 5 here. Give') as error:
    schedule.look(other)
  assert str(grid.runs[0].logdir) in str(error.value)
  assert 'envs' not in str(error.value)


def test_places():
  assert slots.divide(2, 2, [0, 1, 2, 3]) == [(0, 1), (2, 3)]
  assert slots.divide(3, 1, [4, 6]) == [(4,), (6,), (4,)]
  assert slots.divide(1, 4, [5]) == [(5,)]


def test_local_processes(tmp_path, monkeypatch):
  """They are pinned, have their threads set, and say why they ended."""
  grid = grid_of(tmp_path, methods='moto')
  place = tuple(machine.cores()[:1])
  launcher = local.LocalLauncher(tmp_path, [place])
  code = (
    'import os, sys, time\n'
    'while len(os.sched_getaffinity(0)) > 1: time.sleep(0.01)\n'
    'import moto_tf; print(moto_tf.__file__, os.environ["OMP_NUM_THREADS"])\n'
    'sys.exit("ValueError: the end of it\\nand more")'
  )
  monkeypatch.setattr(
    local, 'command', lambda run: [sys.executable, '-c', code]
  )
  assert launcher.room([])
  launcher.start(grid.runs[0])
  assert not launcher.room([])
  ((run, problem, lost),) = until(launcher.ended)
  assert run is grid.runs[0] and not lost
  output = local.output_path(tmp_path, run.label)
  assert problem == (
    f'exit status 1: ValueError: the end of it (all of it in {output})'
  )
  assert output.read_text().startswith(f'{ROOT}/moto_tf/__init__.py 1\n')
  # A process that outlived another suite has one of its places.
  me = {'host': socket.gethostname(), 'pid': os.getpid()}
  assert not launcher.room([me]) and launcher.room([{**me, 'host': 'x'}])
  # What starts beside it gets the other place.
  cores = machine.cores()[:2]
  launcher = local.LocalLauncher(tmp_path, [(core,) for core in cores])
  pinned = []
  monkeypatch.setattr(local.slots, 'cores_of', lambda pid: {cores[0]})
  monkeypatch.setattr(local.slots, 'pin', lambda pid, x: pinned.append(x))
  assert launcher.room([me]) == (len(cores) > 1)
  launcher.start(grid.runs[1])
  assert pinned == [(cores[-1],)] and not launcher.room([me])
  for process, _, _ in launcher._processes.values():
    process.kill()
    process.wait()
  assert local.explain(-9, output).startswith('ended by SIGKILL: ')
  assert local.explain(143, output).startswith('stopped by a signal: ')
  assert local.explain(0, output) == ''
