"""Runs that the documents name with their command can be made with it again.

Presets may change; then either the runs behind them are made anew, or the
documents say which settings they had.
"""

import json
import re
import shlex
from pathlib import Path

import pytest

from moto_tf.commands import settings
from moto_tf.config import DATA, flatten, is_read
from moto_tf.renames import upgrade

RESULTS = Path(__file__).parents[1] / 'results'
NAMED = [
  path.relative_to(RESULTS)
  for pattern in (
    'kitchen_pixels/*/*/*.json',
    'kitchen_trials/pixels_partial_*.json',
    'kitchen_state/*/*/*.json',
    'methods_state/*/*/*.json',
  )
  for path in sorted(RESULTS.glob(pattern))
  if 'figures' not in path.parts
]


@pytest.mark.parametrize('path', NAMED, ids=str)
def test_a_command_gives_the_settings_on_record(path):
  content = json.loads((RESULTS / path).read_text())
  command = content['sessions'][-1]['command']
  words = shlex.split(
    re.sub(r'^python (\S+/train.py|-m moto_tf train)', '', command)
  )
  before = flatten(upgrade(content['config']))
  now = settings.parse(words, 'train').flat
  plain = lambda value: list(value) if isinstance(value, tuple) else value
  other = {
    key: (value, now[key])
    for key, value in before.items()
    if key in now and is_read(now, key) and plain(now[key]) != plain(value)
  }
  # A name that a run may get later, and places, which are whole paths now.
  for key in ('variant', *DATA):
    other.pop(key, None)
  assert not other
  # Nor had it a setting that is no more.
  assert not before.keys() - now.keys()


def test_there_are_such_runs():
  assert len({path.parts[0] for path in NAMED}) == 4
  assert len(NAMED) > 20
