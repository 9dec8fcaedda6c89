"""The command `collect`; see `python scripts/collect.py --help`."""

from moto_tf.commands.collect import main

if __name__ == '__main__':
  main()
