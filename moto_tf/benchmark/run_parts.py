"""What a run would take, measured in a process like that of the run."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence

from moto_tf.config import Config


def measure(
  say: Callable[[str], None],
  times: dict[str, float],
  config: dict,
  cores: Sequence[int],
  threads: dict[str, str],
) -> dict:
  """Measures the parts of a run, see `moto_tf.training.forecast`.

  Args:
    say: shows progress.
    times: when this process was spawned.
    config: flat settings.
    cores: to run on; none: any.
    threads: environment variables that say how many threads to use.

  Returns:
    The fields of `Measured`, and `startup`, the seconds beside them.
  """
  # Before TensorFlow counts the cores.
  os.environ.update(threads)
  if cores and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, cores)
  from moto_tf.training import forecast, rundir

  config = Config(config)
  offline = rundir.offline_dir(config, config.path('logdir'))
  if offline is not None and not any(offline.glob('*.npz')):
    offline = None
  say('a few steps')
  found = forecast.measure(config, offline)
  known = found.first + forecast.STEPS * found.step
  known += 2 * (found.episode + found.report) + found.save
  startup = max(0.0, time.time() - times['spawned'] - known)
  return {**dataclasses.asdict(found), 'startup': startup}
