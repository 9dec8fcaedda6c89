"""Record demonstrations with scripted experts.

  python -m moto_tf collect --task drawer-open --outdir demos/drawer-open
  python -m moto_tf collect --task all --outdir demos --workers 4
  python -m moto_tf collect --task kitchen_mixed --episodes 100 --outdir demos

Tasks without a suite are Meta-World's; of another suite that has a list of its
tasks, <suite>_all records all of them. Only the episodes are kept that the
suite calls demonstrations, for most tasks the successful ones, unless
--all_outcomes is given. --order has experts that do several things do these, in
this order, every time. A recording that was interrupted goes on when the same
command is run again. Further options are --configs and the env.* settings of
configs.yaml, such as --env.camera corner4; train with the same ones.
"""

import argparse

import moto_tf
from moto_tf import envs, memory, presets, registry
from moto_tf.commands import (
  CONTINUE,
  add_plugins,
  make_parser,
  natural,
  positive,
  printing,
  processes,
  settings,
  whole_path,
)
from moto_tf.data import inspect, record
from moto_tf.signals import interruptible


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add('--task', required=True, help='or all: the ten of Meta-World')
  add('--outdir', type=whole_path, required=True, help='for all: <it>/<task>')
  add('--episodes', type=positive, default=10, help='to have at the end (10)')
  add('--noise', type=float, help="std of action noise (the expert's own)")
  add('--seed', type=natural, default=0, help='of goals and noise (0)')
  add('--all_outcomes', action='store_true', help='keep failures too')
  add('--order', default='', help='parts of the task, as in kettle,microwave')
  add('--workers', type=processes, default=2, help='processes (2)')
  add_plugins(parser)
  args, rest = parser.parse_known_args(argv)
  for flag in rest:
    if flag.startswith('--') and not flag.startswith(('--env.', '--configs')):
      parser.error(f'unknown option {flag}; beside these only --env.* is used.')
  with interruptible(CONTINUE), moto_tf.explain_errors():
    registry.load_plugins(args.plugins)
    infos = collect(args, rest, parser.prog)
  print('\n' + inspect.compare(infos))


def collect(args: argparse.Namespace, rest: list[str], prog: str) -> dict:
  """Records the tasks of the arguments; returns Info by task."""
  task = envs.full_task(args.task)
  tasks = {task: args.outdir}
  suite, name = envs.find_suite(task)
  if name == 'all' and suite.all_tasks:
    head = task.removesuffix('all')
    names = registry.resolve(suite.all_tasks)
    tasks = {f'{head}{name}': args.outdir / name for name in names}
  config = settings.parse([*preset(task), *rest], prog)
  memory.check_rollouts(config, args.workers)
  infos = {}
  for task, directory in tasks.items():
    noise = args.noise
    if noise is None:
      noise = envs.make_demonstrator(task).noise
    recording = record.Recording(
      task, config.env, args.seed, noise, args.all_outcomes, args.order
    )
    infos[task] = record.collect(
      recording, directory, args.episodes, args.workers
    )
  return infos


def preset(task: str) -> list[str]:
  """Arguments that take the preset of a task's suite, if there is one."""
  name = task.partition('_')[0]
  return ['--configs', name] if name in presets.load_configs().presets else []


if __name__ == '__main__':
  main()
