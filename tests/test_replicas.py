"""Replicas that share every batch; docs/distributed.md says what is equal.

Processes of their own do the work, since devices are split, and processes meet,
before TensorFlow starts: replica_cases.py and replica_run.py.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_config

from moto_tf import cluster
from moto_tf.nn import crew as crews
from moto_tf.nn import replicas
from moto_tf.rules import ConfigError
from moto_tf.signals import StopRequest
from moto_tf.training.checkpoint import Checkpoints
from moto_tf.training.helper import help_chief
from moto_tf.training.session import Stopped, open_crew

HERE = Path(__file__).parent
# Sums of halves against sums of wholes, in float32.
TOLERANCE = 1e-5
PATIENCE = 400  # Seconds, on a machine that is busy.


def start(*args, **environ):
  text = [str(arg) for arg in args]
  return subprocess.Popen(
    [sys.executable, *text],
    cwd=HERE.parent,
    env={**os.environ, 'PYTHONPATH': str(HERE.parent), **environ},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  """What a process has said, and its exit status."""
  try:
    text, _ = process.communicate(timeout=PATIENCE)
  finally:
    process.kill()
  return text, process.returncode


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  path = tmp_path_factory.mktemp('replicas') / 'found.npz'
  text, code = finish(start(HERE / 'replica_cases.py', path))
  assert code == 0, text
  with np.load(path) as file:
    return dict(file)


def part(found, prefix):
  start = f'{prefix}/'
  return {k[len(start) :]: v for k, v in found.items() if k.startswith(start)}


def assert_close(found, expected):
  assert found.keys() == expected.keys() and found
  for key, value in expected.items():
    scale = max(np.abs(value).max(), 1e-3)
    error = np.abs(found[key] - value).max() / scale
    assert error < TOLERANCE, (key, error)


def test_helpers_of_losses(found):
  helpers = part(found, 'helpers')
  assert helpers['average'].tolist() == [2, 2]
  assert helpers['total'].tolist() == [4, 4]
  # (1 + 3) / 2 replicas; and never less than 1 record in all.
  assert helpers['divisor'].tolist() == [2, 2]
  assert helpers['empty'].tolist() == [0.5, 0.5]
  # The mean is 2: above 1.5, where each keeps its own, and below 2.5.
  assert helpers['above'].tolist() == [1, 3]
  assert helpers['below'].tolist() == [2.5, 2.5]
  assert helpers['slopes'].tolist() == [1, 1]
  # A loss that is not a number is seen, as with one replica.
  assert np.isnan(helpers['broken']).all()
  assert helpers['starts'].shape == (2, 3)  # Of 6 for both.
  one, two = helpers['seed'].tolist()
  assert one != two and min(one + two) >= 0


@pytest.mark.parametrize('name', ['moto', 'bc'])
def test_two_replicas_are_one(found, name):
  """Counted denominators included: the starts and clones lie unevenly.

  And free nats, which the batch exceeds and one half of it does not.
  """
  assert found['free/halves'].min() < found['free/nats']
  assert found['free/nats'] < found['free/halves'].mean()
  one, two = part(found, f'{name}/one'), part(found, f'{name}/two')
  assert_close(part(two, 'slot'), part(one, 'slot'))
  assert_close(part(two, 'metric'), part(one, 'metric'))
  assert any(np.abs(v).max() > 1e-3 for v in part(one, 'slot').values())


@pytest.mark.parametrize('name', ['moto', 'bc'])
def test_replicas_stay_equal(found, name):
  first, second = part(found, f'{name}/first'), part(found, f'{name}/second')
  assert first.keys() == second.keys() and first
  for key, value in first.items():
    np.testing.assert_array_equal(second[key], value, key)


def test_seeds_are_folded(found):
  """The gradient is the mean of those of both halves, each with its seed."""
  assert found['folded/norm'] < 100  # Nothing was clipped.
  assert_close(part(found, 'folded/two'), part(found, 'folded/hand'))


def test_overflow_of_one_replica_skips_the_step_of_all(found):
  assert found['overflow/skipped'] == 1
  assert found['overflow/scales'].tolist() == [2**14, 2**14]
  assert all('loss_scale' in key for key in found['overflow/changed'])


def test_one_replica_adds_nothing():
  value = tf.constant(2.0)
  assert replicas.average([value])[0] is value
  assert replicas.total(value) is value and replicas.share(5) == 5
  assert replicas.count() == 1


def config_of(index, ports, kind='worker'):
  addresses = [f'127.0.0.1:{port}' for port in ports]
  task = {'type': kind, 'index': index}
  return json.dumps({'cluster': {'worker': addresses}, 'task': task})


def free_ports(count):
  sockets = [socket.socket() for _ in range(count)]
  for each in sockets:
    each.bind(('127.0.0.1', 0))
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports


def start_two(directory, other, *kill):
  ports = free_ports(2)
  run = HERE / 'replica_run.py'
  chief = start(run, directory, *kill, TF_CONFIG=config_of(0, ports))
  helper = start(run, other, TF_CONFIG=config_of(1, ports))
  return chief, helper


def test_processes(tmp_path):
  """Two processes equal two devices; one is killed, and the run goes on."""
  text, code = finish(start(HERE / 'replica_run.py', tmp_path / 'one'))
  assert code == 0, text
  pid = tmp_path / 'pid'
  two, other = tmp_path / 'two', tmp_path / 'other'
  chief, helper = start_two(two, other, pid)
  pid.write_text(str(helper.pid))
  assert finish(helper)[1] == -signal.SIGKILL
  lost = time.monotonic()
  text, code = finish(chief)
  assert code == 1 and time.monotonic() - lost < PATIENCE / 2, text
  assert 'Error: Process 0 of 2 has lost another one' in text
  assert 'The same command, in all processes, continues' in text
  assert 'Traceback' not in text, text
  chief, helper = start_two(two, other)
  text, code = finish(chief)
  assert code == 0 and 'Continuing from ckpt-00000008.npz' in text, text
  text, code = finish(helper)
  assert code == 0 and 'The chief has ended the run.' in text, text
  assert not other.exists()
  rows = [
    (directory / 'bc/0/metrics.jsonl').read_text().splitlines()
    for directory in (tmp_path / 'one', two)
  ]
  timed = lambda key: key == 'time' or key.startswith(('time/', 'memory/'))
  rows = [
    [{k: v for k, v in json.loads(row).items() if not timed(k)} for row in x]
    for x in rows
  ]
  assert rows[0] == rows[1] and len(rows[0]) == 12
  ends = [
    Checkpoints(x / 'bc/0/checkpoints', 1).load()[0]
    for x in (tmp_path / 'one', two)
  ]
  for key, value in ends[0].items():
    np.testing.assert_array_equal(ends[1][key], value, key)


@pytest.mark.parametrize(
  'error, ending',
  [
    (None, None),
    (Stopped(signal.SIGTERM), (Stopped, 'SIGTERM: saved')),
    (
      ConfigError('no data'),
      (crews.ReplicaError, 'chief has ended with an er'),
    ),
  ],
)
def test_helpers_end_as_the_chief_does(error, ending, monkeypatch):
  """So that whoever started them learns of it, on whatever machine."""
  said = []
  chief = crews.Crew.__new__(crews.Crew)
  chief.chief, chief._whole = True, True
  chief.tell = lambda head, arrays: said.append(json.loads(json.dumps(head)))
  with contextlib.suppress(ConfigError, Stopped), chief:
    if error:
      raise error
  assert len(said) == 1 and not chief._whole

  class Helper:
    def __init__(self, *args):
      pass

    def hear(self, asked):
      return said.pop(), {}

  monkeypatch.setattr(crews, 'Crew', Helper)
  end = pytest.raises(ending[0], match=ending[1]) if ending else None
  with end or contextlib.nullcontext():
    help_chief(tiny_config(), None)


def test_messages():
  arrays = {
    'image': np.arange(6, dtype=np.uint8).reshape(2, 3),
    'first': np.array([True, False]),
    'half': np.array(1.5, np.float16),
    'none': np.zeros((0, 3)),
  }
  message = crews.pack({'do': 'train', 'step': 2**40}, arrays)
  assert message.dtype == np.int32
  head, found = crews.unpack(message + np.zeros_like(message))
  assert (
    head == {'do': 'train', 'step': 2**40} and found.keys() == arrays.keys()
  )
  for key, value in arrays.items():
    assert found[key].dtype == value.dtype
    np.testing.assert_array_equal(found[key], value)


def test_cluster():
  config = tiny_config(replicas=2, replay__batch=4, eager=False)
  find = lambda text: cluster.find(config, {'TF_CONFIG': text})
  assert find('') == find('{}') == cluster.Cluster() and find('').size == 1
  assert find(config_of(0, [1])).size == 1
  assert find(config_of(1, [1, 2])) == (('127.0.0.1:1', '127.0.0.1:2'), 1)
  jobs = {'worker': ['b:1'], 'chief': ['a:1']}
  for kind, number in (('chief', 0), ('worker', 1)):
    task = {'type': kind, 'index': 0}
    text = json.dumps({'cluster': jobs, 'task': task})
    assert find(text) == (('a:1', 'b:1'), number)


@pytest.mark.parametrize(
  'text',
  [
    'host0:2222',
    '[1]',
    config_of(2, [1, 2]),
    config_of(-1, [1, 2]),
    config_of(0, [1, 1]),
    config_of(0, [1, 2], 'evaluator'),
    '{"cluster": {"worker": ["a:1", "b:1"]}}',
    '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "task": {}}',
    '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
  ],
)
def test_cluster_that_is_none(text):
  with pytest.raises(ConfigError, match='TF_CONFIG is .*, expected'):
    cluster.find(tiny_config(), {'TF_CONFIG': text})


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'replay.batch': 3}, 'replay.batch: 3 .* --replay.batch 4'),
    ({'moto.start_states': 7}, 'moto.start_states: 7 .* 8'),
    ({'jit': True}, 'jit: True does not go together with replicas: 2'),
    ({'eager': True}, 'eager: True'),
    ({'method': 'lompo', 'rssm.discrete': 0}, 'steps of lompo cannot'),
    ({'replicas': 0}, 'replicas: 0 is not possible'),
  ],
)
def test_settings_that_cannot_be_shared(overrides, message):
  base = {'replicas': 2, 'replay.batch': 4, 'eager': False}
  with pytest.raises(ConfigError, match=message):
    tiny_config(**{**base, **overrides})


def test_too_few(monkeypatch):
  config = tiny_config(replicas=3, moto__start_states=9, eager=False)
  two = {'replicas': 2, 'replay.batch': 4, 'eager': False}
  with pytest.raises(ConfigError, match='3 cannot be spread over the 2'):
    cluster.find(config, {'TF_CONFIG': config_of(0, [1, 2])})
  with pytest.raises(ConfigError, match='3 need as many devices'):
    open_crew(config, StopRequest())
  monkeypatch.setenv('TF_CONFIG', config_of(1, [1, 2]))
  with pytest.raises(ConfigError, match='process 1, which only helps'):
    open_crew(tiny_config(**two), StopRequest())
