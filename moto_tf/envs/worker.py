"""An environment in a process of its own.

The process is a fresh interpreter that imports what the environment needs and
nothing else: neither TensorFlow nor the script that is running. It ends when
its pipe closes, so also when the parent dies.
"""

import contextlib
import json
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import cloudpickle
import numpy as np

from moto_tf.errors import MotoError

# Imports with the paths of the parent, also when the package is not installed.
_CHILD = (
  'import json, sys; sys.path[:] = json.loads(sys.argv[2]); '
  'from moto_tf.envs.worker import serve; serve(int(sys.argv[1]))'
)


class WorkerError(MotoError, RuntimeError):
  """A worker process failed; the message holds its traceback or exit code.

  Attributes:
    error: the exception that the environment raised, if it is known.
  """

  def __init__(self, message: str, error: Exception | None = None):
    super().__init__(message)
    self.error = error


class EnvWorker:
  """The protocol of `moto_tf.envs` for an environment in another process.

  `reset_async` or `step_async` starts, `result` waits for the record, so that
  several workers compute at the same time. After a WorkerError only `restart`
  and `close` are of use.

  Attributes:
    process: the subprocess.Popen of the worker.
    busy: a record is outstanding, or the worker has failed.
  """

  def __init__(self, make_env: Callable):
    """Starts the process without waiting for it.

    Args:
      make_env: makes the environment; pickled with cloudpickle, so functions
        of a script or notebook work too.
    """
    self._make = cloudpickle.dumps(make_env)
    self._start()

  @property
  def obs_space(self) -> dict:
    return self._wait_ready()[0]

  @property
  def act_space(self):
    return self._wait_ready()[1]

  @property
  def action_repeat(self) -> int:
    return self._wait_ready()[2]

  def reset(self, seed: int) -> dict:
    self.reset_async(seed)
    return self.result()

  def step(self, action: np.ndarray) -> dict:
    self.step_async(action)
    return self.result()

  def reset_async(self, seed: int) -> None:
    """Starts an episode; `result` gives its first record."""
    self._send('reset', int(seed))

  def step_async(self, action: np.ndarray) -> None:
    """Starts a step; `result` gives the next record."""
    self._send('step', action)

  def result(self) -> dict:
    """Waits for the record of the call before.

    Raises:
      WorkerError: the environment raised an exception, or the process died.
    """
    self._wait_ready()
    record = self._receive()
    self.busy = False
    return record

  def restart(self) -> None:
    """Replaces the process by a new one with a new environment."""
    self.close()
    self._start()

  def close(self) -> None:
    """Ends the process."""
    self._pipe.close()
    try:
      # A busy worker finishes its step first; a hanging one is not waited for.
      self.process.wait(timeout=5)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()

  def _start(self):
    self._pipe, theirs = Pipe()
    self._ready, self.busy = None, False
    command = [sys.executable, '-P', '-c', _CHILD, str(theirs.fileno())]
    paths = [str(p) for p in sys.path]
    with theirs:
      self.process = subprocess.Popen(
        [*command, json.dumps(paths)],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        # Ctrl-C in a terminal goes to the session of the parent.
        start_new_session=True,
      )
    self._send('make', self._make)
    self.busy = False

  def _wait_ready(self):
    if self._ready is None:
      self._ready = self._receive()
    return self._ready

  def _send(self, name, argument):
    self.busy = True
    # A dead process is reported by `result`, which knows how it ended.
    with contextlib.suppress(ConnectionError):
      self._pipe.send((name, argument))

  def _receive(self):
    try:
      kind, value = self._pipe.recv()
    except (EOFError, ConnectionResetError):
      self.busy = True
      raise WorkerError(self._cause_of_death()) from None
    if kind == 'result':
      return value
    self.busy = True
    text, error = value
    raise WorkerError(
      f'The environment failed in its worker process:\n{text}', _load(error)
    )

  def _cause_of_death(self):
    try:
      code = self.process.wait(timeout=5)
    except subprocess.TimeoutExpired:
      return 'The environment closed the pipe of its worker process.'
    if code >= 0:
      return f'The worker process of an environment ended with code {code}.'
    name = signal.Signals(-code).name
    hint = ', perhaps for lack of memory' if name == 'SIGKILL' else ''
    return f'The worker process of an environment died of {name}{hint}.'


def serve(fd: int) -> None:
  """Runs in the worker process: answers calls until the pipe closes."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  pipe, env = Connection(fd), None
  try:
    while True:
      name, argument = pipe.recv()
      try:
        if name == 'make':
          env = pickle.loads(argument)()
          value = env.obs_space, env.act_space, env.action_repeat
        else:
          value = getattr(env, name)(argument)
      except Exception as error:
        pipe.send(('error', (traceback.format_exc(), _dump(error))))
        return
      pipe.send(('result', value))
  except (EOFError, ConnectionError):
    # The parent closed the pipe or is gone; there is nothing left to do.
    return
  finally:
    if env is not None:
      env.close()


def _dump(error):
  try:
    return cloudpickle.dumps(error)
  except Exception:
    # Exceptions may hold anything; the traceback is sent in any case.
    return None


def _load(data):
  try:
    return pickle.loads(data) if data else None
  except Exception:
    # The parent may lack the module of the exception.
    return None
