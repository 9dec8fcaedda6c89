"""Exports a trained policy for devices without TensorFlow.

  python -m moto_tf export_policy --out ~/exported \\
    --logdir ~/logdir/metaworld_drawer-open/moto/0

Writes a SavedModel, LiteRT files in float32 and with int8 weights, the file
moto_policy.py that acts with NumPy and ai-edge-litert alone, and a card. Every
format is compared with load_policy; if one acts otherwise, the command fails.
"""

import moto_tf
from moto_tf.commands import (
  add_checkpoint,
  add_plugins,
  make_parser,
  printing,
  whole_path,
)
from moto_tf.deploy.export import export_policy
from moto_tf.signals import interruptible


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add(
    '--logdir', type=whole_path, required=True, help='log directory of the run'
  )
  add('--out', type=whole_path, required=True, help='new or empty directory')
  add_checkpoint(parser)
  add(
    '--data',
    type=whole_path,
    help='episodes to compare the formats on; default: those of the run',
  )
  add(
    '--eval_action',
    choices=('mean', 'mode'),
    help="action to take; default: the run's eval_action",
  )
  add_plugins(parser)
  args = parser.parse_args(argv)
  with interruptible(), moto_tf.explain_errors():
    moto_tf.load_plugins(args.plugins)
    card = export_policy(
      args.logdir, args.out, args.checkpoint, args.data, args.eval_action
    )
  for name, row in card['check']['formats'].items():
    print(
      f'{name:<12} differs by {row["mean"]:.1e} in the mean, '
      f'{row["largest"]:.1e} at most, over {row["steps"]} steps'
    )
  for name, count in card['bytes'].items():
    print(f'{name:<19} {count / 2**20:6.2f} MiB')
  print(f'Wrote {args.out}; CARD.md there says what it is.')


if __name__ == '__main__':
  main()
