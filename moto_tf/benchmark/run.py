"""The benchmark: which measurements there are and where they run."""

import datetime
import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from moto_tf.benchmark import BenchmarkError, child, data
from moto_tf.config import PATHS, Config
from moto_tf.policy import spaces_to_meta
from moto_tf.presets import load_configs
from moto_tf.training import machine

FORMAT = 1
SMALL_SET = 20  # Episodes for gradient steps, so that loading is short.
REPLAY_SET = 500
LARGE_SET = 5000


class Case(NamedTuple):
  """A configuration to measure.

  name: its presets. overrides: settings that differ from them. tf32: whether
  a GPU may multiply float32 as TF32.
  """

  name: str
  config: Config
  overrides: dict
  tf32: bool = True


def benchmark(
  cases: list[Case], parts: list[str], repeats: int, gpu: bool = False
) -> Iterator[dict]:
  """Measures every case; this process stays free of TensorFlow.

  Args:
    cases: configurations to measure.
    parts: keys of `moto_tf.benchmark.PARTS`.
    repeats: gradient steps that are timed.
    gpu: describe the GPU first.

  Yields:
    After each case all results so far, as JSON: format, date, machine, gpu if
    it was asked for, and by name of the case its overrides, settings other
    than the defaults, environment and figures by part.

  Raises:
    BenchmarkError: a measurement failed.
  """
  started = time.time()
  defaults = load_configs().defaults.flat
  runs, facts = {}, {}
  if gpu:
    facts['gpu'] = child.call('gpu.describe', 'yardsticks', started)
  for case in cases:
    settings = case.config.flat.items()
    call = functools.partial(child.call, title=case.name, started=started)
    runs[case.name] = {
      'overrides': _without_paths(case.overrides),
      'settings': _without_paths(
        {k: v for k, v in settings if v != defaults[k]}
      ),
      **_measure(call, case.config, parts, repeats, case.tf32),
    }
    yield {
      'format': FORMAT,
      'date': datetime.date.today().isoformat(),
      'machine': machine.describe(),
      **facts,
      'runs': runs,
    }


def _measure(call, config, parts, repeats, tf32):
  """Environment and figures of one configuration."""
  figures, environment, flat = {}, {}, config.flat
  learning = [p for p in parts if p in ('peak', 'first', 'step', 'policy')]
  if set(parts) - {'simulator'}:
    spaces = data.task_spaces(config)
    meta = spaces_to_meta(*spaces)
  with tempfile.TemporaryDirectory() as directory:

    def call_with(function, count, **arguments):
      path = data.write_episodes(Path(directory, str(count)), count, *spaces)
      arguments |= {'config': flat, 'spaces': meta, 'episodes': str(path)}
      return call(function, **arguments)

    if learning:
      asked = {'parts': learning, 'repeats': repeats, 'tf32': tf32}
      result = call_with('steps.measure', SMALL_SET, **asked)
      figures, environment = result['figures'], result['environment']
    if 'replay' in parts:
      figures['replay'] = replay = call_with('data.measure', REPLAY_SET)
      if 'step' in figures:
        replay['batches_per_gradient_step'] = (
          replay['batches_per_second'] * figures['step']['median_seconds']
        )
    if 'replay_large' in parts:
      figures['replay_large'] = call_with('data.measure', LARGE_SET, large=True)
  if 'simulator' in parts:
    try:
      figures['simulator'] = call('simulator.measure', config=flat)
    except BenchmarkError as error:
      # Drivers of OpenGL may end the process.
      figures['simulator'] = {'remarks': [str(error)]}
  return {'environment': environment, 'figures': figures}


def _without_paths(settings):
  return {
    k: list(v) if isinstance(v, tuple) else v
    for k, v in settings.items()
    if k not in PATHS
  }
