"""Kills a small run where it writes, continues it, and compares the end.

Sessions are forks of this process, which has loaded TensorFlow and not used it
yet. In a fork, an audit hook of Python hears of every write below the log
directory before it happens, and kills the process there: before it, or when a
part of the content is there. A kill before one write is a kill after the last.
"""

import collections
import importlib
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box

from moto_tf import startup
from moto_tf.config import Config
from moto_tf.data.episodes import find_episodes, load_episode
from moto_tf.envs.base import Env
from moto_tf.errors import MotoError
from moto_tf.training import rows
from moto_tf.training.checkpoint import Checkpoints

KILLS_PER_RUN = 5
WRITES = os.O_WRONLY | os.O_RDWR
# A part of a row, of an array or of a record of events.
PART = b'{"gradient_step": 1'
# What two runs need not have in common: times, where they lie, and what kills
# leave on record.
TIMES = r'(time|memory)/.*|time|seconds|counters/time|config|about'
FILES = r'events\..*|.*-old-\d+\..*|(.*/)?superseded/.*|sessions\.json'
# What TensorBoard is told by every session, and shows once.
ONCE_PER_SESSION = ('_hparams_', 'custom_scalars_')


class SoakError(MotoError, RuntimeError):
  """A run did not survive; the message says where."""


class Line(Env):
  """A point on a line to be moved to a goal, with an image and a state."""

  def __init__(self):
    spaces = {
      'image': Box(0, 255, (16, 16, 3), np.uint8),
      'state': Box(-2, 2, (2,), np.float32),
    }
    super().__init__(spaces, 1, time_limit=6)

  def _reset(self, seed):
    rng = np.random.default_rng(seed)
    self._state = rng.uniform(-1, 1, 2).astype(np.float32)
    return self._observe()

  def _step(self, action):
    self._state[0] = np.clip(self._state[0] + 0.3 * action[0], -2, 2)
    near = abs(self._state[0] - self._state[1]) < 0.1
    return self._observe(), float(near), False, False, near

  def _observe(self):
    image = np.zeros((16, 16, 3), np.uint8)
    for channel, place in enumerate(self._state):
      image[:, int(4 * place + 8) % 16, channel] = 255
    return {'image': image, 'state': self._state.copy()}


def soak(
  config: Config, kills: int, seed: int = 0, show: Callable = print
) -> list[str]:
  """Kills runs of an environment of its own, five times each.

  Args:
    config: of the runs; their log directories are temporary.
    kills: in total.
    seed: of the moments.
    show: called with a line of each kill and comparison.

  Returns:
    One line per kill.

  Raises:
    SoakError: a run did not go on, or ended otherwise than one that was not
      killed.
  """
  with startup.quiet():
    # Once for all sessions, and without the start of its threads.
    importlib.import_module('moto_tf.nn')
  with tempfile.TemporaryDirectory() as root:
    whole, log = Path(root) / 'whole', Path(root) / 'moments'
    _finish(config, whole, log)
    moments = collections.Counter(log.read_text().splitlines())
    targets = _targets(moments, np.random.default_rng(seed))
    lines = []
    for number in itertools.count():
      logdir = Path(root) / f'{number}'
      left = min(KILLS_PER_RUN, kills - len(lines))
      for count in range(left):
        what, how, which = next(targets)
        # Of a run that goes on, nobody knows how often it is still to come.
        which = 1 if count else which
        begin = time.monotonic()
        status = _session(config, logdir, (what, how, which))
        if status == 0:
          break  # It had no such moment any more.
        if status != -signal.SIGKILL:
          _explain(logdir, status)
        seconds = time.monotonic() - begin
        lines.append(f'run {number}, {how} {what} ({which}), {seconds:.0f} s')
        show(f'{len(lines)}/{kills} {lines[-1]}')
      _finish(config, logdir)
      if problems := differences(whole, logdir):
        raise SoakError(f'Run {number} differs: {"; ".join(problems)}.')
      show(f'run {number}: equal, nothing left over')
      if len(lines) == kills:
        return lines


def differences(whole: Path, other: Path) -> list[str]:
  """Where a run ended otherwise than another one, [] if nowhere."""
  found = []
  names = [_names(path) for path in (whole, other)]
  if names[0] != names[1]:
    found.append(f'files {sorted(names[0] ^ names[1])}')
  parts = {
    'checkpoint': _checkpoint,
    'metrics.jsonl': lambda path: _rows(path / 'metrics.jsonl'),
    'evaluations.jsonl': lambda path: _rows(path / 'evaluations.jsonl'),
    'episodes': _episodes,
    'videos': lambda path: [x.read_bytes() for x in _all(path / 'videos')],
    'TensorBoard': _events,
    'TensorBoard by env step': lambda path: _events(path / 'env_steps'),
  }
  for name, read in parts.items():
    try:
      np.testing.assert_equal(read(other), read(whole))
    except AssertionError as error:
      found.append(f'{name}: {" ".join(str(error).split())[:300]}')
  return found


# Sessions.


def _finish(config, logdir, log=None):
  status = _session(config, logdir, log=log)
  if status:
    _explain(logdir, status)


def _explain(logdir, status):
  text = logdir.with_suffix('.txt').read_text()[-2000:]
  raise SoakError(f'A session ended with {status} instead:\n{text}')


def _session(config, logdir, target=None, log=None):
  """Exit status of a session, negative for a signal."""
  sys.stdout.flush()
  pid = os.fork()
  if pid:
    try:
      return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
      os.kill(pid, signal.SIGKILL)
      raise
  status = 1
  try:
    output = os.open(logdir.with_suffix('.txt'), os.O_WRONLY | os.O_CREAT)
    os.ftruncate(output, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from moto_tf.training.algorithm import train

    sys.addaudithook(_Hook(logdir, target, log).hear)
    train(config.update(logdir=str(logdir)), make_env=Line)
    status = 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    os._exit(status)


class _Hook:
  """Hears of writes below a directory, and kills the process at one."""

  def __init__(self, directory, target, log):
    self._directory, self._target, self._log = str(directory), target, log
    self._counts, self._deaf = collections.Counter(), False

  def hear(self, event, args):
    """The audit hook."""
    if self._deaf or event not in ('open', 'os.rename', 'os.remove'):
      return
    if event == 'open':
      path, mode, flags = args
      if not (flags & WRITES if mode is None else {*mode} & {*'wax+'}):
        return
    else:
      # A rename is told by where it leads.
      path = args[1] if event == 'os.rename' else args[0]
    if not str(path).startswith(self._directory + os.sep):
      return
    path = Path(path)
    name = path.relative_to(self._directory).as_posix()
    if 'tfevents' in name:
      name = Path(name).with_name('events').as_posix()
    what = f'{event.removeprefix("os.")} {re.sub("[0-9]+", "N", name)}'
    self._counts[what] += 1
    self._deaf = True
    if self._log:
      with self._log.open('a') as file:
        file.write(what + '\n')
    if self._target:
      name, how, which = self._target
      if (name, which) == (what, self._counts[what]):
        if how == 'within':
          begin = path.read_bytes()[: len(PART)] if path.exists() else PART
          with path.open('ab') as file:
            file.write(begin)
        os.kill(os.getpid(), signal.SIGKILL)
    self._deaf = False


def _targets(moments, rng) -> Iterator[tuple[str, str, int]]:
  """Moments without end, each kind of them before another comes twice."""
  kinds = [(what, 'before') for what in sorted(moments)]
  kinds += [(what, 'within') for what, _ in kinds if what.startswith('open')]
  while True:
    for index in rng.permutation(len(kinds)):
      what, how = kinds[index]
      yield what, how, int(rng.integers(1, moments[what] + 1))


# What is compared.


def _all(directory):
  return sorted(p for p in directory.rglob('*') if p.is_file())


def _names(logdir):
  names = {path.relative_to(logdir).as_posix() for path in _all(logdir)}
  return {
    name
    for name in names
    if not re.fullmatch(FILES, name) and 'tfevents' not in name
  }


def _checkpoint(logdir):
  arrays, meta, path = Checkpoints(logdir / 'checkpoints', 1).load()
  return arrays, meta, path.name


def _rows(path):
  found, remarks = rows.read(path)
  timeless = [
    {k: v for k, v in row.items() if not re.fullmatch(TIMES, k)}
    for row in found
  ]
  return json.dumps(timeless), remarks


def _episodes(logdir):
  paths = find_episodes(logdir / 'episodes')
  return [(path.name, load_episode(path)) for path in paths]


def _events(directory):
  """What TensorBoard shows, as step and value by tag."""
  # It tells of every restart, which is what this is about.
  with startup.quiet():
    from tensorboard.backend.event_processing import plugin_event_accumulator
    from tensorboard.util import tensor_util

    events = plugin_event_accumulator.EventAccumulator(
      str(directory), size_guidance={'tensors': 0}
    )
    events.Reload()
  return {
    tag: [
      (x.step, tensor_util.make_ndarray(x.tensor_proto).tolist())
      for x in events.Tensors(tag)
    ]
    for tag in sorted(events.Tags()['tensors'])
    if not re.fullmatch(TIMES, tag) and not tag.startswith(ONCE_PER_SESSION)
  }
