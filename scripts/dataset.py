"""The command `dataset`; see `python scripts/dataset.py --help`."""

from moto_tf.commands.dataset import main

if __name__ == '__main__':
  main()
