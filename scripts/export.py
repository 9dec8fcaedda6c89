"""The command `export`; see `python scripts/export.py --help`."""

from moto_tf.commands.export import main

if __name__ == '__main__':
  main()
