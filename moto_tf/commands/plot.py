"""Draw learning curves of many runs, and write their numbers and a table.

  python -m moto_tf plot --indir runs --outdir figures --tasks 'door|drawer'

Runs are log directories, or files of the command export. Every
metric becomes a figure with a panel per task and a line per method: the mean
over seeds.
"""

import math

import moto_tf
from moto_tf.commands import add_plugins, make_parser, printing, whole_path
from moto_tf.grid import spec
from moto_tf.results import plotting
from moto_tf.signals import interruptible


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add(
    '--indir', nargs='+', type=whole_path, required=True, help='where runs lie'
  )
  add('--outdir', type=whole_path, required=True, help='where the results go')
  metrics = ['eval/success', 'eval/return']
  add('--metrics', nargs='+', default=metrics, help='keys of metrics.jsonl')
  add('--tasks', default='', help='regular expression over the tasks')
  add('--methods', default='', help='regular expression over the methods')
  add('--xaxis', default='env_step', help='key of metrics.jsonl to draw over')
  add('--smooth', type=int, default=1, help='values averaged for the curves')
  add(
    '--until',
    type=float,
    default=math.inf,
    metavar='X',
    help='cut longer runs here on the axis, to compare equal budgets',
  )
  add(
    '--suite',
    help='name or file of a suite: draw its tasks and methods, and say which '
    'were not run',
  )
  add(
    '--statistics',
    action='store_true',
    help='compare methods over tasks: interquartile mean, performance '
    'profiles, probability of improvement',
  )
  add_plugins(parser)
  args = vars(parser.parse_args(argv))
  with interruptible(), moto_tf.explain_errors():
    moto_tf.load_plugins(args.pop('plugins'))
    suite = args.pop('suite')
    if suite:
      args['layout'] = plotting.Layout(*spec.layout(spec.find(suite)))
    for path in plotting.plot(args.pop('indir'), **args):
      print(f'Wrote {path}.')


if __name__ == '__main__':
  main()
