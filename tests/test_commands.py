"""Arguments that all commands share: paths, numbers, and cut output."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moto_tf import commands
from moto_tf.commands import collect, evaluate
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError

ROOT = Path(__file__).parents[1]


def test_every_path_is_expanded(monkeypatch):
  """By one type, which no command goes without."""
  monkeypatch.setenv('HOME', '/somewhere')
  assert commands.whole_path('~/x') == Path('/somewhere/x')
  with pytest.raises(argparse.ArgumentTypeError, match='~nobody-here'):
    commands.whole_path('~nobody-here/x')
  with pytest.raises(ConfigError, match='~nobody-here'):
    make_config(logdir='~nobody-here/x').path('logdir')
  for path in (ROOT / 'moto_tf' / 'commands').glob('*.py'):
    assert not re.search(r'type=(pathlib\.)?Path', path.read_text()), path


def test_collect_writes_below_home(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  found = []
  monkeypatch.setattr(collect, 'collect', lambda args, *_: found.append(args))
  monkeypatch.setattr(collect.inspect, 'compare', lambda infos: '')
  collect.main(['--task', 'hammer', '--outdir=~/x'])
  assert found[0].outdir == tmp_path / 'x'


@pytest.mark.parametrize(
  'main, words',
  [
    (evaluate.main, ['--logdir', 'x', '--seed', '-1']),
    (evaluate.main, ['--logdir', 'x', '--seed', '9' * 5000]),
    (evaluate.main, ['--logdir', 'x', '--videos', '-1']),
    (evaluate.main, ['--logdir', 'x', '--episodes', '0']),
    (evaluate.main, ['--logdir', 'x', '--envs', '1000000']),
    (collect.main, ['--task', 'x', '--outdir', 'x', '--seed', '-1']),
    (collect.main, ['--task', 'x', '--outdir', 'x', '--workers', '1000000']),
  ],
)
def test_numbers_have_bounds(capsys, main, words):
  with pytest.raises(SystemExit) as error:
    main(words)
  text = capsys.readouterr().err
  assert error.value.code == 2 and words[-2] in text
  assert 'is not a whole number from' in text and len(text) < 2000


@pytest.mark.parametrize('words', [['--help'], ['train', '--help']])
def test_output_that_nobody_reads(words):
  """As behind `| head`."""
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
    [sys.executable, '-m', 'moto_tf', *words],
    stdout=write,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  os.close(write)
  assert done.stderr == '' and done.returncode in (0, 141)
