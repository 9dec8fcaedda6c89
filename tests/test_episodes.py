"""Episode files: writing, checking and damage."""

import ast
import os
import random

import data_helpers
import gymnasium
import numpy as np
import pytest

from moto_tf.data import cloning, episodes
from moto_tf.files import FileError

SPACES = {
  'image': gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
  'state': gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32),
}
ACT_SPACE = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def make_episode(length=6, seed=0):
  state = np.random.default_rng(seed).standard_normal((length + 1, 5))
  episode = data_helpers.make_episode(length, seed=seed)
  return {**episode, 'state': state.astype(np.float32)}


def write_raw(path, episode):
  np.savez_compressed(path, **episode)
  return path


def test_round_trip_is_exact(tmp_path):
  episode = make_episode()
  path = episodes.save_episode(tmp_path / 'new', 'name', episode)
  assert path == tmp_path / 'new' / 'name-6.npz'
  loaded = episodes.load_episode(path, SPACES, ACT_SPACE)
  assert set(loaded) == set(episode)
  for key, value in episode.items():
    assert loaded[key].dtype == value.dtype, key
    np.testing.assert_array_equal(loaded[key], value, key)
  assert episodes.episode_length(path) == 6
  assert episodes.find_episodes(path.parent) == [path]


def test_saving_converts_to_standard_dtypes(tmp_path):
  episode = make_episode()
  episode['reward'] = list(episode['reward'].astype(float))
  episode['success'] = episode['success'].astype(np.float64)
  with np.load(episodes.save_episode(tmp_path, 'a', episode)) as file:
    assert file['reward'].dtype == np.float32
    assert file['success'].dtype == bool
    assert file['image'].dtype == np.uint8


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_failed_write_leaves_old_file_and_no_partial_one(
  tmp_path, monkeypatch, step
):
  path = episodes.save_episode(tmp_path, 'a', make_episode(seed=1))
  before = path.read_bytes()

  def fail(*args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, step, fail)
  with pytest.raises(FileError, match='No space left') as error:
    episodes.save_episode(tmp_path, 'a', make_episode(seed=2))
  assert str(path) in str(error.value)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_partial_files_of_a_killed_writer_are_not_episodes(tmp_path):
  path = episodes.save_episode(tmp_path, 'b', make_episode())
  (tmp_path / '.c-6.npz-17.tmp').write_bytes(b'half')
  (tmp_path / '.d-6.npz').write_bytes(b'half')
  first = episodes.save_episode(tmp_path, 'a', make_episode())
  assert episodes.find_episodes(tmp_path) == [first, path]


def test_find_in_a_missing_directory(tmp_path):
  with pytest.raises(episodes.EpisodeError, match='no such directory'):
    episodes.find_episodes(tmp_path / 'absent')


@pytest.mark.parametrize('name', ['', '../a', 'a/b', '.hidden'])
def test_save_rejects_names_that_leave_the_directory(tmp_path, name):
  with pytest.raises(episodes.EpisodeError, match='cannot be the name'):
    episodes.save_episode(tmp_path, name, make_episode())


def test_pickles_are_not_executed(tmp_path):
  class Payload:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / 'executed'),)

  episode = make_episode()
  episode['state'] = np.array([Payload()] * 7, object)
  path = write_raw(tmp_path / 'evil-6.npz', episode)
  with pytest.raises(episodes.EpisodeError, match='pickles are not loaded'):
    episodes.load_episode(path)
  with pytest.raises(episodes.EpisodeError, match="'state' has dtype object"):
    episodes.save_episode(tmp_path, 'evil', episode)
  assert not (tmp_path / 'executed').exists()


def test_any_damage_is_an_episode_error(tmp_path):
  data = episodes.save_episode(tmp_path, 'a', make_episode()).read_bytes()
  path = tmp_path / 'damaged-6.npz'
  rng = random.Random(0)
  for cut in [0, 1, 30, len(data) // 3, len(data) - 30, len(data) - 1]:
    path.write_bytes(data[:cut])
    for read in (episodes.load_episode, episodes.episode_length):
      with pytest.raises(episodes.EpisodeError, match='damaged-6'):
        read(path)
  caught = 0
  for _ in range(300):
    changed = bytearray(data)
    for _ in range(3):
      changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(changed))
    for read in (episodes.load_episode, episodes.episode_length):
      try:
        read(path)
      except episodes.EpisodeError:
        caught += 1
  assert caught > 200
  with pytest.raises(episodes.EpisodeError, match='no such file'):
    episodes.load_episode(tmp_path / 'absent.npz')
  np.save(tmp_path / 'single.npy', np.zeros(3))
  with pytest.raises(episodes.EpisodeError, match='single'):
    episodes.load_episode(tmp_path / 'single.npy')


def test_a_changed_pixel_is_noticed(tmp_path):
  path = tmp_path / 'a-6.npz'
  np.savez(path, **make_episode())
  data = bytearray(path.read_bytes())
  data[400] ^= 1
  path.write_bytes(bytes(data))
  with pytest.raises(episodes.EpisodeError, match='CRC'):
    episodes.load_episode(path)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'reward': None}, "'reward' is missing, found action, image"),
    ({'action': None}, "'action' is missing, found image"),
    (
      {'image': None, 'pixels': np.zeros(7)},
      "'image' is missing, found .* pixels, reward",
    ),
    ({'image': None}, "'image' is missing"),
    ({'reward': np.zeros(5)}, r"'\w+' has shape .*leading length of 5"),
    ({'reward': np.zeros((7, 1))}, 'expected \\(records,\\)'),
    ({'reward': np.full(7, np.nan)}, "'reward' is not finite at record 0"),
    ({'reward': np.full(7, 1e39)}, "'reward' is not finite"),
    ({'success': np.full(7, np.nan)}, "'success' is not finite"),
    ({'state': np.full((7, 5), np.inf)}, "'state' is not finite"),
    ({'state': np.zeros((7, 4))}, r"'state' has shape \(4,\).*expected \(5,\)"),
    ({'image': np.zeros((7, 64, 64, 3), np.uint8)}, r'expected \(8, 8, 3\)'),
    ({'image': np.zeros((7, 8, 8, 3), np.float32)}, 'dtype float32.*uint8'),
    ({'image': np.array(['a'] * 7)}, 'dtype <U1'),
    ({'action': np.zeros((7, 3))}, r'\(3,\) per record, expected \(2,\)'),
    ({'action': np.linspace(0, 4, 14).reshape(7, 2)}, 'action\\[0\\] is not'),
    ({'action': 3 * np.eye(7, 2, -1)}, 'actions span 0 to 3, expected -1 to 1'),
    ({'is_first': np.ones(7, bool)}, 'is_first is set at record 1 of 7'),
    ({'is_last': np.ones(7, bool)}, 'is_last is set at record 0 of 7'),
    ({'discount': np.zeros(7), 'is_terminal': None}, 'is_terminal is set'),
    ({'success': np.zeros((7, 1))}, "'success' has shape"),
  ],
)
def test_unusable_content_is_named(tmp_path, change, message):
  episode = {**make_episode(), **change}
  episode = {k: v for k, v in episode.items() if v is not None}
  path = write_raw(tmp_path / 'bad-6.npz', episode)
  with pytest.raises(episodes.EpisodeError, match=message) as error:
    episodes.load_episode(path, SPACES, ACT_SPACE)
  assert str(path) in str(error.value)


def test_actions_a_little_beyond_the_bounds_are_cut(tmp_path):
  """By rounding of other software; more than that is another scale."""
  episode = make_episode()
  kept = episode['action'].copy()
  episode['action'][2], kept[2] = (1.0005, -1.0005), (1, -1)
  path = write_raw(tmp_path / 'a-6.npz', episode)
  loaded = episodes.load_episode(path, SPACES, ACT_SPACE)
  np.testing.assert_array_equal(loaded['action'], kept)
  assert loaded['action'].dtype == np.float32
  # Nothing is known of the bounds without the space.
  free = episodes.load_episode(path)
  np.testing.assert_array_equal(free['action'], episode['action'])
  for value in (1.002, -1.002):
    episode['action'][2, 0] = value
    path = write_raw(tmp_path / 'a-6.npz', episode)
    with pytest.raises(episodes.EpisodeError, match='expected -1 to 1'):
      episodes.load_episode(path, SPACES, ACT_SPACE)


def test_an_episode_needs_a_transition(tmp_path):
  episode = make_episode(length=0)
  path = write_raw(tmp_path / 'short-0.npz', episode)
  with pytest.raises(episodes.EpisodeError, match='expected at least 2'):
    episodes.load_episode(path)
  with pytest.raises(episodes.EpisodeError, match='expected at least 2'):
    episodes.save_episode(tmp_path, 'short', episode)


def test_save_rejects_incomplete_and_misaligned_episodes(tmp_path):
  episode = make_episode()
  del episode['success']
  with pytest.raises(episodes.EpisodeError, match="'success' is missing"):
    episodes.save_episode(tmp_path, 'a', episode)
  episode = make_episode()
  episode['action'] = np.roll(episode['action'], -1, 0)
  with pytest.raises(episodes.EpisodeError, match='led into record i'):
    episodes.save_episode(tmp_path, 'a', episode)
  assert list(tmp_path.iterdir()) == []


def test_files_of_dreamerv2_load_with_derived_flags(tmp_path):
  episode = make_episode()
  discount = np.ones(7, np.float32)
  discount[-1] = 0
  path = write_raw(
    tmp_path / '20220101T000000-abc-6.npz',
    {
      'image': episode['image'],
      'state': episode['state'].astype(np.float64),
      'action': episode['action'].astype(np.float16),
      'reward': episode['reward'].astype(np.float64),
      'discount': discount,
      'log_extra': np.zeros(3),
      'proprio': np.zeros((7, 4)),
    },
  )
  loaded = episodes.load_episode(path, SPACES, ACT_SPACE)
  assert set(loaded) == set(episode)
  np.testing.assert_array_equal(loaded['is_first'], [1, 0, 0, 0, 0, 0, 0])
  np.testing.assert_array_equal(loaded['is_last'], [0, 0, 0, 0, 0, 0, 1])
  np.testing.assert_array_equal(loaded['is_terminal'], loaded['is_last'])
  assert not loaded['success'].any()
  for key in ('state', 'action', 'reward'):
    assert loaded[key].dtype == np.float32
    np.testing.assert_allclose(loaded[key], episode[key], atol=1e-3)
  without_spaces = episodes.load_episode(path)
  assert without_spaces['proprio'].shape == (7, 4)
  assert 'log_extra' not in without_spaces


def test_a_time_limit_is_not_terminal(tmp_path):
  episode = make_episode()
  del episode['is_terminal']
  episode['discount'] = np.ones(7)
  path = write_raw(tmp_path / 'a-6.npz', episode)
  assert not episodes.load_episode(path)['is_terminal'].any()


def test_success_stays_once_reached(tmp_path):
  episode = {**make_episode(), 'success': np.array([0, 0, 1, 0, 0, 1, 0])}
  path = write_raw(tmp_path / 'a-6.npz', episode)
  np.testing.assert_array_equal(
    episodes.load_episode(path)['success'], [0, 0, 1, 1, 1, 1, 1]
  )


@pytest.mark.parametrize(
  'read', [episodes.load_episode, episodes.episode_length]
)
def test_a_header_whose_parser_met_another_thread_is_read_again(
  read, tmp_path, monkeypatch
):
  """As CPython 3.11 fails now and then, but not for ever."""
  path = episodes.save_episode(tmp_path, 'one', make_episode())
  parse, failures = ast.literal_eval, [1, 2]

  def sometimes(text):
    if failures:
      failures.pop()
      raise SystemError('AST constructor recursion depth mismatch')
    return parse(text)

  monkeypatch.setattr(ast, 'literal_eval', sometimes)
  read(path)
  assert not failures
  failures.extend(range(100))
  with pytest.raises(SystemError):
    read(path)


def test_length_comes_from_the_file_not_its_name(tmp_path):
  path = write_raw(tmp_path / 'demo-12.npz', make_episode())
  assert episodes.episode_length(path) == 6
  assert len(episodes.load_episode(path)['reward']) == 7


def test_return_and_success():
  episode = make_episode()
  assert episodes.episode_return(episode) == 3
  assert cloning.records_to_clone(episode) == 7
  assert cloning.records_to_clone(episode, 1.0) == 7
  assert cloning.records_to_clone(episode, 1.5) == 0
  episode['success'][:] = False
  assert cloning.records_to_clone(episode) == 0
  assert cloning.records_to_clone(episode, 0.5) == 7


def test_success_by_targets(tmp_path):
  """All at one record, and not at the reset."""
  both = ('log_kettle', 'log_lamp')
  for kettle, lamp, expected in (
    ([0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1], True),
    ([0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1], False),
    ([1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], False),
    ([0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1], True),
  ):
    logs = dict(zip(both, map(np.array, (kettle, lamp)), strict=True))
    path = episodes.save_episode(tmp_path, 'a', {**make_episode(), **logs})
    loaded = episodes.load_episode(path, SPACES, ACT_SPACE, both)
    assert set(loaded) == {*make_episode(), *both}
    assert cloning.records_to_clone(loaded, 0.0, both) == 7 * expected
    # Before any threshold, and beside the flag.
    assert cloning.records_to_clone(loaded, 99.0, both) == 7 * expected
    assert cloning.records_to_clone(loaded, 0.0, both[1:]) == 7


def test_records_until_a_success():
  """To the first record at which there is what the settings ask for."""

  def until(*args):
    return cloning.records_to_clone(episode, *args, whole=False)

  episode = make_episode()
  episode['success'] = np.array([0, 0, 0, 0, 1, 1, 1], bool)
  episode['reward'] = np.array([0, 0, 1, 0, 2, 0, 3], np.float32)
  assert until() == 5
  assert (until(0.5), until(2.0), until(3.0), until(4.0)) == (3, 5, 7, 0)
  episode['log_kettle'] = np.array([1, 0, 1, 1, 0, 1, 0])
  episode['log_lamp'] = np.array([1, 0, 0, 1, 0, 1, 0])
  both = ('log_kettle', 'log_lamp')
  # What is achieved after the targets is cloned, too.
  assert until(0.0, both) == 5
  assert until(0.0, both[:1]) == 5
  episode['success'][:] = False
  assert (until(0.0, both), until(0.0, both[:1]), until()) == (4, 3, 0)
  episode['success'][1:] = True
  assert (until(0.0, both), until()) == (4, 2)
  episode['log_lamp'][:] = 0
  assert until(0.0, both) == 0


def test_targets_that_are_missing_or_no_numbers(tmp_path):
  pair = {**make_episode(), 'log_kettle': np.zeros((7, 2))}
  path = episodes.save_episode(tmp_path, 'a', pair)
  for key, message in (
    ('log_lamp', "a-6.npz: key 'log_lamp' is missing, which bc_targets"),
    ('log_kettle', r"a-6.npz: key 'log_kettle' has shape \(7, 2\)"),
  ):
    with pytest.raises(episodes.EpisodeError, match=message):
      episodes.load_episode(path, SPACES, ACT_SPACE, [key])
