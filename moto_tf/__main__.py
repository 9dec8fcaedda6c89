"""The commands of an installed moto_tf: `python -m moto_tf NAME ...`."""

import importlib
import sys

from moto_tf.commands import COMMANDS, printing
from moto_tf.signals import interruptible


@printing()
def main() -> None:
  """Runs the command that the first argument names."""
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help'):
    print('usage: python -m moto_tf COMMAND ...\n')
    for command, text in COMMANDS.items():
      print(f'  {command:<15}{text}')
    print('\nOptions of a command: python -m moto_tf COMMAND --help')
    return
  if name not in COMMANDS:
    sys.exit(
      f'Error: there is no command {name!r}. Commands are '
      f'{", ".join(COMMANDS)}.'
    )
  # What the usage and the records of a run name.
  sys.argv[:2] = [f'python -m moto_tf {name}']
  with interruptible():
    importlib.import_module(f'moto_tf.commands.{name}').main()


if __name__ == '__main__':
  main()
