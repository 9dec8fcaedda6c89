"""The command `rank`; see `python scripts/rank.py --help`."""

from moto_tf.commands.rank import main

if __name__ == '__main__':
  main()
