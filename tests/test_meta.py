"""What checkpoints, rows and sessions say is checked before it is believed."""

import copy
import json
import zipfile

import numpy as np
import pytest

from moto_tf.presets import make_config
from moto_tf.training import meta, records, rows
from moto_tf.training.checkpoint import CheckpointError, Checkpoints

ARRAYS = {'w': np.ones((2, 3), np.float32), 'steps': np.array(4)}
META = {
  'counters': {
    'gradient_step': 4,
    'agent_step': 16,
    'env_step': 32,
    'episode': 2,
    'lost_episodes': 1,
  },
  'phase': 'online',
  'episodes': ['000000-10', '000001-6'],
  'spaces': {'observations': {'state': [[3], 'float32']}, 'action': [1]},
  'action_range': {'low': [-3.0], 'high': [9.0]},
  'prefill': 1,
  'settings': meta.settings(make_config('debug')),
  'rows': {'metrics': 2, 'evaluations': 1},
  'unfinished': False,
  'unlogged': {'train/kl': 1.5},
}
# Places in META, values that none of them can hold, and a word of the message.
WRONG = [
  ('counters', 3, 'counters is no group'),
  ('counters.gradient_step', 5, 'its name says 4'),
  ('counters.gradient_step', '4', "gradient_step is '4'"),
  ('counters.gradient_step', True, 'gradient_step'),
  ('counters.named', 1, 'named'),
  ('counters.lost_episodes', -1, 'lost_episodes'),
  ('unfinished', 1, 'unfinished'),
  ('unlogged.train/kl', 'much', 'unlogged'),
  ('counters.episode', None, 'episode'),
  ('counters.episode', 1, '2 episodes of 16 transitions'),
  ('counters.agent_step', 17, 'the episodes have 16'),
  ('counters.env_step', 3, '3 env steps'),
  ('counters.env_step', 10**30, 'env_step'),
  ('phase', 'between', 'phase'),
  ('episodes', {}, 'no list'),
  ('episodes', ['../../etc/passwd-16'], 'no name of an episode'),
  ('episodes', ['000000-8', '000000-8'], 'twice'),
  ('spaces', [], 'spaces'),
  ('spaces.action', 1, 'action has no shape'),
  ('spaces.observations.state', [[10**12], 'float32'], 'has the shape'),
  ('spaces.observations.state', [[3], 'object'], "dtype 'object'"),
  ('action_range', [], 'action_range is no group'),
  ('action_range.low', None, "action_range has ['high'], not low and high"),
  ('action_range.high', [9.0, 1.0], 'action_range.high is no number for each'),
  ('action_range.high', ['9'], 'action_range.high'),
  ('prefill', -1, 'prefill'),
  ('settings.seed', '0', 'settings.seed'),
  ('settings.task', None, 'settings.task'),
  ('settings.horizon', {}, 'settings.horizon'),
  ('rows.metrics', 1.5, 'rows.metrics'),
]


def changed(place, value):
  """META with another value at a place; None takes it away."""
  result = copy.deepcopy(META)
  *parents, last = place.split('.')
  group = result
  for name in parents:
    group = group[name]
  group[last] = value
  if value is None:
    del group[last]
  return result


def saved(tmp_path, newest=META, arrays=ARRAYS):
  """Checkpoints whose newest says what is given."""
  plain = Checkpoints(tmp_path, 5)
  old = copy.deepcopy(META)
  old['counters']['gradient_step'] = 2
  plain.save(2, ARRAYS, old)
  plain.save(4, arrays, newest)
  return Checkpoints(tmp_path, 5, meta.check)


def test_what_a_run_says_is_accepted(tmp_path, capsys):
  arrays, said, path = saved(tmp_path).load()
  assert said == json.loads(json.dumps(META)) and path.stem == 'ckpt-00000004'
  old = {k: v for k, v in META.items() if k not in ('settings', 'rows')}
  assert saved(tmp_path, old).load()[1] == old
  # Files of which some were gone, and a copy by another name.
  fewer = changed('episodes', ['000001-6'])
  assert saved(tmp_path, fewer).load()[1]['episodes'] == ['000001-6']
  other = path.rename(tmp_path / 'best.npz')
  assert saved(tmp_path).load(other)[1]['counters'] == META['counters']
  assert not capsys.readouterr().err


@pytest.mark.parametrize('place, value, message', WRONG)
def test_what_cannot_be_falls_back(tmp_path, capsys, place, value, message):
  checkpoints = saved(tmp_path, changed(place, value))
  assert checkpoints.load()[2].stem == 'ckpt-00000002'
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and 'ckpt-00000004.npz is damaged' in error
  assert message in error and '2 gradient steps before' in error
  with pytest.raises(CheckpointError, match='is damaged'):
    checkpoints.load(tmp_path / 'ckpt-00000004.npz')


def test_any_change_is_refused_or_harmless(tmp_path):
  """Values of other types at every place raise ValueError or nothing."""
  values = (None, [], {}, '', 'x', -1, 1.5, 10**400, True, [[[]]], {'': {}})

  def places(group, prefix=''):
    for key, value in group.items():
      yield prefix + key
      if isinstance(value, dict) and prefix != 'settings.':
        yield from places(value, f'{prefix}{key}.')

  names = [x for x in places(META) if not x.startswith('settings.env')]
  refused = 0
  for place in names:
    if place.count('.') > 1 and place.startswith('settings'):
      continue
    for value in values:
      try:
        if place.startswith('settings.'):
          said = copy.deepcopy(META)
          said['settings'][place.removeprefix('settings.')] = value
        else:
          said = changed(place, value)
        meta.check(ARRAYS, said, 4)
      except ValueError:
        refused += 1
  assert refused > 150


@pytest.mark.parametrize(
  'value, message',
  [
    (np.full((2, 3), np.nan, np.float32), 'not finite: w'),
    (np.full((2, 3), -np.inf), 'not finite: w'),
    (np.ones((2, 3), np.complex64), 'w is of complex numbers'),
    (np.full((2, 3), 'one'), 'dtype <U3'),
  ],
)
def test_weights_that_are_none(tmp_path, capsys, value, message):
  checkpoints = saved(tmp_path)
  path = tmp_path / 'ckpt-00000004.npz'
  with np.load(path) as file:
    content = dict(file)
  np.savez(path, **{**content, 'w': value})
  assert checkpoints.load()[2].stem == 'ckpt-00000002'
  assert message in capsys.readouterr().err


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
  checkpoints = saved(tmp_path)
  with pytest.raises(CheckpointError, match='step 6, not finite: w.*unchanged'):
    checkpoints.save(6, {**ARRAYS, 'w': np.array(np.nan)}, META)
  assert [x.stem for x in checkpoints.paths()] == [
    'ckpt-00000004',
    'ckpt-00000002',
  ]


def npy(shape, dtype='<f4', data=b''):
  header = str({'descr': dtype, 'fortran_order': False, 'shape': shape})
  header = header.encode() + b'\n'
  size = len(header).to_bytes(2, 'little')
  return b'\x93NUMPY\x01\x00' + size + header + data


@pytest.mark.parametrize(
  'entry, message',
  [
    (npy((10**12,)), 'claims the shape (1000000000000,)'),
    (npy((-1, 4), data=bytes(16)), 'claims'),
    (npy('(' * 9000), 'damaged'),
    (b'\x93NUMPY\x09\x00', 'damaged'),
  ],
)
def test_sizes_that_lie(tmp_path, capsys, entry, message):
  checkpoints = saved(tmp_path)
  path = tmp_path / 'ckpt-00000004.npz'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('w.npy', entry)
  assert checkpoints.load()[2].stem == 'ckpt-00000002'
  assert message in capsys.readouterr().err


def test_what_unfolds_is_refused(tmp_path, capsys):
  """Of a few bytes, entries of many."""
  checkpoints = saved(tmp_path)
  path = tmp_path / 'ckpt-00000004.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('w.npy', npy((2**27,), data=bytes(2**29)))
  assert checkpoints.load()[2].stem == 'ckpt-00000002'
  assert 'would unfold to' in capsys.readouterr().err


# Rows and sessions.


ROWS = [
  ('{"gradient_step": 1, "train/kl": "much"}', "its train/kl is 'much'"),
  ('{"gradient_step": true}', "its gradient_step is 'True'"),
  ('{"gradient_step": -1}', "its gradient_step is '-1'"),
  ('{"gradient_step": 1, "phase": 3}', "its phase is '3'"),
  ('{"gradient_step": 1, "time": "noon"}', "its time is 'noon'"),
  ('{"gradient_step": 1, "a": {"b": 1}}', 'its a is'),
  ('{"gradient_step": 1, "a": [1, "2"]}', 'its a is'),
  ('{"gradient_step": 1, "a": NaN}', 'line 1 is not a row'),
  ('{"gradient_step": 1, "a": 1e999}', 'its a is'),
  ('{"gradient_step": 1, "a": 1' + '0' * 400 + '}', 'its a is'),
  ('{"gradient_step": 1, "a": 1' + '0' * 5000 + '}', 'line 1 is not a row'),
  ('{"gradient_step": 1, "a": ' + '[' * 10**5, 'line 1 is not a row'),
  ('[1]', 'no object'),
]


@pytest.mark.parametrize('line, problem', ROWS)
def test_lines_that_are_no_rows(tmp_path, capsys, line, problem):
  path = tmp_path / 'metrics.jsonl'
  good = '{"gradient_step": 2, "phase": "online", "a": null, "b": [1, null]}'
  path.write_text(f'{line}\n{good}\n')
  found, (remark,) = rows.read(path)
  assert found == [json.loads(good)]
  assert problem in remark and len(remark) < 300
  assert rows.rewind(path, 2) == found
  assert path.read_text() == good + '\n'
  assert problem in capsys.readouterr().err


def test_rows_that_are_lost_are_counted(tmp_path, capsys):
  path = tmp_path / 'metrics.jsonl'
  for step in (1, 2, 2, 3):
    rows.append(path, {'gradient_step': step})
  # The second row of step 2 came after the checkpoint.
  kept = rows.rewind(path, 2, 2)
  assert [row['gradient_step'] for row in kept] == [1, 2]
  assert '2 rows beyond step 2 dropped' in capsys.readouterr().out
  rows.rewind(path, 2, 5)
  assert '3 of 5 rows up to step 2 are lost' in capsys.readouterr().err
  path.unlink()
  assert rows.rewind(path, 2, 5) == []
  error = capsys.readouterr().err
  assert 'is missing: 5 of 5 rows up to step 2 are lost' in error
  path.unlink()
  rows.rewind(path, 2)
  assert 'is missing: its rows up to step 2' in capsys.readouterr().err


@pytest.mark.parametrize(
  'change',
  [
    {'command': 3},
    {'command': "a 'b"},
    {'changes': [1]},
    {'changes': {'seed': 3}},
    {'machine': 'mine'},
    {'commit': 7},
    {'started': 'today'},
    {'gradient_step': '3'},
  ],
)
def test_sessions_of_other_types(tmp_path, change):
  path = tmp_path / 'sessions.json'
  session = {
    'command': 'python a.py',
    'commit': None,
    'machine': {},
    'gradient_step': 3,
    'changes': {'seed': [1, 2]},
    'started': '2026-01-01T00:00:00+00:00',
  }
  path.write_text(json.dumps([session]))
  assert records.read_sessions(path) == [session]
  path.write_text(json.dumps([session, {**session, **change}]))
  assert records.read_sessions(path) is None
  path.write_text('[' * 10**5)
  assert records.read_sessions(path) is None
