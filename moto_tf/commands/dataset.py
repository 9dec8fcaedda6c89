r"""Episodes on disk: look at them, import those of others, export them.

  python -m moto_tf dataset info demos/drawer-open
  python -m moto_tf dataset video demos/drawer-open --out drawer.gif
  python -m moto_tf dataset import --format d4rl kitchen.hdf5 demos/mixed \
    --task kitchen_mixed
  python -m moto_tf dataset export demos/mixed ~/minari --id drawer/scripted-v0
  python -m moto_tf dataset export demos/mixed ~/lerobot --format lerobot \
    --id user/drawer

`info` counts episodes, names damaged files and compares with the paper's data.
`video` writes a GIF, or for a name in .png a contact sheet whose rows are
episodes and whose columns are times. `import` turns the files of others into
episodes of a task, in one of the formats below or of your own code; it goes on
where it was interrupted. Its further options are the env.* settings of
configs.yaml; train with the same ones. `export` writes a dataset of Minari or
LeRobot.
"""

import argparse
import pathlib

import moto_tf
from moto_tf import envs, memory, registry
from moto_tf.commands import (
  CONTINUE,
  add_plugins,
  make_parser,
  positive,
  printing,
  processes,
  settings,
  whole_path,
)
from moto_tf.commands.collect import preset
from moto_tf.data import importers, inspect
from moto_tf.data.exporters import EXPORTERS
from moto_tf.data.formats import SourceError
from moto_tf.signals import interruptible


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  commands = parser.add_subparsers(dest='command', required=True)
  info = commands.add_parser('info', help='numbers, keys and damaged files')
  info.add_argument('directory', type=whole_path)
  info.add_argument(
    '--task', default='', help='task to compare with (default: dataset.json)'
  )
  video = commands.add_parser('video', help='a GIF or a contact sheet')
  video.add_argument('directory', type=whole_path)
  video.add_argument('--out', type=whole_path, required=True)
  video.add_argument(
    '--episodes', type=positive, default=10, help='at most so many'
  )
  video.add_argument(
    '--key', default='', help='image observation (default: the first)'
  )
  formats = ', '.join(importers.FORMATS)
  take = commands.add_parser('import', help=f'data of others: {formats}')
  add = take.add_argument
  add('source', type=whole_path, help='file or folder')
  add('directory', type=whole_path, help='of the episodes to write')
  add('--format', required=True, help=f'{formats}, or of --plugins')
  add('--task', required=True, help='<suite>_<name>, or a name')
  add('--relabel', action='store_true', help='stored rewards may be of others')
  add('--workers', type=processes, default=2, help='processes (2)')
  export = commands.add_parser(
    'export', help=f'for others: {", ".join(EXPORTERS)}'
  )
  add = export.add_argument
  add('directory', type=whole_path)
  add('root', type=whole_path, help='of datasets of that format')
  add('--id', required=True, help='of the dataset, such as drawer/scripted-v0')
  add('--format', choices=EXPORTERS, default='minari', help='(minari)')
  add('--fps', type=rate, help='lerobot: frames per second (of the suite)')
  add('--images', choices=('video', 'png'), help='lerobot: kept as (video)')
  for command in (info, video, take, export):
    add_plugins(command)
  words, given = settings.split(argv, own=('task', 'plugins'))
  args, rest = parser.parse_known_args(words)
  rest += given
  for flag in rest:
    if args.command != 'import' or (
      flag.startswith('--') and not flag.startswith('--env.')
    ):
      parser.error(f'unknown option {flag}.')
  with interruptible(CONTINUE), moto_tf.explain_errors():
    registry.load_plugins(args.plugins)
    if args.command == 'info':
      show(args.directory, args.task)
    elif args.command == 'video':
      inspect.render(args.directory, args.out, args.episodes, args.key)
      print(f'Wrote {args.out}.')
    elif args.command == 'import':
      take_over(args, rest, parser.prog)
    else:
      exporter = EXPORTERS[args.format]
      given = {k: v for k in ('fps', 'images') if (v := getattr(args, k))}
      for name in given.keys() - {*exporter.options}:
        parser.error(f'--{name} has no effect on the format {args.format}.')
      write = registry.resolve(exporter.write)
      print(f'Wrote {write(args.directory, args.root, args.id, **given)}.')


def rate(text: str) -> float:
  """Frames per second from a command line, above 0 and at most 1,000."""
  if not 0 < (value := float(text)) <= 1000:
    raise argparse.ArgumentTypeError(f'{text} is not above 0 and up to 1,000')
  return value


def show(directory: pathlib.Path, task: str) -> None:
  """Print the numbers of a directory, and the paper's where it has some."""
  info = inspect.inspect(directory)
  print(inspect.describe(info))
  task = task or info.task
  suite = envs.suite_of(envs.full_task(task)) if task else None
  if suite and suite.compare and len(info.lengths):
    print('\n' + inspect.compare({envs.full_task(task): info}))


def take_over(args: argparse.Namespace, rest: list[str], prog: str) -> None:
  """Import a dataset and print its numbers."""
  task = importers.full_task(args.format, args.task)
  entry = importers.FORMATS[args.format]
  if args.relabel and not entry.relabels:
    raise SourceError(
      f'--relabel has no effect on the format {args.format}; leave it out.'
    )
  config = settings.parse([*preset(task), *rest], prog)
  memory.check_rollouts(config, args.workers)
  made = importers.Import(
    args.format, args.source, task, config.env, args.relabel
  )
  info = importers.import_dataset(made, args.directory, args.workers)
  print('\n' + inspect.compare({task: info}))
  if entry.report:
    print(registry.resolve(entry.report)(info))


if __name__ == '__main__':
  main()
