"""What scripts/setup.sh refuses to touch, and pins that fit the package."""

import os
import subprocess
import tomllib
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


def test_requirements_agree_with_the_package():
  """The exact pins lie in the ranges that the package asks for."""
  from packaging.requirements import Requirement

  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  lines = (ROOT / 'requirements.txt').read_text().splitlines()
  pins = dict(x.split('==') for x in lines if x and not x.startswith('#'))
  for text in project['dependencies']:
    need = Requirement(text)
    assert need.specifier.contains(pins.pop(need.name)), text
  assert not pins  # Test tools are in requirements-test.txt.
