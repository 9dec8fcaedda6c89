"""Gradient steps and policy, measured in a process that starts for them."""

import collections
import time
from collections.abc import Callable, Iterator

import numpy as np

from moto_tf.agents import METHODS
from moto_tf.benchmark import OTHER, SCOPES, BenchmarkError, flops
from moto_tf.benchmark.data import open_replay
from moto_tf.config import Config
from moto_tf.data.prefetch import Prefetcher
from moto_tf.policy import spaces_from_meta
from moto_tf.registry import resolve
from moto_tf.training import machine, rundir

WARM_UP = 2
LAST = 50  # Steps before the end of a run, where they are measured.
PROFILED = 3
POLICY_WARM_UP = 10
POLICY_CALLS = 200
UNSTEADY = (
  'The speed of this machine changed by more than a fifth while it was '
  'measured; do not trust small differences, and measure again when it is idle.'
)


def measure(
  say: Callable[[str], None],
  times: dict[str, float],
  config: dict,
  spaces: dict,
  episodes: str,
  parts: list[str],
  repeats: int,
  tf32: bool = True,
) -> dict:
  """Measures the parts peak, first, step and policy.

  Args:
    say: shows progress.
    times: when this process was spawned and when its first line ran.
    config: flat settings.
    spaces: of `policy.spaces_to_meta`.
    episodes: directory of offline episodes.
    parts: what to measure.
    repeats: gradient steps that are timed.
    tf32: whether a GPU may multiply float32 as TF32.

  Returns:
    figures by part, and the environment they were measured in.
  """
  lap = Laps(times['spawned'])
  lap('interpreter', times['begin'])
  lap('import_moto_tf')
  say('imports')
  # Brings TensorFlow, with the settings that come before its import.
  from moto_tf.nn import tfutils

  tfutils.allow_tf32(tf32)
  lap('import_tensorflow')
  config = Config(config)
  spaces = spaces_from_meta(spaces)
  make = resolve(METHODS[config.method].make)
  lap('import_agent')
  agent = make(config, *spaces)
  lap('build')
  figures, learner = {}, None
  if 'first' in parts or 'step' in parts:
    say('first gradient step')
    held = {k: spaces[0][k] for k in agent.obs_keys}
    replay = open_replay(config, episodes, held, spaces[1])
    learner = Learner(agent, config, replay)
    figures['first'] = first(learner, lap)
  peaks = []
  if 'peak' in parts:
    say('matrix products')
    peaks.append(machine.matmul_gflop_per_second())
  if 'step' in parts:
    say(f'{repeats} gradient steps')
    figures['step'] = steady(learner, repeats) | machine.memory()
    records = config.replay.batch * config.replay.length
    rate = records / figures['step']['median_seconds']
    figures['step']['records_per_second'] = rate
  if 'peak' in parts:
    say('matrix products')
    peaks.append(machine.matmul_gflop_per_second())
    figures['peak'] = {
      'before_gflop_per_second': peaks[0],
      'after_gflop_per_second': peaks[1],
      'gflop_per_second': max(peaks),
    }
    if max(peaks) > 1.2 * min(peaks):
      figures['peak']['remarks'] = [UNSTEADY]
  if 'step' in parts:
    say('profile')
    figures['step'] |= contents(learner, figures)
  if learner:
    traces = learner.traces()
    figures['first']['traces'] = traces
    if max(traces.values()) > 1:
      figures['first']['remarks'] = ['Data alone caused a second trace.']
    learner.close()
  if 'policy' in parts:
    say('policy')
    figures['policy'] = policy(agent)
  return {'figures': figures, 'environment': machine.environment(config)}


class Laps:
  """Seconds between events, by name."""

  def __init__(self, begin: float):
    self.seconds = {}
    self._begin = self._last = begin

  def __call__(self, name: str, now: float | None = None) -> None:
    """Names the time since the last event; `now` is in time.time()."""
    now = now or time.time()
    self.seconds[f'{name}_seconds'] = now - self._last
    self.seconds['total_seconds'] = now - self._begin
    self._last = now


class Learner:
  """Gradient steps as the command train takes them at the end of a run.

  By then everything learns that is to learn at all, see `moto.model_start`.

  Attributes:
    graphs: by function of the gradient step, once it is traced; none if it
      runs eagerly.
    rows: by function the size of what its graph leaves open, if anything.
  """

  def __init__(self, agent, config: Config, replay):
    self.graphs = {}
    self.rows = {}
    self._agent = agent
    self._config = config
    self._prefetcher = Prefetcher(replay, config.replay.prefetch)
    self._step = self._first = max(0, rundir.total_steps(config) - LAST)
    self._batch = self._prefetcher.get(self._step)

  def trace(self) -> Iterator[str]:
    """Traces what the first step would trace; yields names when it is done."""
    if self._config.eager:
      return
    for name, graph, rows in self._agent.traces(self._batch):
      self.graphs[name] = graph
      if rows is not None:
        self.rows[name] = rows
      yield name

  def traces(self) -> dict[str, int]:
    """How often each function was traced, for any data; once is right."""
    return {
      name: function.experimental_get_tracing_count()
      for name, function in self._agent.functions.items()
    }

  def step(self) -> None:
    """Takes a gradient step and waits for its result."""
    if self._step > self._first:
      self._batch = self._prefetcher.get(self._step)
    self._agent.train(self._batch, self._step)
    self._step += 1

  def clocks(self) -> dict[str, float]:
    """Seconds so far: of the wall, by part of the step, of the processor."""
    return {
      'step': time.perf_counter(),
      'data_wait': self._prefetcher.wait,
      'train': self._agent.seconds,
      'cpu': time.process_time(),
    }

  def close(self) -> None:
    """Ends the thread that prepares batches."""
    self._prefetcher.close()


def first(learner: Learner, lap: Laps) -> dict[str, float]:
  """Seconds until the first gradient step is done, and of the second."""
  lap('data')
  for name in learner.trace():
    lap(f'trace_{name}')
  learner.step()
  lap('compile_and_run')
  figures = dict(lap.seconds)
  figures['total_seconds'] = figures.pop('total_seconds')  # The last of them.
  begin = time.perf_counter()
  learner.step()
  return figures | {'second_step_seconds': time.perf_counter() - begin}


def steady(learner: Learner, repeats: int) -> dict[str, float]:
  """Medians of gradient steps, of their parts and of processor time."""
  for _ in range(WARM_UP):
    learner.step()
  rows = collections.defaultdict(list)
  for _ in range(repeats):
    before = learner.clocks()
    learner.step()
    for key, value in learner.clocks().items():
      rows[key].append(value - before[key])
  wall, busy = rows.pop('step'), sum(rows['cpu'])
  return {
    'repeats': repeats,
    'median_seconds': float(np.median(wall)),
    'min_seconds': min(wall),
    'max_seconds': max(wall),
    **{f'{k}_seconds': float(np.median(v)) for k, v in rows.items()},
    'cores_busy': busy / sum(wall),
  }


def contents(learner: Learner, figures: dict) -> dict:
  """FLOP of a gradient step and their speed, shares of scopes and ops.

  Args:
    figures: `step` so far, and `peak` if it was measured.
  """
  from moto_tf.benchmark.profile import profile

  seconds = figures['step']['median_seconds']
  result = profile(learner.step, PROFILED)
  counts = collections.Counter()
  try:
    for name, graph in learner.graphs.items():
      counts += flops.count(graph, learner.rows.get(name))
  except BenchmarkError as error:
    counts.clear()
    result['remarks'].append(str(error))
  gflop = {k: v / 1e9 for k, v in counts.items()}
  if gflop:
    result['gflop'] = sum(gflop.values())
    result['gflop_per_second'] = result['gflop'] / seconds
  if gflop and 'peak' in figures:
    peak = figures['peak']['gflop_per_second']
    result['share_of_peak'] = result['gflop_per_second'] / peak
  shares, scopes = result.pop('shares'), {}
  for scope in (*SCOPES, OTHER):
    row = scopes.setdefault(scope, {})
    if share := shares.get(scope):
      row |= {'seconds': share * seconds, 'share': share}
    if scope in gflop:
      row['gflop'] = gflop[scope]
  result['scopes'] = {scope: row for scope, row in scopes.items() if row}
  return result


def policy(agent) -> dict[str, float]:
  """Latency of one action for one observation, by mode."""
  rng = np.random.default_rng(0)
  figures = {}
  for mode in ('eval', 'train'):
    state, seconds = None, []
    for step in range(POLICY_WARM_UP + POLICY_CALLS):
      obs = {
        k: rng.integers(0, 256, (1, *v.shape)).astype(v.dtype)
        for k, v in agent.obs_space.items()
      }
      obs['is_first'] = np.array([step == 0])
      lanes = np.array([0]), np.array([step])
      begin = time.perf_counter()
      _, state = agent.policy(obs, state, lanes, mode)
      seconds.append(time.perf_counter() - begin)
    median, late = np.percentile(seconds[POLICY_WARM_UP:], [50, 95]) * 1e3
    figures[f'{mode}_median_ms'] = float(median)
    figures[f'{mode}_95th_percentile_ms'] = float(late)
  return figures
