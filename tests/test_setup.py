"""What scripts/setup.sh refuses to touch."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_folder_that_is_no_environment_is_not_emptied(tmp_path):
  (tmp_path / 'file').write_text('mine')
  done = subprocess.run(
    ['bash', str(ROOT / 'scripts' / 'setup.sh')],
    env={**os.environ, 'MOTO_VENV': str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert f'{tmp_path} is there and is no environment' in done.stderr
  assert (tmp_path / 'file').read_text() == 'mine'
