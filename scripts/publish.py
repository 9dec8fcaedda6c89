"""The command `publish`; see `python scripts/publish.py --help`."""

from moto_tf.commands.publish import main

if __name__ == '__main__':
  main()
