"""Runs as tasks of a Ray cluster, which need one log directory for all."""

import os
import sys
from pathlib import Path

from moto_tf.grid import GridError, local, slots
from moto_tf.grid.schedule import Ended
from moto_tf.grid.spec import GridRun


def _train(words, env, output):
  """A run, in a worker of Ray; '' or what went wrong.

  If the task is cancelled, the run is asked to save, and waited for.
  """
  env = {**os.environ, **env}
  process = local.start([sys.executable, *words], env, Path(output))
  try:
    code = process.wait()
  except KeyboardInterrupt:
    process.terminate()
    code = process.wait()
  return local.explain(code, Path(output))


class RayLauncher:
  """A task of Ray per run, placed where its cores and GPUs are free.

  The log directory and the package have the same place on all nodes. A node
  that is lost takes its tasks with it; their runs are started again elsewhere,
  from their checkpoints.
  """

  def __init__(self, root: Path, address: str, cores: int, gpus: float):
    """Connects to a cluster, or starts one on this machine.

    Args:
      root: directory of the grid.
      address: of the cluster, as of ray.init; '' starts one here.
      cores: of each run.
      gpus: of each run.

    Raises:
      GridError: Ray is not installed, there is no such cluster, or no run
        fits into it.
    """
    self._ray = ray = _import_ray()
    self._root, self._cores, self._gpus = root.absolute(), cores, gpus
    names = ('PYTHONPATH', 'MUJOCO_GL')
    env = local.environment(cores)
    passed = {name: env[name] for name in names if name in env}
    try:
      ray.init(
        address or 'local',
        runtime_env={'env_vars': passed},
        log_to_driver=False,
      )
    except (ConnectionError, ValueError, RuntimeError) as error:
      raise GridError(
        f'There is no Ray cluster at {address or "this machine"}: {error}. '
        'Give the address that `ray start --head` has printed, or --ray alone.'
      ) from None
    self._env = {**slots.threads(cores), **passed}
    self._task = ray.remote(
      num_cpus=cores, num_gpus=gpus, max_retries=0, scheduling_strategy='SPREAD'
    )(_train)
    self._tasks = {}  # Reference of a task to its run.
    if not self._fitting():
      found = ray.cluster_resources()
      ray.shutdown()
      raise GridError(
        f'A run needs {cores} cores and {gpus:g} GPUs, and the cluster has '
        f'{found.get("CPU", 0):g} and {found.get("GPU", 0):g} in all.'
      )

  def capacity(self) -> int:
    """Runs at a time, at least 1."""
    return max(1, self._fitting())

  def room(self, elsewhere: list[dict]) -> bool:
    """Whether the cluster has room for another run."""
    return len(self._tasks) + len(elsewhere) < self.capacity()

  def start(self, run: GridRun) -> None:
    """Hands a run to the cluster."""
    words = local.command(run)[1:]  # Its Python is that of the node.
    output = str(local.output_path(self._root, run.label))
    self._tasks[self._task.remote(words, self._env, output)] = run

  def ended(self) -> list[Ended]:
    """Runs whose tasks have ended, or were lost with their node."""
    if not self._tasks:
      return []
    tasks = list(self._tasks)
    done, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
    return [self._end(task) for task in done]

  def stop(self) -> None:
    """Asks all runs to save and end."""
    for task in self._tasks:
      self._ray.cancel(task, force=False)

  def close(self) -> None:
    """Leaves the cluster, or ends the one that was started here."""
    self._ray.shutdown()

  def _end(self, task):
    run, errors = self._tasks.pop(task), self._ray.exceptions
    try:
      return Ended(run, self._ray.get(task))
    except errors.TaskCancelledError:
      return Ended(run, 'stopped')
    except (errors.RayTaskError, errors.OutOfMemoryError) as error:
      return Ended(run, str(error).strip().splitlines()[-1])
    except errors.RayError as error:
      return Ended(run, str(error).strip().splitlines()[0], lost=True)

  def _fitting(self):
    found = self._ray.cluster_resources()
    counts = [found.get('CPU', 0) // self._cores]
    counts += [found.get('GPU', 0) // self._gpus] if self._gpus else []
    return int(min(counts))


def _import_ray():
  try:
    import ray
  except ImportError as error:
    raise GridError(
      f'--ray needs Ray ({error}). Install it with: pip install '
      "'moto_tf[ray]', or pip install ray."
    ) from None
  return ray
