"""Makes a directory that LeRobot's commands take, of one that moto_tf exported.

  python -m lerobot_policy_moto ~/exported ~/lerobot_policy

LeRobot's commands then take `--policy.path ~/lerobot_policy`. Options go into
its config.json, such as --keys '{"image": "observation.images.top"}'.
"""

import argparse
import json

from lerobot_policy_moto import MotoConfig, MotoPolicy


def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('exported', help='directory of card.json')
  parser.add_argument('out', help='directory to write')
  parser.add_argument('--format', choices=('float32', 'int8'))
  parser.add_argument('--seed', type=int)
  parser.add_argument('--repeat', type=int, help='calls an action is held for')
  parser.add_argument('--keys', type=json.loads, help='as JSON')
  args = parser.parse_args(argv)
  names = ('format', 'seed', 'repeat', 'keys')
  given = {k: v for k in names if (v := getattr(args, k)) is not None}
  config = MotoConfig.from_export(args.exported, **given)
  MotoPolicy(config, args.exported).save_pretrained(args.out)
  print(f'Wrote {args.out}.')


if __name__ == '__main__':
  main()
