"""Look at a directory of episodes: numbers and damage, or pictures.

  python scripts/dataset.py info demos/drawer-open
  python scripts/dataset.py video demos/drawer-open --out drawer.gif

`info` counts episodes, names damaged files and compares with the paper's
Table 1. `video` writes a GIF, or for a name in .png a contact sheet whose rows
are episodes and whose columns are times.
"""

import argparse
import pathlib

import moto_tf
from moto_tf.data import inspect


def main(argv: list[str] | None = None):
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
  args = parser.parse_args(argv)
  with moto_tf.explain_errors():
    if args.command == 'info':
      show(args.directory, args.task)
    else:
      inspect.render(args.directory, args.out, args.episodes, args.key)
      print(f'Wrote {args.out}.')


def show(directory: pathlib.Path, task: str):
  """Print the numbers of a directory, and the paper's where it has some."""
  info = inspect.inspect(directory)
  print(inspect.describe(info))
  task = inspect.short_task(task or info.task)
  if task in inspect.PAPER:
    print('\n' + inspect.compare({task: info}))


if __name__ == '__main__':
  main()
