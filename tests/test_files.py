"""Files appear whole or not at all, and errors say what to do."""

import json
import os
from pathlib import Path

import pytest

from moto_tf import files
from moto_tf.files import FileError


def test_a_file_is_replaced_as_a_whole(tmp_path):
  """By another one, so that whoever reads the old one goes on reading it."""
  path = tmp_path / 'deep' / 'file'
  assert files.write_atomic(path, b'old') == path
  number = path.stat().st_ino
  with path.open('rb') as reader:

    def before():
      assert path.read_bytes() == b'old'
      (partial,) = (x for x in path.parent.iterdir() if x != path)
      assert partial.read_bytes() == b'new' and partial.name.startswith('.')

    with files.replacing(path, before=before) as stream:
      stream.write(b'new')
    assert reader.read() == b'old'
  assert path.read_bytes() == b'new' and path.stat().st_ino != number
  assert os.listdir(path.parent) == ['file']


@pytest.mark.parametrize('moment', ['inside', 'before', 'fsync', 'replace'])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, moment):
  path = tmp_path / 'file'
  files.write_atomic(path, b'old')

  def fail(*args):
    raise OSError(28, 'No space left on device')

  if moment in ('fsync', 'replace'):
    monkeypatch.setattr(f'os.{moment}', fail)
  message = f'Cannot write {path}: No space left .* GiB free.*Make room'
  before = fail if moment == 'before' else None
  with pytest.raises(FileError, match=message):
    with files.replacing(path, before=before) as stream:
      stream.write(b'new')
      if moment == 'inside':
        fail()
  assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['file']


def test_other_errors_are_not_of_the_file(tmp_path):
  with pytest.raises(KeyError):
    with files.replacing(tmp_path / 'file') as stream:
      stream.write(b'new')
      raise KeyError
  assert not os.listdir(tmp_path)


def test_json(tmp_path):
  path = files.write_json(tmp_path / 'x.json', {'a': [1, 2.5, None]})
  assert json.loads(path.read_text()) == {'a': [1, 2.5, None]}
  with pytest.raises(ValueError):
    files.write_json(path, float('nan'))
  assert json.loads(path.read_text()) == {'a': [1, 2.5, None]}


def test_a_place_that_cannot_be(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(FileError, match='Cannot write .*file/x'):
    files.write_atomic(tmp_path / 'file' / 'x', b'')


def test_a_folder_appears_as_a_whole(tmp_path):
  path = tmp_path / 'deep' / 'folder'
  with files.appearing(path) as partial:
    (partial / 'a').mkdir()
    (partial / 'a' / 'file').write_text('x')
    assert not path.exists() and partial.name.startswith('.')
  assert (path / 'a' / 'file').read_text() == 'x'
  assert os.listdir(path.parent) == ['folder']
  # Nothing is left of one that failed, its new parents included.
  with (
    pytest.raises(KeyError),
    files.appearing(tmp_path / 'new' / 'x') as place,
  ):
    (place / 'file').write_text('x')
    raise KeyError
  assert os.listdir(tmp_path) == ['deep']
  with files.appearing(tmp_path / 'x') as place:
    place.rename(tmp_path / 'failed')
  assert sorted(os.listdir(tmp_path)) == ['deep', 'failed']


def test_what_killed_processes_have_left_is_removed(tmp_path, monkeypatch):
  """Files and folders, but nothing that is being written or was finished."""
  file, folder, new = (tmp_path / f'.{x}-7.tmp' for x in 'abc')
  file.write_text('x')
  for place in (folder, new):
    place.mkdir()
    (place / 'file').write_text('x')
  for path in (file, folder, folder / 'file', new):
    os.utime(path, (0, 0))
  files.sweep([tmp_path], 60)
  assert [x.name for x in tmp_path.iterdir()] == [new.name]
  # One that another process finishes in between.
  gone = tmp_path / '.d-7.tmp'
  monkeypatch.setattr(type(tmp_path), 'glob', lambda path, text: [gone, new])
  files.sweep([tmp_path])
  assert not list(tmp_path.iterdir())


def test_a_directory_is_no_file_to_write(tmp_path, monkeypatch):
  """Told before minutes of work, also of one without a name of its own."""
  monkeypatch.chdir(tmp_path)
  for path in (tmp_path, Path('.')):
    with pytest.raises(files.FileError, match='is a directory; give the name'):
      files.reserve(path, replace=True)
  files.reserve(Path('new.json'))
  assert not list(tmp_path.iterdir())
