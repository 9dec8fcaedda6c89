"""Record demonstrations with scripted experts.

  python scripts/collect.py --task drawer-open --outdir demos/drawer-open
  python scripts/collect.py --task all --outdir demos --workers 4
  python scripts/collect.py --task kitchen_mixed --episodes 100 --outdir demos

Tasks without a suite are Meta-World's. Only successful episodes are kept unless
--all_outcomes is given; in the kitchen, where episodes of other objects are
demonstrations too, all, but for kitchen_partial those of all four targets;
--order has them bring the same objects in place every time. A recording that
was interrupted goes on when the same command is run again. Further options are
--configs and the env.* settings of configs.yaml, such as --env.camera corner4;
train with the same ones.
"""

import argparse
import pathlib
import sys

import moto_tf
from moto_tf import envs
from moto_tf.commands import settings as config
from moto_tf.data import inspect, record


def main(argv: list[str] | None = None):
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--task', required=True, help='or all: the ten of Meta-World')
  add('--outdir', type=pathlib.Path, required=True, help='for all: <it>/<task>')
  add('--episodes', type=int, default=10, help='to have at the end (10)')
  add('--noise', type=float, help='std of action noise (kitchen .1, else 0)')
  add('--seed', type=int, default=0, help='of goals and noise (0)')
  add('--all_outcomes', action='store_true', help='keep failures too')
  add('--order', default='', help='kitchen objects, as in kettle,microwave')
  add('--workers', type=int, default=2, help='processes (2)')
  args, rest = parser.parse_known_args(argv)
  for flag in rest:
    if flag.startswith('--') and not flag.startswith(('--env.', '--configs')):
      parser.error(f'unknown option {flag}; beside these only --env.* is used.')
  tasks = {full_task(args.task): args.outdir}
  if args.task == 'all':
    tasks = {full_task(task): args.outdir / task for task in inspect.PAPER}
  suite = next(iter(tasks)).partition('_')[0]
  settings = config.parse(['--configs', suite, *rest], parser.prog)
  infos = {}
  try:
    with moto_tf.explain_errors():
      for task, directory in tasks.items():
        noise = args.noise
        if noise is None:
          noise = envs.make_demonstrator(task).noise
        recipe = record.Recipe(
          task, settings.env, args.seed, noise, args.all_outcomes, args.order
        )
        infos[inspect.short_task(task)] = record.collect(
          recipe, directory, args.episodes, args.workers
        )
  except KeyboardInterrupt:
    sys.exit('\nStopped. Run the same command to go on.')
  for table in tables(infos):
    print('\n' + table)


def tables(infos: dict) -> list[str]:
  """Numbers of the recordings beside the paper's."""
  kitchen = {k: v for k, v in infos.items() if k.startswith('kitchen_')}
  others = {k: v for k, v in infos.items() if k not in kitchen}
  found = [inspect.compare_kitchen(info) for info in kitchen.values()]
  return [inspect.compare(others), *found] if others else found


def full_task(task: str) -> str:
  """Name with its suite, Meta-World's without one."""
  if task.partition('_')[0] in envs.SUITES:
    return task
  return f'metaworld_{inspect.short_task(task)}'


if __name__ == '__main__':
  main()
