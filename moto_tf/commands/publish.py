"""Writes the policy of a run as one small file, to be committed.

  python -m moto_tf publish --logdir ~/logdir/metaworld_drawer-open/moto/0 \
    --name drawer-open

The file holds what acting needs, in float16, and a card: task, settings,
commit, and the success of this very file, which is evaluated here. Then
`evaluate --published drawer-open` repeats that evaluation anywhere.
"""

import moto_tf
from moto_tf.commands import (
  add_plugins,
  add_rollouts,
  make_parser,
  printing,
  whole_path,
)
from moto_tf.results import published
from moto_tf.signals import interruptible
from moto_tf.training import evaluation


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add(
    '--logdir', type=whole_path, required=True, help='log directory of the run'
  )
  add('--name', required=True, help='of the policy, such as drawer-open')
  add_rollouts(parser, evaluation.EVAL_SEED)
  add(
    '--outdir',
    type=whole_path,
    default=published.PLACE,
    help='where the file goes (results/policies of the checkout)',
  )
  add('--force', action='store_true', help='replace one of this name')
  add_plugins(parser)
  args = parser.parse_args(argv)
  with interruptible(), moto_tf.explain_errors():
    moto_tf.load_plugins(args.plugins)
    path, card = published.publish(
      args.logdir,
      args.name,
      args.checkpoint,
      args.outdir,
      args.episodes,
      args.seed,
      args.envs,
      force=args.force,
    )
  print(published.describe(card))
  print(f'Policy: {path} ({path.stat().st_size / 2**20:.1f} MiB)')


if __name__ == '__main__':
  main()
