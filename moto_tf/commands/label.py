"""A person says which episodes succeeded, on a page that shows their videos.

  python -m moto_tf label demos/real-drawer
  python -m moto_tf label ~/logdir/gym_mine/moto/0 --reward

Takes a directory of episodes, or the log directory of a run that is not under
way. The page is served to this machine alone, at the address that is printed;
from another machine, forward its port by ssh. A label replaces the flags
success of its episode, by which training chooses what to clone, unless
bc_threshold or bc_targets say otherwise. With --reward it replaces the rewards,
too. What was recorded stays in the file, and labels.jsonl notes who said what.
"""

import getpass
import os

import moto_tf
from moto_tf.commands import make_parser, natural, printing, whole_path
from moto_tf.labelling.collection import Collection
from moto_tf.labelling.server import LabelServer
from moto_tf.signals import interruptible

ADVICE = 'Every label that the page has shown as saved is in its file.'


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add('directory', type=whole_path, help='of episodes, or of a run')
  add('--key', default='', help='image observation (default: the first)')
  add('--port', type=natural, default=0, help='of the page (one that is free)')
  add('--who', default='', help='name to note (that of the account)')
  add(
    '--reward',
    action='store_true',
    help='rewards become 1 from the success on, and 0 before',
  )
  args = parser.parse_args(argv)
  with (
    interruptible(ADVICE),
    moto_tf.explain_errors(),
    Collection(
      args.directory, args.key, args.reward, args.who or _account()
    ) as collection,
    LabelServer(collection, args.port) as server,
  ):
    print(_describe(collection, server), flush=True)
    server.serve_forever()


def _describe(collection, server):
  rows = collection.rows()
  labelled = [row for row in rows if row.get('labelled')]
  broken = sum(bool(row['problem']) for row in rows)
  others = [x for x in collection.keys if x != collection.key]
  lines = [
    f'{collection.directory}: {len(rows)} episodes, '
    f'{len(labelled)} labelled, images {collection.key!r}.'
  ]
  bare = sum(not row['rewarded'] for row in labelled)
  if bare and collection.reward:
    lines.append(
      f'{bare} of the labels have no rewards yet; the page takes these '
      'episodes for unlabelled ones.'
    )
  if others:
    lines.append(f'Other images, for --key: {", ".join(others)}.')
  if broken:
    lines.append(f'{broken} cannot be shown; the page says why.')
  port = server.server_port
  return '\n'.join(
    [
      *lines,
      f'Open {server.url}',
      f'from this machine, or after ssh -L {port}:127.0.0.1:{port} HOST from '
      'another. Ctrl-C ends.',
    ]
  )


def _account():
  try:
    return getpass.getuser()
  except (KeyError, OSError):  # Some containers have no such name.
    return f'user {os.getuid()}'


if __name__ == '__main__':
  main()
