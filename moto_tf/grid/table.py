"""The live table of a grid: what each run does, and the time left."""

import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from moto_tf.grid.plan import Needs, makespan
from moto_tf.grid.schedule import Board
from moto_tf.progress import duration

# Seconds between two tables where the output is no terminal.
EVERY = 60.0
BAR = 20
ORDER = ('running', 'elsewhere', 'failed', 'begun', 'waiting', 'done')


class LiveTable:
  """Shows a board: rewritten on a terminal, else a summary now and then."""

  def __init__(
    self,
    needed: Mapping[str, Needs],
    count: int,
    stream: TextIO | None = None,
    every: float = EVERY,
  ):
    """Shows nothing yet.

    Args:
      needed: what was forecast for each run, by label.
      count: runs at a time.
      stream: by default stdout.
      every: seconds between summaries.
    """
    self._needed, self._count = needed, count
    self._stream = stream or sys.stdout
    self._terminal = self._stream.isatty()
    self._every = 1.0 if self._terminal else every
    self._shown = self._lines = 0
    self._counts = None

  def show(self, board: Board, last: bool = False) -> None:
    """Shows the board if it is time to, or if a run has ended."""
    now, counts = time.monotonic(), _counts(board)
    changed = counts != self._counts
    if not (last or changed or now - self._shown >= self._every):
      return
    self._shown, self._counts = now, counts
    columns, height = shutil.get_terminal_size()
    lines = self.lines(board, height - 3 if self._terminal else 0)
    if self._terminal:
      up = f'\033[{self._lines}A\033[J' if self._lines else ''
      text = up + '\n'.join(line[: columns - 1] for line in lines)
      self._lines = len(lines)
    else:
      text = '\n'.join(lines)
    print(text, file=self._stream, flush=True)

  def lines(self, board: Board, height: int) -> list[str]:
    """A summary, and as many runs as fit; those that run, in any case."""
    labels = sorted(board.runs, key=lambda x: ORDER.index(board.kind(x)))
    busy = [x for x in labels if board.kind(x) in ORDER[:3]]
    rows = labels[: max(height, len(busy))]
    width = max(map(len, board.runs))
    lines = [self._row(board, label, width) for label in rows]
    counts = ', '.join(f'{n} {kind}' for kind, n in _counts(board).items())
    left = duration(self.left(board))
    return [*lines, f'{len(board.runs)} runs: {counts}; about {left} left']

  def left(self, board: Board) -> float:
    """Seconds until all are done, by the pace of those that run."""
    running = [*board.running, *board.elsewhere]
    seconds = [self._left(board, label) for label in running]
    seconds += [self._left(board, label) for label in board.waiting]
    return makespan(seconds, max(self._count, len(running)))

  def _row(self, board, label, width):
    state, kind = board.states[label], board.kind(label)
    share = state.step / max(state.total, 1)
    bar = ('#' * round(BAR * share)).ljust(BAR, '.')
    success = '  -  ' if state.success is None else f'{state.success:5.2f}'
    text = f'{label:<{width}} {bar} {share:4.0%} success {success} {kind}'
    if kind == 'failed':
      return f'{text}: {board.failed[label]}'
    if kind == 'elsewhere':
      owner = board.elsewhere[label]
      text += f' (process {owner["pid"]} on {owner["host"]})'
    if kind in ('running', 'elsewhere'):
      text += f', {duration(self._left(board, label))} left'
    return text

  def _left(self, board, label):
    """By what runs of the method took that are done, its pace, or forecast."""
    state, config = board.states[label], board.runs[label].config
    remaining = state.total - state.step
    if state.pace and board.kind(label) in ('running', 'elsewhere'):
      return remaining * state.pace
    took = [
      board.states[x].seconds / board.states[x].total
      for x in board.finished
      if board.runs[x].config.name == config.name
      and board.states[x].total
      and board.states[x].seconds
    ]
    if took:
      return remaining * sum(took) / len(took)
    needed = self._needed.get(label)
    return needed.seconds if needed else 0.0


def _counts(board):
  """Runs by kind, those that are there."""
  kinds = [board.kind(label) for label in board.runs]
  return {kind: kinds.count(kind) for kind in ORDER if kind in kinds}
