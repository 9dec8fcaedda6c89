"""Labels of a person: what is written, what training makes of it, kills."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from label_helpers import (
  Client,
  load,
  make_directory,
  make_episode,
  members,
  serving,
)

from moto_tf.commands import label as command
from moto_tf.data import inspect
from moto_tf.data.cloning import Cloning
from moto_tf.data.episodes import EpisodeError, save_episode
from moto_tf.data.replay import Replay
from moto_tf.files import FileError
from moto_tf.labelling import labels
from moto_tf.labelling.collection import RECORD, Collection
from moto_tf.labelling.labels import KEPT, LabelError

ROOT = Path(__file__).parents[1]
SPACES = {
  'image': gymnasium.spaces.Box(0, 255, (12, 16, 3), np.uint8),
  'state': gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32),
}
ACT = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def open_replay(offline, online=None, **options):
  usual = {'cloning': Cloning(), 'success_share': 0.5, 'seed': 0}
  usual |= {'batch': 4, 'length': 4, 'capacity': 1000, 'offline_share': -1}
  return Replay(offline, online, SPACES, ACT, **usual | options)


def flags(records, start):
  return np.arange(records) >= (records if start is None else start)


# What is written.


@pytest.mark.parametrize('start', [6, 1, 3, None])
def test_a_label_changes_success_alone(tmp_path, start):
  path = save_episode(tmp_path, 'a', make_episode())
  before, recorded = members(path), load(path)
  labels.set_label(path, start)
  after = members(path)
  assert list(tmp_path.iterdir()) == [path] and path.name == 'a-6.npz'
  assert after.pop('log_success_recorded.npy') == before.pop('success.npy')
  del after['success.npy']
  assert list(after) == list(before) and after == before
  loaded = load(path)
  assert loaded['success'].dtype == bool
  np.testing.assert_array_equal(loaded['success'], flags(7, start))
  for key in ('reward', 'image', 'log_kettle'):
    np.testing.assert_array_equal(loaded[key], recorded[key])


def test_a_later_label_begins_with_what_was_recorded(tmp_path):
  episode = make_episode(success=np.arange(7) > 4)
  path = save_episode(tmp_path, 'a', episode)
  before = members(path)
  labels.set_label(path, None, reward=True)
  assert not load(path)['success'].any() and not load(path)['reward'].any()
  labels.set_label(path, 2, reward=True)
  np.testing.assert_array_equal(load(path)['reward'], flags(7, 2))
  assert load(path)['reward'].dtype == np.float32
  for key, kept in KEPT.items():
    np.testing.assert_array_equal(load(path)[kept], episode[key])
  state = labels.look(path)
  assert (state.labelled, state.start, state.recorded) == (True, 2, 5)
  labels.set_label(path, 3)
  assert members(path)['reward.npy'] == before['reward.npy']
  assert KEPT['reward'] not in load(path)
  labels.clear_label(path)
  assert members(path) == before
  state = labels.look(path)
  assert (state.labelled, state.start, state.recorded) == (False, 5, 5)


def test_files_of_others_keep_every_byte_that_is_not_a_label(tmp_path):
  """Whatever order, type and form of file; flags that come and go."""
  episode = make_episode()
  path, flickering = tmp_path / 'of-others.npz', np.array([0, 0, 1, 0, 0, 1, 0])
  np.savez(
    path,
    **episode
    | {
      'image': np.asfortranarray(episode['image']),
      'reward': episode['reward'].astype(np.float64),
      'success': flickering.astype(np.float64),
      'discount': np.ones(7),
      'log_note': np.array(['no', 'numbers'], object),
    },
  )
  before = members(path)
  labels.set_label(path, 4, reward=True)
  assert labels.look(path).recorded == 2
  after = members(path)
  for key in ('image', 'discount', 'log_note', 'state', 'action'):
    assert after[f'{key}.npy'] == before[f'{key}.npy'], key
  labels.clear_label(path)
  assert members(path) == before


def test_without_flags_nothing_had_succeeded(tmp_path):
  """As in files of DreamerV2."""
  episode = make_episode()
  del episode['success']
  path = tmp_path / 'dreamer.npz'
  np.savez_compressed(path, **episode)
  assert labels.look(path).recorded is None
  labels.set_label(path, 6)
  assert labels.look(path).start == 6 and labels.look(path).recorded is None
  labels.clear_label(path)
  assert not labels.look(path).labelled and not load(path)['success'].any()


def test_who_may_read_a_file_stays(tmp_path):
  path = save_episode(tmp_path, 'a', make_episode())
  path.chmod(0o640)
  labels.set_label(path, 6)
  assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize('start', [-1, 0, 7])
def test_success_begins_at_a_transition(tmp_path, start):
  path = save_episode(tmp_path, 'a', make_episode())
  before = path.read_bytes()
  with pytest.raises(LabelError, match=f'record {start}: give 1 to 6'):
    labels.set_label(path, start)
  assert path.read_bytes() == before


def test_damaged_files_are_left_alone(tmp_path):
  path = save_episode(tmp_path, 'a', make_episode())
  content = bytearray(path.read_bytes())
  content[len(content) // 3] ^= 255  # In the images, which no header tells.
  path.write_bytes(content)
  with pytest.raises(EpisodeError, match=r'a-6\.npz: unreadable'):
    labels.set_label(path, 6)
  assert path.read_bytes() == content


def test_a_failed_write_leaves_the_file(tmp_path, monkeypatch):
  path = save_episode(tmp_path, 'a', make_episode())
  before = path.read_bytes()

  def fail(*args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(FileError, match='No space left'):
    labels.set_label(path, 6)
  assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# What training makes of it.


def test_training_clones_what_is_labelled(tmp_path):
  demos, run = make_directory(tmp_path / 'demos'), tmp_path / 'run'
  online = make_directory(run / 'episodes', 2)
  assert 'so none is cloned' in open_replay(demos).uncloned
  with serving(demos) as client:
    client.label(episode='b-7.npz', label='success')
    client.label(episode='c-8.npz', label='failure')
  replay = open_replay(demos)
  assert replay.stats()['successes'] == 1 and not replay.uncloned
  # Half of every batch, by success_share, and those are whole episodes.
  success = replay.sample(0)['success']
  assert success[:2].min() == 1
  with serving(run) as client:
    client.label(episode='a-6.npz', label='success', start=2)
  replay = open_replay(demos, online, keep=['a-6', 'b-7'])
  assert replay.stats()['successes'] == 2
  # A threshold or targets of the reward say otherwise.
  assert open_replay(demos, cloning=Cloning(0.9)).stats()['successes'] == 0
  targets = open_replay(demos, cloning=Cloning(targets=('log_kettle',)))
  assert targets.stats()['successes'] == 3
  with serving(demos, reward=True) as client:
    client.label(episode='b-7.npz', label='success')
  assert open_replay(demos, cloning=Cloning(0.9)).stats()['successes'] == 1
  info = inspect.inspect(demos)
  assert info.successes.tolist() == [False, True, False] and not info.damage


# Kills.

KILLS = """
import os, shutil, sys
from pathlib import Path
from moto_tf.labelling.collection import Collection
from moto_tf.training.soak import _Hook

root = Path(sys.argv[1])

def session(directory, target, log):
  child = os.fork()
  if child == 0:
    with Collection(directory) as collection:
      sys.addaudithook(_Hook(directory, target, log).hear)
      collection.label('a-6.npz', 'success', 3)
      os._exit(0)
  return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

shutil.copytree(root / 'before', root / 'after')
assert session(root / 'after', None, root / 'log') == 0
number = 0
for what in dict.fromkeys((root / 'log').read_text().splitlines()):
  for how in ('before', 'within') if what.startswith('open') else ('before',):
    directory = root / f'{number} {how} {what}'.replace('/', ' ')
    shutil.copytree(root / 'before', directory)
    assert session(directory, (what, how, 1), None) == -9, (what, how)
    number += 1
"""


def test_a_kill_at_any_write_leaves_whole_files(tmp_path):
  """Before each of them, and when a part of the content is there."""
  before = make_directory(tmp_path / 'before')
  line = [sys.executable, '-c', KILLS, str(tmp_path)]
  subprocess.run(line, cwd=ROOT, check=True, timeout=120)
  moments = (tmp_path / 'log').read_text().splitlines()
  assert moments == [
    *('open labels.jsonl', 'open .a-N.npz-N.tmp'),
    *('rename a-N.npz', 'remove .a-N.npz-N.tmp'),
  ]
  wanted = (tmp_path / 'after' / 'a-6.npz').read_bytes()
  assert wanted != (before / 'a-6.npz').read_bytes()
  killed = sorted(tmp_path.glob('[0-9] *'))
  assert len(killed) == 6
  for directory in killed:
    for path in before.glob('*.npz'):
      choices = [path.read_bytes()] + [wanted] * (path.name == 'a-6.npz')
      assert (directory / path.name).read_bytes() in choices, directory
    # The next one goes on, and a line that was cut does not spoil its own.
    with Collection(directory) as collection:
      assert len(collection.rows()) == 3
      collection.label('a-6.npz', 'success', 3)
    assert (directory / 'a-6.npz').read_bytes() == wanted
    last = (directory / RECORD).read_text().splitlines()[-1]
    assert json.loads(last)['episode'] == 'a-6.npz'


def start(directory):
  line = [sys.executable, '-m', 'moto_tf', 'label', str(directory)]
  process = subprocess.Popen(
    line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  said = process.stdout.readline()
  address = process.stdout.readline().removeprefix('Open ').strip()
  port, _, token = address.removeprefix('http://127.0.0.1:').partition('/#')
  return process, said, Client(int(port), token)


def test_the_command_serves_until_it_is_killed(tmp_path):
  make_directory(tmp_path)
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (7, 200, 200, 3), np.uint8)
  path = save_episode(tmp_path, 'big', make_episode(image=image))
  before = members(path)
  process, said, client = start(tmp_path)
  assert said == f"{tmp_path}: 4 episodes, 0 labelled, images 'image'.\n"
  begin, answers = time.monotonic(), []
  while time.monotonic() - begin < 1:
    answers.append(client.label(episode=path.name, label='failure')[0])
    answers.append(client.label(episode=path.name, label='success')[0])
  assert set(answers) == {200}
  request = json.dumps({'episode': path.name, 'label': None})
  connection = client.connect('POST', '/api/label', request)
  time.sleep(0.01)
  process.kill()
  process.wait(30)
  connection.close()
  after = members(path)
  names = 'success.npy', 'log_success_recorded.npy'
  rest = lambda x: {key: value for key, value in x.items() if key not in names}
  assert rest(after) == rest(before)
  process, said, client = start(tmp_path)
  assert '4 episodes' in said
  assert client.label(episode='a-6.npz', label='failure')[0] == 200
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == 143
  assert 'Stopped. Every label' in process.stderr.read()
  assert not (tmp_path / '.lock').exists()


def test_errors_of_the_command_are_one_line(tmp_path):
  with pytest.raises(SystemExit, match='^Error: .*no episodes'):
    command.main([str(tmp_path)])
  make_directory(tmp_path)
  with pytest.raises(SystemExit, match='^Error: .*no images'):
    command.main([str(tmp_path), '--key', 'wrist'])
