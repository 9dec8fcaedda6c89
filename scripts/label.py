"""The command `label`; see `python scripts/label.py --help`."""

from moto_tf.commands.label import main

if __name__ == '__main__':
  main()
