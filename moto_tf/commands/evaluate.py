"""Evaluates a trained policy and writes the numbers and a video.

  python -m moto_tf evaluate --logdir ~/logdir/metaworld_drawer-open/moto/0
  python -m moto_tf evaluate --published drawer-open

A published policy is a file of results/policies, or another one of the command
publish.

The first episodes are those of the evaluations during training, and of a
published policy those of its card, unless --seed chooses others.
"""

import moto_tf
from moto_tf.commands import (
  add_plugins,
  add_rollouts,
  make_parser,
  natural,
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
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument(
    '--logdir', type=whole_path, help='log directory of the run'
  )
  which.add_argument(
    '--published', metavar='NAME', help='name, or .npz file, of a policy'
  )
  seed = evaluation.EVAL_SEED
  add_rollouts(parser, seed, f'{seed}; published: that of the card')
  add(
    '--videos',
    type=natural,
    default=6,
    help='episodes in the video; 0: none (6)',
  )
  add(
    '--outdir',
    type=whole_path,
    help='default: LOGDIR/evaluation, or ~/logdir/published/NAME',
  )
  add('--force', action='store_true', help='replace an earlier evaluation')
  add_plugins(parser)
  args = parser.parse_args(argv)
  if args.published and args.checkpoint:
    parser.error('--checkpoint is of a run, and --published is one alone.')
  with interruptible(), moto_tf.explain_errors():
    moto_tf.load_plugins(args.plugins)
    given = {
      'episodes': args.episodes,
      'count': args.envs,
      'videos': args.videos,
      'outdir': args.outdir,
      'force': args.force,
    }
    if args.seed is not None:
      given['seed'] = args.seed
    if args.published:
      summary, paths = published.evaluate(args.published, **given)
    else:
      summary, paths = evaluation.evaluate_run(
        args.logdir, checkpoint=args.checkpoint, **given
      )
  print(describe(summary))
  print(f'Checkpoint: {summary["checkpoint"]}')
  for kind, path in zip(['Numbers'] + ['Video'] * len(paths), paths):
    print(f'{kind}: {path}')


def describe(summary: dict) -> str:
  """Success and return with their intervals, and what the suite logs."""
  lost = f' and {summary["lost"]} lost' if summary['lost'] else ''
  text = (
    f'success {summary["success"]:.2f} '
    f'[{summary["success_low"]:.2f}, {summary["success_high"]:.2f}]  '
    f'return {summary["return"]:.1f} '
    f'[{summary["return_low"]:.1f}, {summary["return_high"]:.1f}]  '
    f'(95% intervals, {summary["episodes"]} episodes{lost}, gradient step '
    f'{summary["gradient_step"]})'
  )
  usual = {'seed', 'success', 'return', 'length'}
  logged = [k for k in summary['rollouts'][0] if k not in usual]
  lines = ['  '.join(f'{k} {summary[k]:.2f}' for k in logged)] if logged else []
  return '\n'.join([text, *lines])


if __name__ == '__main__':
  main()
