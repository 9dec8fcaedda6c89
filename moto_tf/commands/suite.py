"""Runs a suite: a grid of tasks, methods and seeds, to its figures.

  python -m moto_tf suite laptop
  python -m moto_tf suite figure2 --configs small --methods 'moto|dreamerv2'
  python -m moto_tf suite mine.yaml --dry-run

Demonstrations are recorded where they are missing. Then the plan is shown, with
time, disk and memory as measured on this machine, and the runs are started,
each on its own cores. The same command goes on after Ctrl-C, a kill or a
reboot; what is done is not repeated. --configs and --KEY VALUE, as for the
command train, apply to all runs.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import moto_tf
from moto_tf.commands import (
  add_plugins,
  make_parser,
  natural,
  positive,
  printing,
  processes,
  settings,
  whole_path,
)
from moto_tf.grid import demonstrations, plan, schedule, slots, spec
from moto_tf.grid.local import LocalLauncher
from moto_tf.grid.table import LiveTable
from moto_tf.presets import load_configs
from moto_tf.signals import StopRequest, interruptible
from moto_tf.training import machine

ADVICE = 'Runs that were started save and end; the same command goes on.'


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  found = spec.shipped()
  text = '\n'.join(f'  {name:<15}{about}' for name, about in found.items())
  parser = make_parser(__doc__, f'suites:\n{text}')
  add = parser.add_argument
  add('suite', help='name of a suite, or a YAML file')
  add('--logdir', type=whole_path, help='directory of all runs (~/logdir/NAME)')
  add('--configs', nargs='+', metavar='NAME', default=[], help='presets')
  add('--tasks', default='', help='regular expression over the tasks')
  add('--methods', default='', help='regular expression over the methods')
  add('--seeds', nargs='+', type=natural, help='instead of those of the suite')
  add('--processes', type=processes, help='runs at a time (all cores)')
  add('--cores', type=positive, help='of each run (those of the suite)')
  add('--dry-run', action='store_true', help='show the plan, and stop')
  add('--slurm', type=whole_path, metavar='DIR', help='write array jobs, stop')
  add(
    '--ray',
    nargs='?',
    const='',
    metavar='ADDRESS',
    help='run on a Ray cluster; without an address, on this machine',
  )
  add_plugins(parser)
  words, given = settings.split(argv, own=('logdir', 'plugins'))
  args, rest = parser.parse_known_args(words)
  rest += given
  others = {
    '--dry-run': args.dry_run,
    '--processes': args.processes,
    '--ray': args.ray is not None,
  }
  if args.slurm and any(others.values()):
    found = ' and '.join(name for name, given in others.items() if given)
    parser.error(f'--slurm writes files and starts nothing; leave out {found}.')
  if args.ray is not None and args.processes:
    parser.error(
      '--ray starts as many runs as its cluster has room for; leave '
      'out --processes.'
    )
  with interruptible(ADVICE), moto_tf.explain_errors():
    plugins = moto_tf.load_plugins(args.plugins)
    grid = load(args, rest, plugins)
    if args.slurm:
      from moto_tf.grid import slurm

      print(slurm.write(grid, args.slurm, args.cores or grid.cores))
      return
    failed = run(grid, args)
  if failed:
    sys.exit(1)


def load(args: argparse.Namespace, rest: list[str], plugins: str) -> spec.Grid:
  """The grid of the command line."""
  more = [*args.configs, *settings.parts(rest, load_configs().defaults)]
  for part in more:
    if isinstance(part, Mapping):
      spec.check_own('--', part)
  return spec.load(
    spec.find(args.suite),
    args.logdir,
    more,
    args.tasks,
    args.methods,
    args.seeds,
    plugins,
  )


def run(grid: spec.Grid, args: argparse.Namespace) -> dict[str, str]:
  """Demonstrations, plan, runs and figures; returns what failed, by label."""
  cores = args.cores or grid.cores
  usable = machine.cores()
  count = args.processes or max(1, len(usable) // cores)
  places = slots.divide(count, cores, usable)
  here, launcher = count, LocalLauncher(grid.root, places)
  if args.ray is not None and not args.dry_run:
    from moto_tf.grid.ray_cluster import RayLauncher

    # First: that there is no cluster is soon found.
    launcher = RayLauncher(grid.root, args.ray, cores, grid.gpus)
    count, here = launcher.capacity(), 1
  schedule.look(grid)  # Before hours of recording: are settings the same?
  demos = demonstrations.look(grid)
  for demo in demos:
    print(f'{demo.task}: {demo.have} of {demo.want} demonstrations.')
  if not args.dry_run:
    demonstrations.make(demos, len(places))
  states = schedule.look(grid)
  measured = plan.measure(grid, states, places)
  needed = {
    x.label: plan.needs(x, states[x.label], measured.get(x.label))
    for x in grid.runs
  }
  print('\n' + plan.describe(grid, states, needed, count, here))
  if args.dry_run:
    return {}
  table = LiveTable(needed, count)
  scheduler = schedule.Scheduler(grid, states, launcher, table.show)
  stop = StopRequest()
  stop.listen()
  try:
    board = scheduler.work(stop)
  finally:
    stop.close()
  table.show(board, last=True)
  if stop.number is not None:
    print('Saved. The same command goes on.', flush=True)
    sys.exit(128 + stop.number)
  failed = [board.runs[label].logdir for label in board.failed]
  draw(grid, spec.layout(spec.find(args.suite)), failed)
  for label, problem in board.failed.items():
    print(f'Failed twice, skipped: {label}: {problem}', file=sys.stderr)
  return board.failed


def draw(
  grid: spec.Grid,
  names: tuple[Sequence[str], Sequence[str]],
  failed: Sequence[Path] = (),
) -> None:
  """Writes figures and table of what was run, and prints the table.

  Args:
    grid: what the command line chose of the suite.
    names: all tasks and methods of the suite. Of what was not chosen, that is
      drawn, too, which other calls have run.
    failed: log directories of runs that are left out, as their curves are
      short, and all seeds of a method are drawn as far as the shortest.
  """
  from moto_tf.results import curves, plotting

  found = sorted(grid.root.glob('*/*/*/metrics.jsonl'))
  runs = [x.parent for x in found if x.parent not in failed]
  if not runs:
    print('No figures: no run has logged anything to draw.', file=sys.stderr)
    return
  there = {(x.parts[-3], x.parts[-2]) for x in runs}
  tasks = {*grid.tasks, *(task for task, _ in there)}
  methods = {*grid.methods, *(method for _, method in there)}
  layout = plotting.Layout(
    [x for x in names[0] if x in tasks], [x for x in names[1] if x in methods]
  )
  outdir = grid.root / 'figures'
  places = runs, outdir, grid.metrics
  options = {'xaxis': grid.xaxis, 'layout': layout}
  try:
    paths = plotting.plot(*places, **options)
    # Those of an earlier call may be of other runs.
    for path in outdir.glob('*statistics.*'):
      path.unlink()
    if len(layout.methods) > 1:
      with contextlib.suppress(curves.PlotError):
        # Where some task has runs of all methods.
        paths = plotting.plot(*places, **options, statistics=True)
  except curves.PlotError as error:
    print(f'No figures: {error}', file=sys.stderr)
    return
  for path in failed:
    print(f'Left out of the figures, as it failed: {path}.', file=sys.stderr)
  print(paths[-1].read_text())
  for path in paths:
    print(f'Wrote {path}.')


if __name__ == '__main__':
  main()
