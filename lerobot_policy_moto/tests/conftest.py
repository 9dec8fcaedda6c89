"""What scripts/test_lerobot.sh has recorded, trained and exported."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope='session')
def data():
  place = os.environ.get('MOTO_LEROBOT_DATA')
  if not place:
    pytest.skip('needs data: bash scripts/test_lerobot.sh')
  return Path(place)


@pytest.fixture(scope='session')
def exported(data):
  return data / 'exported'


@pytest.fixture(scope='session')
def episodes(data):
  """Recorded episodes in moto_tf's own layout."""
  return [dict(np.load(x)) for x in sorted((data / 'demos').glob('*.npz'))]
