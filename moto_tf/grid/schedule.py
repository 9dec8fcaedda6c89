"""Starts the runs of a grid, watches them, and goes on where they were."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from moto_tf.grid import state as states
from moto_tf.grid.spec import Grid, GridRun
from moto_tf.grid.state import RunState
from moto_tf.signals import StopRequest

# A run that failed is tried again as often.
RETRIES = 1
# As often its machine may be lost, which may be the run's doing after all.
LOSSES = 5
# Seconds between two looks at the runs.
GLANCE = 1.0
# And between two looks at how far they are.
LOOK = 5.0


class Ended(NamedTuple):
  """How a process of a run ended.

  Attributes:
    run: whose.
    problem: '' if it ended well, else what it said last.
    lost: the machine it was on is gone, which is no failure of the run.
  """

  run: GridRun
  problem: str = ''
  lost: bool = False


class Launcher(Protocol):
  """Starts processes of runs, on this machine or on others."""

  def room(self, elsewhere: list[dict]) -> bool:
    """Whether another run can be started, beside those of other owners."""

  def start(self, run: GridRun) -> None:
    """Starts the process of a run."""

  def ended(self) -> list[Ended]:
    """What has ended since the last call."""

  def stop(self) -> None:
    """Asks all to save and end; a second time, to end at once."""

  def close(self) -> None:
    """Lets go of everything, at the end."""


@dataclasses.dataclass
class Board:
  """What is known of all runs of a grid, by label.

  Attributes:
    states: their directories.
    running: started here.
    elsewhere: owned by another process, which it names.
    waiting: labels, the next one first.
    failed: what went wrong.
    tries: failures so far.
    losses: how often the machine of a run was lost.
  """

  runs: dict[str, GridRun]
  states: dict[str, RunState]
  running: dict[str, float] = dataclasses.field(default_factory=dict)
  elsewhere: dict[str, dict] = dataclasses.field(default_factory=dict)
  waiting: list[str] = dataclasses.field(default_factory=list)
  failed: dict[str, str] = dataclasses.field(default_factory=dict)
  tries: dict[str, int] = dataclasses.field(default_factory=dict)
  losses: dict[str, int] = dataclasses.field(default_factory=dict)

  def kind(self, label: str) -> str:
    """What a run is doing, in a word."""
    for name in ('running', 'elsewhere', 'failed'):
      if label in getattr(self, name):
        return name
    if self.states[label].finished:
      return 'done'
    return 'begun' if self.states[label].step else 'waiting'

  @property
  def finished(self) -> list[str]:
    return [label for label, state in self.states.items() if state.finished]


def look(grid: Grid) -> dict[str, RunState]:
  """States of all runs of a grid by label.

  Raises:
    GridError: a directory has a run of other settings.
  """
  for run in grid.runs:
    states.check_settings(run)
  return {run.label: states.read(run) for run in grid.runs}


class Scheduler:
  """Works off the runs of a grid.

  A run is done when its directory says so, in whatever process it ran. One that
  another process has, such as one that outlived a killed scheduler, is waited
  for. Only failures are remembered here; a new scheduler tries them again.
  """

  def __init__(
    self,
    grid: Grid,
    found: Mapping[str, RunState],
    launcher: Launcher,
    show: Callable[[Board], None] = lambda board: None,
    sleep: Callable[[float], None] = time.sleep,
  ):
    """Starts nothing yet.

    Args:
      grid: of the runs.
      found: of `look`.
      launcher: that starts them; it is closed at the end.
      show: called with the board at every look.
      sleep: waits so many seconds.
    """
    self.board = Board({run.label: run for run in grid.runs}, dict(found))
    self.board.waiting = [
      label for label, state in found.items() if not state.finished
    ]
    self._launcher, self._show, self._sleep = launcher, show, sleep
    self._looked = 0.0

  def work(self, stop: StopRequest) -> Board:
    """Runs until all are done or failed, or a signal asks to stop.

    Then the runs are asked to save, and waited for.
    """
    asked = False
    try:
      while self._step(start=not asked):
        if stop.number is not None and not asked:
          asked = True
          self._launcher.stop()
        self._show(self.board)
        self._sleep(GLANCE)
        if asked and not self.board.running:
          break
    except KeyboardInterrupt:
      self._launcher.stop()
      raise
    finally:
      self._launcher.close()
    self._show(self.board)
    return self.board

  def _step(self, start):
    """Takes note of what happened and starts what can be; False at the end."""
    board = self.board
    for end in self._launcher.ended():
      self._note(end)
    if time.monotonic() - self._looked >= LOOK:
      self._looked = time.monotonic()
      for label in [*board.running, *board.elsewhere]:
        board.states[label] = states.read(board.runs[label])
    for label in list(board.elsewhere):
      self._look_again(label)
    if start:
      self._start()
    return bool(board.running or board.elsewhere or (start and board.waiting))

  def _note(self, end):
    board, label = self.board, end.run.label
    board.running.pop(label)
    board.states[label] = states.read(end.run)
    if board.states[label].finished:
      return
    owner = states.holder(end.run)
    if owner:
      board.elsewhere[label] = owner
      return
    count, most = (board.losses, LOSSES) if end.lost else (board.tries, RETRIES)
    count[label] = count.get(label, 0) + 1
    if count[label] > most:
      board.failed[label] = end.problem or 'it ended before its last step'
      return
    board.waiting.insert(0, label)

  def _look_again(self, label):
    """A run of another process is done, or nobody has it any more."""
    board, run = self.board, self.board.runs[label]
    if board.states[label].finished:
      del board.elsewhere[label]
    elif states.holder(run) is None:
      # It may have ended between the two looks.
      board.states[label] = states.read(run)
      del board.elsewhere[label]
      if not board.states[label].finished:
        board.waiting.insert(0, label)

  def _start(self):
    board = self.board
    for label in list(board.waiting):
      owner = states.holder(board.runs[label])
      if owner:
        board.waiting.remove(label)
        board.elsewhere[label] = owner
    while board.waiting and self._launcher.room([*board.elsewhere.values()]):
      label = board.waiting.pop(0)
      # Another scheduler may have done it.
      board.states[label] = states.read(board.runs[label])
      if not board.states[label].finished:
        board.running[label] = time.monotonic()
        self._launcher.start(board.runs[label])
