"""Measurements in fresh interpreters.

First steps and peak memory are true only there, and software OpenGL and
TensorFlow crash in one process.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import moto_tf
from moto_tf.benchmark import BenchmarkError, progress

# The clock comes before everything else that takes time.
_CHILD = (
  'import time; begin = time.time(); import json, sys; '
  'job = json.load(sys.stdin); sys.path[:] = job["path"]; '
  'from moto_tf.benchmark.child import serve; serve(job, begin)'
)


def call(function: str, title: str, started: float, **arguments) -> dict:
  """Calls a function of this package in a fresh interpreter.

  Args:
    function: its module and name, such as steps.measure. It is called with a
      function that shows progress, a dict of the times of the spawning and of
      the child's first line, and the arguments, and returns JSON.
    title: what is measured, for progress.
    started: when the benchmark began, for progress.

  Raises:
    BenchmarkError: the child failed; stderr has its message or traceback.
  """
  job = {
    'path': sys.path,
    'function': function,
    'title': title,
    'started': started,
    'spawned': time.time(),
    'arguments': arguments,
    # Those of this process are not registered there.
    'plugins': arguments.get('config', {}).get('plugins', ''),
  }
  child = subprocess.run(
    [sys.executable, '-P', '-c', _CHILD],
    input=json.dumps(job),
    stdout=subprocess.PIPE,
    text=True,
  )
  if child.returncode:
    raise BenchmarkError(
      f'{title} could not be measured: its process {_end(child.returncode)}.'
    )
  return json.loads(child.stdout)


def serve(job: dict, begin: float) -> None:
  """Runs in the child; `begin` is the time of its first line."""
  # Libraries print; stdout is kept for the result alone.
  results = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  times = {'spawned': job['spawned'], 'begin': begin}
  module, name = job['function'].split('.')
  try:
    with moto_tf.explain_errors():
      moto_tf.load_plugins(job['plugins'])
      function = getattr(
        importlib.import_module(f'{__package__}.{module}'), name
      )
      say = progress(job['title'], job['started'])
      result = function(say, times, **job['arguments'])
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)
  with results:
    json.dump(result, results)


def _end(code):
  if code > 0:
    return f'ended with code {code}, see above'
  name = signal.Signals(-code).name
  hint = ', perhaps for lack of memory' if name == 'SIGKILL' else ''
  return f'died of {name}{hint}'
