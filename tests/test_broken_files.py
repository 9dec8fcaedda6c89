"""Whatever a file claims: one line that names it, in time and in memory."""

import collections
import itertools
import resource
import time

import broken_files
import gymnasium
import numpy as np
import pytest

from moto_tf.commands import dataset, train
from moto_tf.data import episodes
from moto_tf.data.cloning import Cloning
from moto_tf.data.replay import Replay
from moto_tf.errors import MotoError
from moto_tf.training.checkpoint import Checkpoints

SPACES = {
  'image': gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
  'state': gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32),
}
ACT_SPACE = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
SECONDS, MIB = 5, 400
LONG = 700  # Of a message.
VALUES = (
  *('a zero in a path', 'nobody', 'a width', 'half a pair'),
  *('an empty list', 'too many layers'),
)


def make_episode(length=6, seed=0):
  rng = np.random.default_rng(seed)
  index = np.arange(length + 1)
  return {
    'image': rng.integers(0, 256, (length + 1, 8, 8, 3), np.uint8),
    'state': rng.standard_normal((length + 1, 5)).astype(np.float32),
    'action': 0.1 * np.eye(length + 1, 2, -1, np.float32),
    'reward': (index >= 4).astype(np.float32),
    'is_first': index == 0,
    'is_last': index == length,
    'is_terminal': np.zeros(length + 1, bool),
    'success': index >= 4,
  }


def outcome(capsys, name, call, *args):
  """How a call with a broken file ends: clear, unclear, traceback, accepted.

  Clear is one line that names the file, soon and without much memory.
  """
  begin, before = time.process_time(), peak_mib()
  try:
    call(*args)
    text = ''
  except MotoError as error:
    text = str(error)
  except SystemExit as error:
    text = (
      error.code if isinstance(error.code, str) else capsys.readouterr().err
    )
  except BaseException as error:
    return f'traceback: {error!r:.200}'
  if time.process_time() - begin > SECONDS or peak_mib() - before > MIB:
    return f'unclear: {time.process_time() - begin:.0f} s, {peak_mib()} MiB'
  if not text:
    return 'accepted'
  fits = name in text and '\n' not in text.strip() and len(text) < LONG
  return 'clear' if fits and 'Traceback' not in text else f'unclear: {text}'


def peak_mib():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settle(found, tally, kind):
  """All are clear; the counts are shown at the end of the tests."""
  tally[kind] = collections.Counter(x.partition(':')[0] for x in found.values())
  assert not {k: v for k, v in found.items() if v != 'clear'}


def test_episode_files(tmp_path, tally, capsys):
  """With spaces, without, and from the header alone where it lies."""
  found = {}
  for name, make in broken_files.episodes(make_episode()).items():
    path = tmp_path / f'{name}.npz'
    make(path)
    for spaces in ((SPACES, ACT_SPACE), ()):
      sound = not spaces and name in (
        'no state', 'large images', 'actions of 100'
      )  # fmt: skip
      if not sound:
        found[name, bool(spaces)] = outcome(
          capsys, path.name, episodes.load_episode, path, *spaces
        )
    length = outcome(capsys, path.name, episodes.episode_length, path)
    assert length in ('clear', 'accepted'), (name, length)
  settle(found, tally, 'episode files')


def test_a_flag_that_the_directory_hides_is_missed(tmp_path):
  """Flags may be absent, but not since an entry before them swallows them."""
  records = {'state': np.zeros((5, 2), np.float32), 'reward': np.zeros(5)}
  records |= {'action': np.zeros((5, 1)), 'success': np.ones(5, bool)}
  hides = b'\xff\xff'  # The length of the comment of an entry.
  path = broken_files.patch(tmp_path / 'a.npz', records, 32, hides, -2)
  with pytest.raises(episodes.EpisodeError, match='has 3 of 4 entries'):
    episodes.load_episode(path)


def test_the_replay_goes_on_behind_a_broken_file(tmp_path, tally, capsys):
  """As many good episodes are held as without it, whatever it claims."""
  found = {}
  for name, make in broken_files.episodes(make_episode()).items():
    folder = tmp_path / name
    for i in (0, 2, 3):
      episodes.save_episode(folder, f'{i}', make_episode(seed=i))
    path = folder / '1-6.npz'
    make(path)
    for capacity in (18, 100):
      replay = Replay(
        folder, None, SPACES, ACT_SPACE, batch=1, length=2, capacity=capacity,
        offline_share=-1, seed=0, cloning=Cloning(),
      )  # fmt: skip
      text = capsys.readouterr().err
      held = replay.stats()['transitions']
      good = held == 18 and path.name in text
      found[name, capacity] = 'clear' if good else f'accepted: {held} {text}'
  settle(found, tally, 'replays with a broken file')


def test_checkpoints(tmp_path, tally, capsys):
  """The one before is used, and the broken one is named."""
  arrays = {'model/w': np.arange(7, dtype=np.float32), 'n': np.array(3)}
  good = {**arrays, 'meta': np.frombuffer(b'{"a": 1}', np.uint8)}
  makers = broken_files.archives(good, 'model/w')
  for name, data in broken_files.metas().items():
    meta = np.frombuffer(data, np.uint8)
    makers[f'meta: {name}'] = lambda path, meta=meta: broken_files.write(
      path, {**arrays, 'meta': meta}
    )
  makers['no meta'] = lambda path: broken_files.write(path, arrays)
  found = {}
  for name, make in makers.items():
    checkpoints = Checkpoints(tmp_path / name, 3)
    before = checkpoints.save(1, arrays, {'a': 1})
    path = before.with_name('ckpt-00000002.npz')
    make(path)
    found[name, 'named'] = outcome(capsys, path.name, checkpoints.load, path)
    begin = time.process_time()
    loaded = checkpoints.load()
    text = capsys.readouterr().err
    good = loaded[2] == before and path.name in text
    good = good and time.process_time() - begin < SECONDS
    found[name] = 'clear' if good else f'accepted: {text}'
  settle(found, tally, 'checkpoints')


def test_files_of_settings(tmp_path, tally, capsys):
  found = {}
  for name, text in broken_files.yaml_texts().items():
    path = tmp_path / f'{name}.yaml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    argv = ['--configs', str(path), '--print-config']
    # A value that cannot be is named by its key, wherever it stands.
    key = text.split(':')[0] if name in VALUES else path.name
    found[name] = outcome(capsys, key, train.main, argv)
  assert found.pop('a pattern without end') == 'clear'
  settle(found, tally, 'files of settings')


def test_records_of_datasets(tmp_path, tally, capsys):
  found = {}
  for name, text in broken_files.json_texts().items():
    folder = tmp_path / name
    episodes.save_episode(folder, '0', make_episode())
    data = text if isinstance(text, bytes) else text.encode()
    (folder / 'dataset.json').write_bytes(data)
    argv = ['info', str(folder)]
    found[name] = outcome(capsys, 'dataset.json', dataset.main, argv)
  settle(found, tally, 'dataset.json')


def read(source, path):
  return source(path).read(0)


HDF5 = {
  'd4rl': ('observations', 'rewards'),
  'minari': ('episode_0/observations/observation', 'episode_0/rewards'),
}


@pytest.mark.parametrize('kind', HDF5)
def test_hdf5_files(kind, tmp_path, tally, capsys):
  from moto_tf.envs.kitchen.sources import d4rl, minari

  rows = 20
  good = {
    'd4rl': {
      'observations': np.zeros((rows, 60), np.float32),
      'actions': np.zeros((rows, 9), np.float32),
      'rewards': np.zeros(rows, np.float32),
      'terminals': np.zeros(rows, np.float32),
    },
    'minari': {
      'episode_0/observations/observation': np.zeros((rows + 1, 59)),
      'episode_0/actions': np.zeros((rows, 9)),
      'episode_0/rewards': np.zeros(rows),
    },
  }[kind]
  source = {'d4rl': d4rl, 'minari': minari}[kind].Source
  found = {}
  for key, (name, make) in itertools.product(
    HDF5[kind], broken_files.hdf5(good, HDF5[kind][0]).items()
  ):
    make = broken_files.hdf5(good, key)[name]
    path = tmp_path / f'{name} {key.replace("/", " ")}.hdf5'
    make(path)
    found[name, key] = outcome(capsys, path.name, read, source, path)
  settle(found, tally, f'HDF5 files of {kind}')
