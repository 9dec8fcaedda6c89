"""Disks that are full, at every kind of write, and ones that are read only."""

import contextlib
import os
import subprocess
import sys

import pytest
from plain_agent import Plain
from run_helpers import Reach, losses, make_run, tiny

from moto_tf import files
from moto_tf.envs.gym import wrap_gym
from moto_tf.errors import MotoError
from moto_tf.training import session
from moto_tf.training.algorithm import algorithm_1, train

# What is opened for writing, by the beginning of the message that names it.
KINDS = {
  'config.yaml': 'config.yaml',
  'sessions.json': 'sessions.json',
  '000001-8.npz': 'episodes/000001-8.npz',
  'metrics.jsonl': 'metrics.jsonl',
  'tfevents': 'events.out.tfevents',
  'ckpt.npz.tmp': 'checkpoints/ckpt-00000002.npz',
  'evaluations.jsonl': 'evaluations.jsonl',
}


@pytest.fixture
def mounted(tmp_path):
  """A small file system of its own."""
  place = tmp_path / 'disk'
  place.mkdir()
  mount = lambda *args: subprocess.run(
    ['mount', *args, str(place)], capture_output=True, text=True
  )
  try:
    done = mount('-t', 'tmpfs', '-o', 'size=4m', 'tmpfs')
  except FileNotFoundError:
    pytest.skip('there is no mount')
  if done.returncode:
    pytest.skip(f'a file system cannot be mounted: {done.stderr.strip()}')
  yield place, mount
  subprocess.run(['umount', '-l', str(place)], check=True)


class Filler:
  """Fills the disk when a file of a kind is opened for writing."""

  def __init__(self):
    self.kind, self.ballast = None, None

  def hear(self, event, args):
    """An audit hook, which Python cannot remove: silent without a kind."""
    if self.kind and event == 'open' and self.kind in str(args[0]):
      if {*(args[1] or '')} & {*'wax'}:
        self.kind = None
        with self.ballast.open('wb') as file, contextlib.suppress(OSError):
          while True:
            file.write(bytes(4096))
            file.flush()


FILLER = Filler()


def test_a_disk_that_is_full_at_every_kind_of_write(mounted, monkeypatch):
  """The error names the file; the same command goes on to an equal end."""
  place, _ = mounted
  monkeypatch.setattr(session, 'make_agent', lambda *x: Plain(*x[:3]))
  settings = {'online_steps': 4, 'eval_every': 2, 'env_workers': 'none'}
  config = tiny(place / 'whole', **settings)
  with make_run(config) as run:
    algorithm_1(run)
  whole = losses(place / 'whole')
  sys.addaudithook(FILLER.hear)
  FILLER.ballast = place / 'ballast'
  logdir = place / 'run'
  config = tiny(logdir, **settings)
  make_env = lambda: wrap_gym(Reach(), config.env)
  for kind, name in KINDS.items():
    FILLER.kind = kind
    with pytest.raises(MotoError) as error:
      train(config, make_env)
    text = str(error.value)
    assert f'{logdir}/{name}' in text and 'No space left' in text, (kind, text)
    assert not FILLER.kind and '\n' not in text
    FILLER.ballast.unlink()
  train(config, make_env)
  assert losses(logdir) == whole
  left = [p for p in logdir.rglob('*') if p.name.startswith(('.', 'ckpt.npz'))]
  assert not left


def test_a_disk_that_is_read_only(mounted):
  place, mount = mounted
  config = tiny(place / 'run')
  mount('-o', 'remount,ro')
  with pytest.raises(files.FileError, match='Read-only file system'):
    make_run(config)
  with pytest.raises(files.FileError, match='Read-only file system'):
    files.reserve(place / 'evaluation' / 'evaluation-00000001.json')
  assert not os.listdir(place)
