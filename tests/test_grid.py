"""Grids: what a file stands for, and who runs what when. Nothing trains."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from waiting import until

from moto_tf import ownership
from moto_tf.commands import settings
from moto_tf.commands import suite as command
from moto_tf.data.episodes import save_episode
from moto_tf.envs.metaworld import TASKS
from moto_tf.grid import (
  GridError,
  demonstrations,
  local,
  plan,
  schedule,
  slots,
  spec,
  table,
)
from moto_tf.grid import state as states
from moto_tf.signals import StopRequest
from moto_tf.training import machine, meta
from moto_tf.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]
TEXT = """
about: Some runs.
presets: [gym, proprio, debug]
tasks: [gym_Pendulum-v1]
methods:
  moto:
  dreamerv2: {settings: {horizon: 4}}
  mine: {presets: [no_bc], settings: {moto.alpha: 1, actor.layers: [8, 8]}}
seeds: [0, 1]
settings: {online_steps: 8, offline_steps: 0}
"""


def write(tmp_path, text=TEXT, name='mine'):
  path = tmp_path / f'{name}.yaml'
  path.write_text(text)
  return path


def grid_of(tmp_path, **options):
  return spec.load(write(tmp_path), tmp_path / 'runs', **options)


def finish(run, step=None, **row):
  """What a run leaves: a checkpoint and a row; by default of its end."""
  config, total = run.config, run.config.online_steps
  step = total if step is None else step
  said = {
    'counters': dict.fromkeys(meta.COUNTERS, 0) | {'gradient_step': step},
    'phase': 'online',
    'episodes': [],
    'spaces': {'action': [1], 'observations': {}},
    'prefill': 0,
    'settings': meta.settings(config),
    'unfinished': False,
  }
  run.logdir.mkdir(parents=True, exist_ok=True)
  config.save(run.logdir / 'config.yaml')
  Checkpoints(run.logdir / 'checkpoints', 3).save(step, {}, said)
  row = {'gradient_step': step, 'env_step': step, 'phase': 'online', **row}
  with (run.logdir / 'metrics.jsonl').open('a') as file:
    file.write(json.dumps(row) + '\n')


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


def test_runs_of_a_file(tmp_path):
  grid = grid_of(tmp_path)
  assert (grid.name, grid.about) == ('mine', 'Some runs.')
  # Everything with the first seed comes first.
  labels = [f'gym_Pendulum-v1/{m}/0' for m in ('moto', 'dreamerv2', 'mine')]
  assert [run.label for run in grid.runs][:3] == labels
  assert len({run.logdir for run in grid.runs}) == len(grid.runs) == 6
  moto, dreamer, mine = (run.config for run in grid.runs[:3])
  assert (moto.method, moto.variant, moto.online_steps) == ('moto', '', 8)
  assert (dreamer.method, dreamer.horizon) == ('dreamerv2', 4)
  assert (mine.method, mine.name, mine.moto.alpha) == ('no_bc', 'mine', 1.0)
  assert grid.runs[2].logdir == tmp_path / 'runs/gym_Pendulum-v1/mine/0'
  for run in grid.runs:
    # What a process of the run gets says the same.
    assert settings.parse(run.words).flat == run.config.flat
    assert all('\n' not in word for word in run.words)


def test_the_command_line_narrows_and_overrides(tmp_path):
  path = str(write(tmp_path))
  words = [path, '--logdir', str(tmp_path), '--methods', 'moto|mine']
  words += ['--seeds', '7', '--configs', 'small', '--rssm.deter', '32']
  found = []
  run = lambda grid, args: found.append(grid) or {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(command, 'run', run)
    command.main(words)
  (grid,) = found
  assert [run.label.split('/', 1)[1] for run in grid.runs] == [
    'moto/7',
    'mine/7',
  ]
  assert {run.config.rssm.deter for run in grid.runs} == {32}
  assert {run.config.rssm.hidden for run in grid.runs} == {256}
  assert {run.config.replay.batch for run in grid.runs} == {8}
  # Behind sizes, the presets of methods.
  assert grid.runs[1].config.actor.layers == (8, 8)


@pytest.mark.parametrize(
  'old, new, message',
  [
    ('dreamerv2:', 'dreamer:', 'there is no preset dreamer. Presets are'),
    ('about', 'abuot', 'unknown key abuot; did you mean about?'),
    ('[0, 1]', '[0, -1]', 'the seed -1 is not a whole number'),
    ('[0, 1]', '[]', 'seeds is empty'),
    ('[0, 1]', '3', 'seeds is 3, expected a list'),
    ('horizon', 'horizn', 'dreamerv2: unknown key .horizn.; did you mean'),
    ('moto.alpha: 1', 'moto.alpha: x', 'mine: moto.alpha: expected'),
    ('[no_bc]', 'no_bc', r"methods.mine.presets is 'no_bc', expected a list"),
    ('[gym_Pendulum-v1]', '[]', 'expected tasks, a list of names or a map'),
    ('[gym_Pendulum-v1]', '[a/b]', "'a/b' in tasks cannot name a directory"),
    ('seeds', 'demonstrations: {episodes: 0}\nseeds', 'has 0 demonstrations'),
    ('seeds', 'cores: 0\nseeds', 'cores is 0, expected 1 or more'),
  ],
)
def test_mistakes_in_files(tmp_path, old, new, message):
  path = write(tmp_path, TEXT.replace(old, new, 1))
  with pytest.raises(GridError, match=message) as error:
    spec.load(path)
  assert str(path) in str(error.value)


def test_mistakes_on_the_command_line(tmp_path, capsys):
  with pytest.raises(GridError, match='no suite .figure.; did you mean figure'):
    spec.find('figure')
  with pytest.raises(GridError, match='There is no file'):
    spec.find('x/none.yaml')
  with pytest.raises(GridError, match="passes --methods 'x': moto, dreamerv2"):
    grid_of(tmp_path, methods='x')
  with pytest.raises(GridError, match=r"--tasks '\(' is not a regular"):
    grid_of(tmp_path, tasks='(')
  with pytest.raises(SystemExit) as error:
    command.main([str(write(tmp_path)), '--seed', '3'])
  assert '--tasks, --methods and --seeds' in str(error.value)


@pytest.mark.parametrize('name', spec.shipped())
def test_shipped_suites(name):
  path = spec.find(name)
  assert spec.shipped()[name]
  tasks, methods = spec.layout(path)
  assert len(spec.load(path).runs) == len(tasks) * len(methods) * 3


def test_figure2_has_the_tasks_of_the_paper():
  tasks, methods = spec.layout(spec.find('figure2'))
  assert tasks == [f'metaworld_{task}' for task in TASKS]
  assert len(methods) == 8


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


def test_holder(tmp_path):
  assert ownership.holder(tmp_path) is None
  with ownership.Owner(tmp_path):
    me = {'host': socket.gethostname(), 'pid': os.getpid()}
    assert ownership.holder(tmp_path) == me
  assert ownership.holder(tmp_path) is None
  child = subprocess.Popen(['sleep', '60'])
  lock = tmp_path / ownership.NAME
  lock.write_text(json.dumps({**me, 'pid': child.pid}))
  assert ownership.holder(tmp_path) == {**me, 'pid': child.pid}
  child.kill()
  # Dead, but not yet forgotten, and then forgotten.
  os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
  assert ownership.holder(tmp_path) is None
  child.wait()
  assert ownership.holder(tmp_path) is None
  # On another machine: alive as long as it gives signs.
  lock.write_text(json.dumps({'host': 'another', 'pid': 1}))
  assert ownership.holder(tmp_path) == {'host': 'another', 'pid': 1}
  os.utime(lock, (0, 0))
  assert ownership.holder(tmp_path) is None


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


def test_demonstrations(tmp_path, monkeypatch):
  text = TEXT.replace('gym_Pendulum-v1', 'metaworld_hammer')
  text = text.replace('[gym,', '[metaworld,') + 'demonstrations: {episodes: 3}'
  grid = spec.load(write(tmp_path, text), tmp_path / 'runs')
  (found,) = demonstrations.look(grid)
  directory = tmp_path / 'runs' / 'metaworld_hammer' / 'demos'
  assert (found.directory, found.have, found.want) == (directory, 0, 3)
  assert not found.recording.env.image and not directory.exists()
  calls = []
  monkeypatch.setattr(
    demonstrations.record, 'collect', lambda *args: calls.append(args)
  )
  demonstrations.make([found], 2)
  assert calls == [(found.recording, directory, 3, 2)]
  # Those of somebody else are used as they are.
  save_episode(directory, 'x', EPISODE)
  (found,) = demonstrations.look(grid)
  assert (found.have, found.recording) == (1, None)
  # Without experts there is nothing to record.
  gym = TEXT + 'demonstrations: {episodes: 3}'
  gym = gym.replace(
    '{online_steps: 8, offline_steps: 0}', '{offline_data: auto}'
  )
  with pytest.raises(GridError, match='has no demonstrations in .*no scripted'):
    demonstrations.look(spec.load(write(tmp_path, gym), tmp_path / 'other'))
  (tmp_path / 'none').mkdir()
  gym = gym.replace('auto', str(tmp_path / 'none'))
  with pytest.raises(
    GridError, match='no episodes in .*none, the offline_data'
  ):
    demonstrations.look(spec.load(write(tmp_path, gym), tmp_path / 'other'))
  assert demonstrations.look(grid_of(tmp_path)) == []


EPISODE = {
  'state': np.zeros((3, 5), np.float32),
  'action': np.zeros((3, 4), np.float32),
  'reward': np.zeros(3, np.float32),
  'is_first': np.array([True, False, False]),
  'is_last': np.array([False, False, True]),
  'is_terminal': np.zeros(3, bool),
  'success': np.zeros(3, bool),
}


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


def test_paths_are_whole_wherever_a_run_is_started(tmp_path, monkeypatch):
  """By Slurm and Ray, that is in directories of their own."""
  monkeypatch.chdir(tmp_path)
  write(tmp_path)
  (tmp_path / 'more.yaml').write_text('horizon: 3\n')
  grid = spec.load(Path('mine.yaml'), Path('runs'), ['./more.yaml'])
  assert grid.root == tmp_path / 'runs'
  words = local.command(grid.runs[0])
  assert str(tmp_path / 'more.yaml') in words
  assert f'--logdir={tmp_path}/runs/gym_Pendulum-v1/moto/0' in words
