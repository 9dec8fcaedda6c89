"""Episodes on disk: look at them, import those of others, export them.

  python scripts/dataset.py info demos/drawer-open
  python scripts/dataset.py video demos/drawer-open --out drawer.gif
  python scripts/dataset.py import --format d4rl kitchen.hdf5 demos/mixed \
    --task kitchen_mixed
  python scripts/dataset.py export demos/mixed ~/minari --id kitchen/mixed-v0

`info` counts episodes, names damaged files and compares with the paper's data.
`video` writes a GIF, or for a name in .png a contact sheet whose rows are
episodes and whose columns are times. `import` reads kitchen data of Minari,
D4RL, relay policy learning (rpl) or D5RL, renders its images again and computes
its rewards for a task; it goes on where it was interrupted. Its further options
are the env.* settings of configs.yaml; train with the same ones. `export`
writes a Minari dataset.
"""

import argparse
import pathlib
import sys

import moto_tf
from moto_tf.commands import positive
from moto_tf.commands import settings as config
from moto_tf.data import inspect, minari_export
from moto_tf.envs.kitchen import playback, sources


def main(argv: list[str] | None = None):
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest='command', required=True)
  info = commands.add_parser('info', help='numbers, keys and damaged files')
  info.add_argument('directory', type=pathlib.Path)
  info.add_argument(
    '--task', default='', help='task to compare with (default: dataset.json)'
  )
  video = commands.add_parser('video', help='a GIF or a contact sheet')
  video.add_argument('directory', type=pathlib.Path)
  video.add_argument('--out', type=pathlib.Path, required=True)
  video.add_argument('--episodes', type=int, default=10, help='at most so many')
  video.add_argument(
    '--key', default='', help='image observation (default: the first)'
  )
  add = commands.add_parser(
    'import', help='kitchen data of others'
  ).add_argument
  add('source', type=pathlib.Path, help='file or folder')
  add('directory', type=pathlib.Path, help='of the episodes to write')
  add('--format', choices=sources.FORMATS, required=True)
  add('--task', required=True, help='kitchen_mixed, _partial or _complete')
  add('--relabel', action='store_true', help='stored rewards may be of others')
  add('--workers', type=positive, default=2, help='processes (2)')
  add = commands.add_parser('export', help='a Minari dataset').add_argument
  add('directory', type=pathlib.Path)
  add('root', type=pathlib.Path, help='folder of Minari datasets')
  add('--id', required=True, help='of the dataset, such as kitchen/mixed-v0')
  args, rest = parser.parse_known_args(argv)
  for flag in rest:
    if args.command != 'import' or (
      flag.startswith('--') and not flag.startswith('--env.')
    ):
      parser.error(f'unknown option {flag}.')
  try:
    with moto_tf.explain_errors():
      if args.command == 'info':
        show(args.directory, args.task)
      elif args.command == 'video':
        inspect.render(args.directory, args.out, args.episodes, args.key)
        print(f'Wrote {args.out}.')
      elif args.command == 'import':
        settings = config.parse(['--configs', 'kitchen', *rest], parser.prog)
        task = f'kitchen_{args.task.removeprefix("kitchen_")}'
        recipe = playback.Recipe(
          args.format, args.source, task, settings.env, args.relabel
        )
        done = playback.import_dataset(recipe, args.directory, args.workers)
        print(f'\n{inspect.compare_kitchen(done)}')
        print(f'Rewards: {equal_rewards(done)}.')
      else:
        path = minari_export.export(args.directory, args.root, args.id)
        print(f'Wrote {path}.')
  except KeyboardInterrupt:
    sys.exit('\nStopped. Run the same command to go on.')


def show(directory: pathlib.Path, task: str):
  """Print the numbers of a directory, and the paper's where it has some."""
  info = inspect.inspect(directory)
  print(inspect.describe(info))
  task = inspect.short_task(task or info.task)
  if task in inspect.PAPER:
    print('\n' + inspect.compare({task: info}))
  elif len(info.placed):
    print('\n' + inspect.compare_kitchen(info))


def equal_rewards(info: inspect.Info) -> str:
  """What the comparison of stored and computed rewards gave."""
  shares = info.record['equal_rewards']
  if not shares:
    return 'there are none that could be compared'
  parts = [f'kitchen_{task} {100 * x:.2f} %' for task, x in shares.items()]
  return f'stored ones equal the computed ones in {", ".join(parts)}'


if __name__ == '__main__':
  main()
