"""The command `plot`; see `python scripts/plot.py --help`."""

from moto_tf.commands.plot import main

if __name__ == '__main__':
  main()
