"""Names of presets, and command lines that must fail."""

import pytest

from moto_tf.commands.settings import parse
from moto_tf.presets import load_configs

PRESETS = list(load_configs().presets)


def fails(capsys, *argv):
  """Runs a command line that must fail; returns its message."""
  with pytest.raises(SystemExit) as exit:
    parse(argv, 'train.py')
  out, err = capsys.readouterr()
  assert exit.value.code == 2 and out == ''
  assert err.startswith('train.py: error: ')
  assert 1 <= err.count('\n') <= 3 and 'Traceback' not in err
  return err
