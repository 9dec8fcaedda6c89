"""The command `export_policy`; see `python scripts/export_policy.py --help`."""

from moto_tf.commands.export_policy import main

if __name__ == '__main__':
  main()
