"""Ranks checkpoints by what they expect, without rolling anything out.

  python -m moto_tf rank --logdirs ~/logdir/metaworld_drawer-open/moto/*

For every checkpoint of the runs: the return of its policy in its own model,
with and without the penalty, and the value by its critics, from the first
records of the recorded episodes. Needs no simulator. Where evaluations are on
record, it says how well each score orders the checkpoints. Train with
--checkpoint_milestones to have checkpoints to choose from.
"""

import moto_tf
from moto_tf.commands import add_plugins, make_parser, printing, whole_path
from moto_tf.signals import interruptible


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add(
    '--logdirs',
    nargs='+',
    type=whole_path,
    required=True,
    help='log directories of runs',
  )
  add(
    '--by',
    default='penalised',
    metavar='SCORE',
    help='penalised, return (in the model) or value (of the critics)',
  )
  add(
    '--data',
    type=whole_path,
    help="recorded episodes to start from; default: each run's offline_data",
  )
  add('--outdir', type=whole_path, help='default: rank in the first LOGDIR')
  add('--force', action='store_true', help='replace an earlier ranking')
  add_plugins(parser)
  args = vars(parser.parse_args(argv))
  with interruptible(), moto_tf.explain_errors():
    moto_tf.load_plugins(args.pop('plugins'))
    moto_tf.rank(**args)


if __name__ == '__main__':
  main()
