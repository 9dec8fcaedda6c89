"""The command `diagnose`; see `python scripts/diagnose.py --help`."""

from moto_tf.commands.diagnose import main

if __name__ == '__main__':
  main()
