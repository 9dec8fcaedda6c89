"""The command `train`; see `python scripts/train.py --help`."""

from moto_tf.commands.train import main

if __name__ == '__main__':
  main()
