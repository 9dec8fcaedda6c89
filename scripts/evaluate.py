"""The command `evaluate`; see `python scripts/evaluate.py --help`."""

from moto_tf.commands.evaluate import main

if __name__ == '__main__':
  main()
