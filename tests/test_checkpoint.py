"""Checkpoints: round trips, damage and failures while writing."""

import errno
import json
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from moto_tf.training.checkpoint import CheckpointError, Checkpoints

ROOT = Path(__file__).parents[1]
ARRAYS = {
  'model/gru/kernel': np.arange(12, dtype=np.float32).reshape(3, 4),
  'file': np.array(7, np.int64),
  'optimiser/scale': np.array([1, 2], np.float16),
}
META = {'counters': {'gradient_step': 5, 'env_step': 400}, 'phase': 'online'}


def _same(actual, expected):
  assert list(actual) == list(expected)
  for name, value in expected.items():
    assert actual[name].dtype == value.dtype, name
    assert actual[name].shape == value.shape, name
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


def _damage(path, fraction=0.5):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * fraction)])


def test_no_checkpoint(tmp_path):
  assert Checkpoints(tmp_path / 'none', 3).load() is None
  assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize(
  'dtype',
  ['bool', 'int8', 'int32', 'int64', 'uint8', 'uint64', 'float16', 'float32']
  + ['float64', 'complex64', '>f4'],
)
def test_round_trip_of_dtypes(tmp_path, dtype):
  rng = np.random.default_rng(0)
  value = rng.integers(0, 2, (3, 4, 5)).astype(dtype)
  arrays = {
    'full': value,
    'scalar': value[0, 0, 0],
    'empty': value[:0],
    'fortran': np.asfortranarray(value[0]),
    'strided': value[::2, ::-1, 1:3],
    'spaced name:0': value[1],
    'x': value[2],
    'x.npy': value[1],
  }
  path = Checkpoints(tmp_path, 1).save(3, arrays, {})
  loaded, meta, source = Checkpoints(tmp_path, 1).load()
  _same(loaded, {k: np.asarray(v) for k, v in arrays.items()})
  assert meta == {} and source == path
  loaded['full'][...] = 0  # Arrays are writable.


def test_numpy_can_open_the_file(tmp_path):
  path = Checkpoints(tmp_path, 1).save(1, ARRAYS, META)
  with np.load(path, allow_pickle=False) as file:
    _same({k: file[k] for k in ARRAYS}, ARRAYS)
    assert json.loads(file['meta'].tobytes()) == META


def test_bfloat16_is_rejected(tmp_path):
  dtype = pytest.importorskip('ml_dtypes').bfloat16
  with pytest.raises(ValueError, match=r"'w'.*bfloat16.*cast it first"):
    Checkpoints(tmp_path, 1).save(0, {'w': np.zeros(3, dtype)}, {})
  with pytest.raises(ValueError, match=r"'o'.*object"):
    Checkpoints(tmp_path, 1).save(0, {'o': np.array([{}])}, {})
  assert not list(tmp_path.iterdir())


def test_meta_round_trip(tmp_path):
  meta = {
    'nested': {'deep': {'list': [1, [2.5, None], {'x': True}], 'empty': {}}},
    'text': 'Größe "q" \n',
    'large': 2**70,
    'float': 0.1,
    'infinite': float('inf'),
    'names': [f'episode-{i:06d}-100' for i in range(5)],
  }
  checkpoints = Checkpoints(tmp_path, 1)
  checkpoints.save(0, {}, meta)
  arrays, loaded, _ = checkpoints.load()
  assert arrays == {} and loaded == meta
  checkpoints.save(1, {}, {'a': np.int64(3), 'b': (np.float32(0.5), 2)})
  assert checkpoints.load()[1] == {'a': 3, 'b': [0.5, 2]}


@pytest.mark.parametrize(
  'meta, problem',
  [
    ({'a': {'b': [0, {1: 2}]}}, r'meta\.a\.b\[1\] has the key 1'),
    ({'a': [np.zeros(2)]}, r'meta\.a\[0\] is a ndarray'),
    ({'a': {'x'}}, r'meta\.a is a set'),
  ],
)
def test_meta_that_json_would_change_is_rejected(tmp_path, meta, problem):
  with pytest.raises(ValueError, match=problem):
    Checkpoints(tmp_path, 1).save(0, {}, meta)


def test_bad_arguments(tmp_path):
  with pytest.raises(ValueError, match='checkpoint_keep is 0'):
    Checkpoints(tmp_path, 0)
  with pytest.raises(ValueError, match='-1'):
    Checkpoints(tmp_path, 1).save(-1, {}, {})
  with pytest.raises(ValueError, match="'meta'"):
    Checkpoints(tmp_path, 1).save(0, {'meta': np.zeros(1)}, {})


def test_keeps_the_last(tmp_path):
  checkpoints = Checkpoints(tmp_path, 2)
  for step in (5, 99_999_999, 100_000_000):  # Also when names grow longer.
    checkpoints.save(step, ARRAYS, {'step': step})
  names = [path.name for path in checkpoints.paths()]
  assert names == ['ckpt-100000000.npz', 'ckpt-99999999.npz']
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
  assert checkpoints.load()[1] == {'step': 100_000_000}


def test_saves_the_same_step_again(tmp_path):
  checkpoints = Checkpoints(tmp_path, 2)
  for value in (1, 2):
    checkpoints.save(7, ARRAYS, {'value': value})
  assert len(checkpoints.paths()) == 1
  assert checkpoints.load()[1] == {'value': 2}


def test_truncated_newest_falls_back(tmp_path, capsys):
  checkpoints = Checkpoints(tmp_path, 3)
  for step in (1, 2, 3):
    checkpoints.save(step, ARRAYS, {'step': step})
  _damage(tmp_path / 'ckpt-00000003.npz')
  (tmp_path / 'ckpt-00000002.npz').write_bytes(b'')
  arrays, meta, path = checkpoints.load()
  text = capsys.readouterr().err
  assert text.startswith('Warning: ') and text.count('\n') == 1
  assert 'ckpt-00000003.npz is damaged' in text
  assert 'ckpt-00000002.npz is damaged' in text
  assert 'Using ckpt-00000001.npz' in text
  assert meta == {'step': 1} and path.name == 'ckpt-00000001.npz'
  _same(arrays, ARRAYS)
  assert (tmp_path / 'ckpt-00000003.npz').exists()


def test_all_damaged(tmp_path):
  checkpoints = Checkpoints(tmp_path, 3)
  for step in (1, 2):
    _damage(checkpoints.save(step, ARRAYS, META))
  with pytest.raises(CheckpointError) as caught:
    checkpoints.load()
  assert 'ckpt-00000001.npz' in str(caught.value)
  assert 'ckpt-00000002.npz' in str(caught.value)


def test_every_damaged_byte_is_noticed(tmp_path):
  checkpoints = Checkpoints(tmp_path, 1)
  path = checkpoints.save(1, ARRAYS, META)
  data = path.read_bytes()
  noticed = 0
  for index in range(len(data)):
    damaged = bytearray(data)
    damaged[index] ^= 0x55
    path.write_bytes(damaged)
    try:
      arrays, meta, _ = checkpoints.load(path)
    except CheckpointError:
      noticed += 1
      continue
    # Some bytes do not matter, such as file times inside the archive.
    _same(arrays, ARRAYS)
    assert meta == META
  assert noticed > 0.7 * len(data)


def test_load_of_a_path(tmp_path):
  checkpoints = Checkpoints(tmp_path, 3)
  first = checkpoints.save(1, ARRAYS, {'step': 1})
  second = checkpoints.save(2, ARRAYS, {'step': 2})
  assert checkpoints.load(first)[1:] == ({'step': 1}, first)
  # By its name alone, as it is listed.
  assert checkpoints.load(first.name)[1:] == ({'step': 1}, first)
  with pytest.raises(CheckpointError, match=r'ckpt-9.*ckpt-00000002\.npz, '):
    checkpoints.load(tmp_path / 'ckpt-9.npz')
  _damage(second)
  with pytest.raises(CheckpointError, match='ckpt-00000002.npz is damaged'):
    checkpoints.load(second)


def test_milestones_are_never_deleted(tmp_path):
  """Nor by a run that goes on without the setting, or from before them."""
  checkpoints = Checkpoints(tmp_path, 1)
  for step in range(1, 7):
    checkpoints.save(step, ARRAYS, {'step': step}, milestone=step % 3 == 0)
  names = lambda: [path.name for path in checkpoints.paths()]
  assert names() == [
    'ckpt-00000006-milestone.npz',
    'ckpt-00000005.npz',
    'ckpt-00000003-milestone.npz',
  ]
  assert checkpoints.load()[1] == {'step': 6}
  # The same step again, whatever the setting is by then.
  checkpoints.save(6, ARRAYS, {'step': 'six'})
  assert len(names()) == 3 and checkpoints.load()[1] == {'step': 'six'}
  checkpoints.save(7, ARRAYS, {})
  checkpoints.save(7, ARRAYS, {'step': 'seven'}, milestone=True)
  assert names()[:2] == [
    'ckpt-00000007-milestone.npz',
    'ckpt-00000006-milestone.npz',
  ]
  for _ in range(2):
    checkpoints.save(4, ARRAYS, {'step': 4})
    checkpoints.save(7, ARRAYS, {'step': 7}, milestone=True)
  moved = sorted(x.name for x in (tmp_path / 'superseded').iterdir())
  assert [x for x in moved if 'milestone' in x] == [
    'ckpt-00000006-milestone.npz',
    'ckpt-00000007-milestone.2.npz',
    'ckpt-00000007-milestone.npz',
  ]


def test_a_stop_while_a_milestone_takes_a_place(tmp_path):
  """Both are there for a moment; the milestone is the newer one."""
  checkpoints = Checkpoints(tmp_path, 2)
  checkpoints.save(5, ARRAYS, {'old': True})
  old = (tmp_path / 'ckpt-00000005.npz').read_bytes()
  checkpoints.save(5, ARRAYS, {'old': False}, milestone=True)
  (tmp_path / 'ckpt-00000005.npz').write_bytes(old)
  assert checkpoints.load()[1] == {'old': False}
  checkpoints.save(5, ARRAYS, {'old': False})
  assert [p.name for p in checkpoints.paths()] == [
    'ckpt-00000005-milestone.npz'
  ]


def test_a_checkpoint_by_its_gradient_step(tmp_path):
  checkpoints = Checkpoints(tmp_path, 1)
  checkpoints.save(4000, ARRAYS, {'step': 4000}, milestone=True)
  checkpoints.save(4500, ARRAYS, {'step': 4500})
  for name in ('4000', '04000', 'ckpt-00004000-milestone.npz'):
    assert checkpoints.load(Path(name))[1] == {'step': 4000}, name
  assert checkpoints.load(Path('4500'))[2].name == 'ckpt-00004500.npz'
  with pytest.raises(CheckpointError, match=r'ckpt-00000400\.npz.*00004500'):
    checkpoints.load(Path('400'))


def test_later_checkpoints_are_superseded(tmp_path, capsys):
  checkpoints = Checkpoints(tmp_path, 1)
  checkpoints.save(500, ARRAYS, {'step': 500})
  (tmp_path / 'ckpt-00001000.npz').write_bytes(b'damaged')
  checkpoints.save(600, ARRAYS, {'step': 600})
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert checkpoints.load()[1] == {'step': 600}
  moved = tmp_path / 'superseded' / 'ckpt-00001000.npz'
  assert moved.read_bytes() == b'damaged'
  assert 'ckpt-00001000.npz' in capsys.readouterr().out
  assert [p.name for p in checkpoints.paths()] == ['ckpt-00000600.npz']


def test_failure_in_the_middle_keeps_the_old_one(tmp_path):
  checkpoints = Checkpoints(tmp_path, 1)
  old = checkpoints.save(1, ARRAYS, META)
  before = old.read_bytes()
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  # The system refuses to write beyond this size, as a full disk would.
  resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
  try:
    with pytest.raises(CheckpointError) as caught:
      checkpoints.save(2, {'big': np.ones(100_000)}, META)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  text = str(caught.value)
  assert str(tmp_path / 'ckpt-00000002.npz') in text
  assert 'MiB are free' in text
  assert 'previous checkpoint ckpt-00000001.npz is unchanged' in text
  assert [p.name for p in tmp_path.iterdir()] == [old.name]
  assert old.read_bytes() == before


def test_full_disk_at_the_end_of_writing(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path, 1)
  old = checkpoints.save(1, ARRAYS, META)

  def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', full)
    with pytest.raises(CheckpointError, match='No space left on device'):
      checkpoints.save(2, ARRAYS, META)
  assert [p.name for p in tmp_path.iterdir()] == [old.name]
  checkpoints.save(2, ARRAYS, META)  # Works once there is space.
  assert checkpoints.load()[2].name == 'ckpt-00000002.npz'


def test_directory_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(CheckpointError, match='file/ckpt-00000001.npz'):
    Checkpoints(tmp_path / 'file', 1).save(1, ARRAYS, META)


def test_killed_while_writing(tmp_path):
  checkpoints = Checkpoints(tmp_path, 2)
  checkpoints.save(1, ARRAYS, META)
  script = (
    'import os, sys, numpy as np\n'
    'from moto_tf.training.checkpoint import Checkpoints\n'
    'os.fsync = lambda handle: os.kill(os.getpid(), 9)\n'
    'Checkpoints(sys.argv[1], 2).save(2, {"x": np.ones(1000)}, {})\n'
  )
  done = subprocess.run([sys.executable, '-c', script, str(tmp_path)], cwd=ROOT)
  assert done.returncode == -9
  assert len(list(tmp_path.iterdir())) == 2, 'expected a stray file'
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    arrays, meta, path = checkpoints.load()
  _same(arrays, ARRAYS)
  assert meta == META and path.name == 'ckpt-00000001.npz'
  checkpoints.save(3, ARRAYS, META)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'ckpt-00000001.npz',
    'ckpt-00000003.npz',
  ]


def test_imports_no_tensorflow():
  script = (
    'import sys, moto_tf.training.checkpoint; '
    'sys.exit("tensorflow" in sys.modules)'
  )
  assert (
    subprocess.run([sys.executable, '-c', script], cwd=ROOT).returncode == 0
  )
