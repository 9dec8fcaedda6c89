"""Checks the critics, the reward head and the penalty of a trained agent."""

import sys
from collections.abc import Sequence

import moto_tf
from moto_tf.commands import (
  add_checkpoint,
  add_plugins,
  make_parser,
  positive,
  printing,
  processes,
  whole_path,
)
from moto_tf.commands.settings import load_plugins
from moto_tf.signals import interruptible
from moto_tf.studies import STUDIES


@printing()
def main(argv: Sequence[str] | None = None) -> None:
  """Run the command line; see its --help."""
  argv = sys.argv[1:] if argv is None else argv
  with moto_tf.explain_errors():
    # Before the help, which lists the studies they register.
    load_plugins(argv)
  parser = make_parser(describe())
  add = parser.add_argument
  add(
    '--logdir', type=whole_path, required=True, help='log directory of the run'
  )
  add(
    '--studies',
    nargs='+',
    metavar='NAME',
    help='of those above (default: all that fit the run)',
  )
  add(
    '--episodes',
    type=positive,
    default=20,
    help='episodes to roll out (default: 20)',
  )
  add('--envs', type=processes, default=2, help='parallel (default: 2)')
  add_checkpoint(parser)
  add(
    '--data',
    type=whole_path,
    help='recorded episodes to use, such as held-out ones; default: the '
    "run's offline_data",
  )
  add('--outdir', type=whole_path, help='default: LOGDIR/diagnosis')
  add('--force', action='store_true', help='replace that of another checkpoint')
  add_plugins(parser)
  args = vars(parser.parse_args(argv))
  del args['plugins']
  with interruptible(), moto_tf.explain_errors():
    moto_tf.diagnose(**args)


def describe() -> str:
  """What the help says, with the studies of the registry."""
  lines = [
    __doc__,
    '',
    '  python -m moto_tf diagnose --logdir ~/logdir/TASK/moto/0',
    '',
    'Writes to LOGDIR/diagnosis the figures of each study and diagnosis.json,',
    'all their numbers. Studies:',
    '',
  ]
  for name, study in STUDIES.items():
    figure = f' ({study.figure}.png)' if study.figure else ''
    lines.append(f'  {name:<12}{study.label}{figure}')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
