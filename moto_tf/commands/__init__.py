"""Command lines: `python -m moto_tf NAME`, or scripts/NAME.py of a checkout.

Each module parses the arguments of one command and calls what does the work.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from moto_tf import rules

# The largest number that counts something, and seeds of simulators.
LARGEST = 2**31 - 1
# Processes for each core that a user may ask for.
PER_CORE = 16

# What to do about a command that was interrupted and keeps what it has done.
CONTINUE = 'Run the same command to go on.'
COMMANDS = {
  'collect': 'record demonstrations with scripted experts',
  'dataset': 'look at episodes, import those of others, export them',
  'label': 'a person says which episodes succeeded, on a page of videos',
  'train': 'offline pre-training, then online fine-tuning',
  'suite': 'a grid of tasks, methods and seeds, to its figures',
  'evaluate': 'roll a trained policy out: success, return, video',
  'diagnose': 'check critics, rewards and penalty of a trained agent',
  'rank': 'order checkpoints without rollouts',
  'publish': 'a trained policy as one small file, to be committed',
  'export_policy': 'a trained policy for devices without TensorFlow',
  'export': 'one small file per run, to be committed',
  'plot': 'learning curves of many runs, and a table',
  'benchmark': 'how fast this machine is',
  'soak': 'kill a small run where it writes, continue it, compare',
}


def make_parser(
  description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
  """A parser whose texts keep their lines, and whose options are whole."""
  return argparse.ArgumentParser(
    description=description,
    epilog=epilog,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    # --plugin would be taken for --plugins after that was looked for.
    allow_abbrev=False,
  )


def positive(text: str) -> int:
  """Type of a command-line option that is 1 or more."""
  return _number(text, 1, LARGEST)


def natural(text: str) -> int:
  """Type of a command-line option that is 0 or more."""
  return _number(text, 0, LARGEST)


def processes(text: str) -> int:
  """Type of a command-line option that says how many processes to start."""
  return _number(text, 1, PER_CORE * (os.cpu_count() or 1))


def whole_path(text: str) -> Path:
  """Type of a command-line option that is a path; ~ is expanded."""
  try:
    return rules.expand(text)
  except rules.ConfigError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


@contextlib.contextmanager
def printing() -> Iterator[None]:
  """Context of a command whose output may be cut, as by `| head`."""
  try:
    try:
      yield
    finally:
      # What is left would fail after everything, where nobody hears of it.
      sys.stdout.flush()
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + 13)  # As if by SIGPIPE.


def _number(text, low, high):
  try:
    value = int(text)
  except ValueError:
    value = low - 1
  if not low <= value <= high:
    raise argparse.ArgumentTypeError(
      f'{rules.cut(text)} is not a whole number from {low} to {high:,}'
    )
  return value


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
  """Option of commands that read a checkpoint of a run."""
  parser.add_argument(
    '--checkpoint',
    type=whole_path,
    help='file, or its gradient step; default: the newest',
  )


def add_rollouts(
  parser: argparse.ArgumentParser, seed: int, usual: str = ''
) -> None:
  """Options of commands that roll a checkpoint out.

  Args:
    seed: of the first episode, the default.
    usual: says which is the default where there are several. It is None then.
  """
  add = parser.add_argument
  add_checkpoint(parser)
  add('--episodes', type=positive, default=50, help='episodes to roll out (50)')
  default = None if usual else seed
  text = f'first seed ({usual or seed})'
  add('--seed', type=natural, default=default, help=text)
  add('--envs', type=processes, default=2, help='parallel environments (2)')


def add_plugins(parser: argparse.ArgumentParser) -> None:
  """The option that imports user code before a command starts."""
  parser.add_argument(
    '--plugins',
    default='',
    metavar='FILES',
    help='modules or .py files, between commas, that register methods, suites, '
    'formats or studies of your own',
  )
