"""The command `suite`; see `python scripts/suite.py --help`."""

from moto_tf.commands.suite import main

if __name__ == '__main__':
  main()
