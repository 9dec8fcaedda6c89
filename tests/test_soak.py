"""Kills at writes, in short; scripts/soak.py does it at length."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from moto_tf.training import soak

ROOT = Path(__file__).parents[1]


def test_killed_runs_end_equal(tmp_path):
  """In a process of its own, in which nobody has used TensorFlow yet."""
  text = (ROOT / 'tests' / 'plain_agent.py').read_text()
  register = "\n\nimport moto_tf\nmoto_tf.register_method('plain', Plain)\n"
  plugin = tmp_path / 'plain_method.py'
  plugin.write_text(text + register)
  command = [sys.executable, 'scripts/soak.py', '--kills', '12']
  command += ['--plugins', str(plugin), '--method', 'plain']
  command += ['--out', str(tmp_path / 'soak.txt'), '--env_workers', 'none']
  done = subprocess.run(
    command,
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.count('equal, nothing left over') >= 2
  assert (tmp_path / 'soak.txt').read_text().startswith('12 kills by SIGKILL')


def test_moments_are_heard(tmp_path):
  """Every kind of write is told, once, by a name without numbers."""
  logdir, log = tmp_path / 'run', tmp_path / 'moments'
  logdir.mkdir()
  script = (
    'import sys; from pathlib import Path; from moto_tf import files; '
    'from moto_tf.training import rows, soak; '
    'logdir, log = map(Path, sys.argv[1:3]); '
    'target = tuple(sys.argv[3:5]) + (1,) if sys.argv[3:] else None; '
    'sys.addaudithook(soak._Hook(logdir, target, log).hear); '
    'files.write_atomic(logdir / "a-12.npz", bytes(100)); '
    'rows.append(logdir / "m.jsonl", {"gradient_step": 123456789}); '
    'rows.append(logdir / "m.jsonl", {"gradient_step": 2}); '
    '(logdir / "m.jsonl").read_bytes(); '
    '(logdir / "m.jsonl").unlink()'
  )
  run = lambda *args: (
    subprocess.run(
      [sys.executable, '-c', script, str(logdir), str(log), *args], cwd=ROOT
    ).returncode
  )
  assert run() == 0
  moments = log.read_text().splitlines()
  assert moments == [
    'open .a-N.npz-N.tmp',
    'rename a-N.npz',
    'remove .a-N.npz-N.tmp',  # In case it had failed.
    'open m.jsonl',
    'open m.jsonl',
    'remove m.jsonl',
  ]
  shutil.rmtree(logdir)
  logdir.mkdir()
  assert run('rename a-N.npz', 'before') == -9
  (path,) = logdir.iterdir()
  assert path.name.endswith('.tmp') and path.read_bytes() == bytes(100)
  path.unlink()
  assert run('open m.jsonl', 'within') == -9
  assert (logdir / 'm.jsonl').read_text() == '{"gradient_step": 1'


def test_differences_are_found(tmp_path, monkeypatch):
  for name in ('_checkpoint', '_episodes', '_events'):
    monkeypatch.setattr(soak, name, lambda path: None)
  runs = [tmp_path / 'a', tmp_path / 'b']
  for count, path in enumerate(runs):
    path.mkdir()
    row = {'gradient_step': 1, 'time': count, 'time/x': count, 'train/kl': 1.5}
    (path / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
    (path / 'evaluations.jsonl').touch()
  assert soak.differences(*runs) == []
  with (runs[1] / 'metrics.jsonl').open('a') as file:
    file.write('{"gradient_step": 2}\n')
  (runs[1] / '.lock').touch()
  files, rows = soak.differences(*runs)
  assert files == "files ['.lock']" and rows.startswith('metrics.jsonl: ')
