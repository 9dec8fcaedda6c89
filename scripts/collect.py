"""Record demonstrations with the scripted policies of Meta-World.

  python scripts/collect.py --task drawer-open --outdir demos/drawer-open
  python scripts/collect.py --task all --outdir demos --workers 4

Only successful episodes are kept unless --all_outcomes is given. A recording
that was interrupted goes on when the same command is run again. Further
options are --configs and the env.* settings of configs.yaml, such as
--env.camera corner4; train with the same ones.
"""

import argparse
import pathlib
import sys

import moto_tf
from moto_tf import config
from moto_tf.data import inspect, record


def main(argv: list[str] | None = None):
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--task', required=True, help='Meta-World task, or all: ten of the paper')
  add('--outdir', type=pathlib.Path, required=True, help='for all: <it>/<task>')
  add('--episodes', type=int, default=10, help='to have at the end (10)')
  add('--noise', type=float, default=0.0, help='std of action noise (0)')
  add('--seed', type=int, default=0, help='of goals and noise (0)')
  add('--all_outcomes', action='store_true', help='keep failures too')
  add('--workers', type=int, default=2, help='processes (2)')
  args, rest = parser.parse_known_args(argv)
  for flag in rest:
    if flag.startswith('--') and not flag.startswith(('--env.', '--configs')):
      parser.error(f'unknown option {flag}; beside these only --env.* is used.')
  settings = config.parse(['--configs', 'metaworld', *rest], parser.prog)
  tasks = {inspect.short_task(args.task): args.outdir}
  if args.task == 'all':
    tasks = {task: args.outdir / task for task in inspect.PAPER}
  infos = {}
  try:
    with moto_tf.explain_errors():
      for task, directory in tasks.items():
        recipe = record.Recipe(
          task, settings.env, args.seed, args.noise, args.all_outcomes
        )
        infos[task] = record.collect(
          recipe, directory, args.episodes, args.workers
        )
  except KeyboardInterrupt:
    sys.exit('\nStopped. Run the same command to go on.')
  print('\n' + inspect.compare(infos))


if __name__ == '__main__':
  main()
