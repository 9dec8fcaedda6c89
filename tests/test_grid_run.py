"""A suite that really trains, killed and started again; and one on Ray."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from waiting import until

import moto_tf
from moto_tf.grid import local, plan, schedule, spec
from moto_tf.grid import state as states
from moto_tf.signals import StopRequest
from moto_tf.training import machine, rows
from moto_tf.training.soak import TIMES

ROOT = Path(__file__).parents[1]
TEXT = """
presets: [gym, proprio, debug]
tasks: [gym_Pendulum-v1]
methods: [dreamerv2]
settings:
  {online_steps: 24, updates_per_episode: 2, env.time_limit: 8,
   env_workers: none, prefill_episodes: 1, checkpoint_every: 3, log_every: 2,
   eval_every: 0, report_every: 0, precision: float32}
"""


def load(tmp_path, name, text=TEXT):
  path = tmp_path / 'mine.yaml'
  path.write_text(text)
  return spec.load(path, tmp_path / name)


def content(run):
  """Rows of a run, without what time does to them."""
  found = rows.read(run.logdir / 'metrics.jsonl')[0]
  return [
    {k: v for k, v in row.items() if not re.fullmatch(TIMES, k)}
    for row in found
  ]


def test_a_killed_suite_goes_on(tmp_path):
  """With the run; without it, which goes on alone; and ends equal."""
  grid = load(tmp_path, 'runs')
  (run,) = grid.runs
  (other,) = load(tmp_path, 'whole').runs
  moto_tf.train(other.config)
  measured = dict.fromkeys(plan.Measured.__dataclass_fields__, 1)
  kinds = {
    plan.kinds(grid, schedule.look(grid), cores)[run.label]: {
      **measured,
      'startup': 1,
    }
    for cores in (1, len(machine.cores()))
  }
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'speed.json').write_text(json.dumps(kinds))
  words = [sys.executable, str(ROOT / 'scripts' / 'suite.py')]
  words += [str(tmp_path / 'mine.yaml'), '--logdir', str(tmp_path / 'runs')]
  options = {'env': local.environment(1), 'stdout': subprocess.PIPE}
  start = lambda: subprocess.Popen(words, text=True, **options)
  suite = start()
  step = int(np.random.default_rng().integers(1, 14))
  # Another one each time; where the test fails, this says which one it was.
  print(f'The suite is killed at gradient step {step} or after it.')
  # Saved, since a run that was only logged begins again.
  until(lambda: states.read(run).counters.get('gradient_step', 0) >= step)
  pid = states.holder(run)['pid']
  suite.kill()
  os.kill(pid, signal.SIGKILL)
  suite.communicate()
  # The lock of the dead is no lock, and the next suite goes on from there.
  suite = start()
  found = until(
    lambda: (owner := states.holder(run)) and owner['pid'] != pid and owner
  )
  suite.kill()
  suite.communicate()
  # It waits for the next suite, which may take longer to start than it needs.
  os.kill(found['pid'], signal.SIGSTOP)
  assert states.holder(run)
  suite = start()
  said = next(line for line in suite.stdout if 'elsewhere' in line)
  os.kill(found['pid'], signal.SIGCONT)
  said += suite.communicate(timeout=120)[0]
  assert suite.returncode == 0, said
  assert 'elsewhere (process' in said and '1 runs: 1 done' in said
  assert '| gym_Pendulum-v1 | dreamerv2 | 1 |' in said
  assert (tmp_path / 'runs' / 'figures' / 'eval_success.png').exists()
  sessions = json.loads((run.logdir / 'sessions.json').read_text())
  assert [x['gradient_step'] > 0 for x in sessions] == [False, True]
  assert content(run) == content(other) and len(content(run)) > 10
  # Nothing is left to do.
  before = {p: p.stat().st_mtime_ns for p in run.logdir.rglob('*')}
  done = subprocess.run(words, text=True, timeout=120, **options)
  assert '1 done, 0 begun' in done.stdout and 'nothing is left' in done.stdout
  assert {p: p.stat().st_mtime_ns for p in run.logdir.rglob('*')} == before


# A run that learns nothing: a step in half a second, each of them saved.
STAND_IN = """
import sys, time
sys.path.insert(0, TESTS)
from grid_helpers import finish
from moto_tf.commands import settings
from moto_tf.grid import spec, state
from moto_tf.ownership import Owner
run = spec.GridRun(settings.parse(sys.argv[1:]), ())
with Owner(run.logdir):
  for step in range(state.read(run).step, 8):
    time.sleep(0.5)
    finish(run, step + 1)
    with open(run.logdir / 'steps', 'a') as file:
      file.write(f'{step + 1}\\n')
"""


def ancestors(pid):
  """A process, who started it, and so on up to the first one."""
  found = []
  while pid > 1:
    found.append(pid)
    try:
      stat = Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
      break
    pid = int(stat.rsplit(')', 1)[1].split()[1])
  return found


def test_runs_of_a_lost_node_go_on_elsewhere(tmp_path, monkeypatch):
  pytest.importorskip('ray')
  from ray.cluster_utils import Cluster

  from moto_tf.grid.ray_cluster import RayLauncher

  text = TEXT.replace('online_steps: 24', 'offline_steps: 0, online_steps: 8')
  grid = load(tmp_path, 'runs', text + 'seeds: [0, 1, 2]\n')
  script = tmp_path / 'stand_in.py'
  script.write_text(STAND_IN.replace('TESTS', repr(str(ROOT / 'tests'))))
  monkeypatch.setattr(
    local,
    'command',
    lambda run: [sys.executable, str(script), *run.words],
  )
  # Ray's own is 15, which waits for everything else on a busy machine.
  monkeypatch.setenv('RAY_worker_niceness', '0')
  cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})
  node = cluster.add_node(num_cpus=1)
  cluster.wait_for_nodes()
  launcher = RayLauncher(tmp_path / 'runs', cluster.address, 1, 0)
  assert launcher.capacity() == 2
  (raylet,) = node.all_processes['raylet']
  lost = []

  def show(board):
    for label in board.running:
      owner = states.holder(board.runs[label])
      line = ancestors(owner['pid']) if owner and not lost else []
      begun = states.read(board.runs[label]).step > 1
      if begun and raylet.process.pid in line:
        lost.extend(line[: line.index(raylet.process.pid)])
        cluster.remove_node(node, allow_graceful=False)
        for pid in reversed(lost):
          # What was on the machine is gone: Ray's worker and the run.
          with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

  board = schedule.Scheduler(
    grid, schedule.look(grid), launcher, show, lambda x: time.sleep(0.2)
  ).work(StopRequest())
  cluster.shutdown()
  assert len(lost) >= 2 and not board.failed
  assert len(board.finished) == 3 and sum(board.losses.values()) == 1
  for run in grid.runs:
    steps = [int(x) for x in (run.logdir / 'steps').read_text().split()]
    # None twice: what was lost went on from its checkpoint, after which it may
    # have been killed before it wrote that down.
    assert steps == sorted({*steps}) and len(steps) >= 7
