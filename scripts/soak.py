"""The command `soak`; see `python scripts/soak.py --help`."""

from moto_tf.commands.soak import main

if __name__ == '__main__':
  main()
