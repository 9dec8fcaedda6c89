"""The command `benchmark`; see `python scripts/benchmark.py --help`."""

from moto_tf.commands.benchmark import main

if __name__ == '__main__':
  main()
