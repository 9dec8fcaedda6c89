"""Command lines: `python -m moto_tf NAME`, or scripts/NAME.py of a checkout.

Each module parses the arguments of one command and calls what does the work.
"""

import argparse

# What to do about a command that was interrupted and keeps what it has done.
CONTINUE = 'Run the same command to go on.'
COMMANDS = {
  'collect': 'record demonstrations with scripted experts',
  'dataset': 'look at episodes, import those of others, export them',
  'train': 'offline pre-training, then online fine-tuning',
  'evaluate': 'roll a trained policy out: success, return, video',
  'diagnose': 'check critics, rewards and penalty of a trained agent',
  'export': 'one small file per run, to be committed',
  'plot': 'learning curves of many runs, and a table',
  'benchmark': 'how fast this machine is',
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
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
  return value


def add_plugins(parser: argparse.ArgumentParser) -> None:
  """The option that imports user code before a command starts."""
  parser.add_argument(
    '--plugins',
    default='',
    metavar='FILES',
    help='modules or .py files, between commas, that register methods, suites, '
    'formats or studies of your own',
  )
