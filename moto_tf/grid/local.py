"""Runs as processes of this machine, each on its own cores."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from moto_tf import files
from moto_tf.grid import slots
from moto_tf.grid.schedule import Ended
from moto_tf.grid.spec import GridRun

HOME = Path(__file__).resolve().parents[2]  # Of the package.
TAIL = 4096  # Bytes of output that are looked at for what went wrong.


def command(run: GridRun, python: str = sys.executable) -> list[str]:
  """The command line of a run."""
  return [python, '-m', 'moto_tf', 'train', *run.words]


def environment(cores: int) -> dict[str, str]:
  """Environment variables of a run on so many cores.

  The package is found where it lies, installed or not.
  """
  path = os.environ.get('PYTHONPATH')
  path = os.pathsep.join([str(HOME), *([path] if path else [])])
  return {**os.environ, **slots.threads(cores), 'PYTHONPATH': path}


def output_path(root: Path, label: str) -> Path:
  """File of what the processes of a run print."""
  return root / 'output' / f'{label.replace("/", "_")}.txt'


def start(
  words: Sequence[str], env: Mapping[str, str], output: Path
) -> subprocess.Popen:
  """Starts a process whose output is appended to a file.

  It is in a session of its own, so that Ctrl-C reaches it only through who
  started it.
  """
  with files.writing(output):
    output.parent.mkdir(parents=True, exist_ok=True)
    stream = output.open('ab')
  with stream:
    return subprocess.Popen(
      words,
      env=env,
      stdin=subprocess.DEVNULL,
      stdout=stream,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def explain(code: int, output: Path) -> str:
  """What a process that ended with a code said last; '' if it ended well."""
  if code == 0:
    return ''
  how = f'exit status {code}'
  if code < 0:
    how = f'ended by {signal.Signals(-code).name}'
  elif code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
    how = 'stopped by a signal'
  return f'{how}: {last_words(output)} (all of it in {output})'


def last_words(output: Path) -> str:
  """The last error in the output of a process, or its last line."""
  try:
    with output.open('rb') as stream:
      size = stream.seek(0, os.SEEK_END)
      stream.seek(max(0, size - TAIL))
      text = stream.read().decode(errors='replace')
  except OSError:
    text = ''
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  errors = [x for x in lines if re.match(r'[\w.]*(Error|Exception)\b', x)]
  return (errors or lines or ['it said nothing'])[-1]


class LocalLauncher:
  """A process per run, as many at a time as there are places."""

  def __init__(self, root: Path, places: Sequence[tuple[int, ...]]):
    """Starts nothing.

    Args:
      root: directory of the grid.
      places: cores of each process.
    """
    self._root = root
    self._places = list(places)
    self._processes = {}  # Label to process, run and place.
    self._elsewhere = []  # Runs that outlived another suite, as last seen.

  def room(self, elsewhere: list[dict]) -> bool:
    """Whether a place is free, also of runs that outlived another suite."""
    self._elsewhere = elsewhere
    return bool(self._free())

  def start(self, run: GridRun) -> None:
    """Starts the process of a run in the first free place."""
    place = (self._free() or self._places)[0]
    output = output_path(self._root, run.label)
    process = start(command(run), environment(len(place)), output)
    slots.pin(process.pid, place)
    self._processes[run.label] = process, run, place

  def ended(self) -> list[Ended]:
    """Runs whose processes have ended."""
    found = []
    for label, (process, run, _) in list(self._processes.items()):
      code = process.poll()
      if code is not None:
        del self._processes[label]
        problem = explain(code, output_path(self._root, label))
        found.append(Ended(run, problem))
    return found

  def stop(self) -> None:
    """Asks all processes to save and end."""
    for process, _, _ in self._processes.values():
      process.terminate()

  def close(self) -> None:
    """Leaves processes that are still there alone; they save by themselves."""
    self._processes = {}

  def _free(self):
    here = [x for x in self._elsewhere if x['host'] == socket.gethostname()]
    others = [slots.cores_of(x['pid']) for x in here]
    left = list(self._places)
    for _, _, place in self._processes.values():
      left.remove(place)
    for cores in others:
      taken = next((x for x in left if cores and cores <= set(x)), None)
      # One that may run anywhere takes any place.
      taken = taken or (left[0] if left and cores else None)
      if taken:
        left.remove(taken)
    return left
