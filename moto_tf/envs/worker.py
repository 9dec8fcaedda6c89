"""Objects in processes of their own, such as environments.

The process is a fresh interpreter that imports what the object needs and
nothing else: neither TensorFlow nor the script that is running. It ends when
its pipe closes, so also when the parent dies.
"""

import contextlib
import json
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
from gymnasium.spaces import Box

from moto_tf.errors import MotoError

# Seconds that a call may take, and the making of an object, which imports a
# simulator: a worker that takes longer was stopped or hangs.
TIMEOUT, START = 600.0, 600.0
# Seconds between two looks at whether to stop, while a worker is waited for.
GLANCE = 0.5
# Seconds that a worker has to leave by itself.
GRACE = 3.0

# Imports with the paths of the parent, also when the package is not installed.
_CHILD = (
  'import json, sys; sys.path[:] = json.loads(sys.argv[2]); '
  'from moto_tf.envs.worker import serve; serve(int(sys.argv[1]))'
)


class WorkerError(MotoError, RuntimeError):
  """A worker process failed; the message holds its traceback or exit code.

  Attributes:
    error: the exception that was raised there, if it is known.
  """

  def __init__(self, message: str, error: Exception | None = None):
    super().__init__(message)
    self.error = error


class Worker:
  """An object in another process, whose methods are called one at a time.

  `send` starts a call and `result` waits for what it returns, so that several
  workers compute at the same time. After a WorkerError only `restart` and
  `close` are of use.

  Attributes:
    process: the subprocess.Popen of the worker.
    busy: a result is outstanding, or the worker has failed.
  """

  def __init__(
    self,
    make: Callable,
    name: str,
    attributes: tuple[str, ...] = (),
    timeout: float = TIMEOUT,
    check: Callable[[], None] | None = None,
  ):
    """Starts the process without waiting for it.

    Args:
      make: makes the object, which has `close()`; pickled with cloudpickle, so
        functions of a script or notebook work too.
      name: what the object is, for messages.
      attributes: those of the object that `attribute` returns.
      timeout: seconds that a call may take; 0: any time.
      check: called now and then while a result is waited for; what it raises
        ends the waiting.
    """
    self._make = cloudpickle.dumps(make)
    self._name, self._attributes = name, attributes
    self._timeout, self._check = timeout, check
    self._start()

  def attribute(self, name: str) -> Any:
    """An attribute as it was when the object was made."""
    return self._wait_ready()[name]

  def ready(self) -> bool:
    """Waits until the object is made; False where `result` says why it is not.

    Before that, `send` does not return if what it sends is more than the pipe
    holds, and nobody looks at whether to stop.
    """
    try:
      self._wait_ready()
    except WorkerError:
      return False
    return True

  def send(self, method: str, argument: Any) -> None:
    """Starts a call; `result` gives what it returns."""
    self.busy = True
    # A dead process is reported by `result`, which knows how it ended.
    with contextlib.suppress(ConnectionError):
      self._pipe.send((method, argument))

  def result(self) -> Any:
    """Waits for the call before.

    Raises:
      WorkerError: the object raised an exception, or the process died, or it
        took too long.
    """
    self._wait_ready()
    value = self._receive(self._timeout)
    self.busy = False
    return value

  def restart(self) -> None:
    """Replaces the process by a new one with a new object."""
    self.close()
    self._start()

  def leave(self) -> None:
    """Tells the process to end; `close` waits for it."""
    if not self._pipe.closed:
      self._pipe.close()
      self._left = time.monotonic()

  def close(self) -> None:
    """Ends the process."""
    self.leave()
    try:
      # A busy worker finishes its step first; a hanging one is not waited for.
      self.process.wait(max(0, self._left + GRACE - time.monotonic()))
    except subprocess.TimeoutExpired:
      self._kill()

  def _start(self):
    self._pipe, theirs = Pipe()
    self._ready, self._unmade, self.busy = None, None, False
    # A plain poll, since that of the pipe makes a selector each time.
    self._poll = select.poll()
    self._poll.register(self._pipe.fileno(), select.POLLIN)
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
    self.send('make', (self._make, self._attributes))
    self.busy = False

  def _wait_ready(self):
    if self._unmade:
      raise self._unmade
    if self._ready is None:
      try:
        self._ready = self._receive(self._timeout and max(self._timeout, START))
      except WorkerError as error:
        self._unmade = error
        raise
    return self._ready

  def _receive(self, timeout):
    self._wait(timeout)
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
      f'The {self._name} failed in its worker process:\n{text}', _load(error)
    )

  def _wait(self, timeout):
    """Until there is something to receive."""
    glance = min(GLANCE, timeout) if timeout else GLANCE
    # The looks are counted, since a clock goes on while both are stopped.
    looks = 0
    while not self._poll.poll(1e3 * glance):
      looks += 1
      if self._check:
        self._check()
      if timeout and looks * glance >= timeout:
        self.busy = True
        self._kill()
        raise WorkerError(
          f'The worker process {self.process.pid} of the {self._name} did not '
          f'answer for {timeout:g} s, because it was stopped or hangs. It was '
          'ended.'
        )

  def _kill(self):
    self.process.kill()
    # One that waits for a device or a file system cannot be ended.
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(GRACE)

  def _cause_of_death(self):
    try:
      code = self.process.wait(timeout=5)
    except subprocess.TimeoutExpired:
      return f'The {self._name} closed the pipe of its worker process.'
    if code >= 0:
      return f'The worker process of the {self._name} ended with code {code}.'
    name = signal.Signals(-code).name
    hint = ', perhaps for lack of memory' if name == 'SIGKILL' else ''
    return f'The worker process of the {self._name} died of {name}{hint}.'


class EnvWorker(Worker):
  """The protocol of `moto_tf.envs` for an environment in another process."""

  def __init__(
    self,
    make_env: Callable,
    timeout: float = TIMEOUT,
    check: Callable[[], None] | None = None,
  ):
    """Starts the process without waiting for it; see Worker."""
    attributes = ('obs_space', 'act_space', 'action_repeat')
    super().__init__(make_env, 'environment', attributes, timeout, check)

  @property
  def obs_space(self) -> dict:
    return self.attribute('obs_space')

  @property
  def act_space(self) -> Box:
    return self.attribute('act_space')

  @property
  def action_repeat(self) -> int:
    return self.attribute('action_repeat')

  def reset(self, seed: int) -> dict:
    self.reset_async(seed)
    return self.result()

  def step(self, action: np.ndarray) -> dict:
    self.step_async(action)
    return self.result()

  def reset_async(self, seed: int) -> None:
    """Starts an episode; `result` gives its first record."""
    self.send('reset', int(seed))

  def step_async(self, action: np.ndarray) -> None:
    """Starts a step; `result` gives the next record."""
    self.send('step', action)


def serve(fd: int) -> None:
  """Runs in the worker process: answers calls until the pipe closes."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  pipe, target = Connection(fd), None
  try:
    while True:
      name, argument = pipe.recv()
      try:
        if name == 'make':
          make, attributes = argument
          target = pickle.loads(make)()
          value = {key: getattr(target, key) for key in attributes}
        else:
          value = getattr(target, name)(argument)
      except Exception as error:
        pipe.send(('error', (traceback.format_exc(), _dump(error))))
        return
      pipe.send(('result', value))
  except (EOFError, ConnectionError):
    # The parent closed the pipe or is gone; there is nothing left to do.
    return
  finally:
    if target is not None:
      target.close()


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
