"""Pictures, directory reports and recorded demonstrations."""

import io
import json

import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image

import moto_tf
from moto_tf import envs, images
from moto_tf.commands import collect, train
from moto_tf.commands import dataset as dataset_script
from moto_tf.data import episodes, inspect, record, store


def make_episode(length=6, wins=True, size=8, seed=0):
  rng = np.random.default_rng(seed)
  records = length + 1
  reward = np.zeros(records, np.float32)
  reward[4:] = wins
  action = rng.uniform(-1, 1, (records, 2)).astype(np.float32)
  action[0] = 0
  return {
    'image': rng.integers(0, 256, (records, size, size, 3), np.uint8),
    'action': action,
    'reward': reward,
    'is_first': np.arange(records) == 0,
    'is_last': np.arange(records) == length,
    'is_terminal': np.zeros(records, bool),
    'success': reward > 0,
  }


def decode(data):
  image = Image.open(io.BytesIO(data))
  frames = []
  for index in range(getattr(image, 'n_frames', 1)):
    image.seek(index)
    frames.append(np.array(image.convert('RGB')))
  return image, np.stack(frames)


def test_png_keeps_every_pixel():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (5, 7, 3), np.uint8)
  _, frames = decode(images.encode_png(image))
  np.testing.assert_array_equal(frames[0], image)
  _, frames = decode(images.encode_png(image[..., :1]))
  np.testing.assert_array_equal(frames[0], image[..., :1].repeat(3, -1))


def test_gif_has_every_frame_at_its_time():
  video = np.zeros((7, 12, 10, 3), np.uint8)
  for time in range(7):
    video[time, time] = (255, 30 * time, 0)
  image, frames = decode(images.encode_gif(video, fps=10))
  assert (image.format, image.n_frames, image.size) == ('GIF', 7, (10, 12))
  assert image.info['duration'] == 100 and image.info['loop'] == 0
  assert np.abs(frames.astype(int) - video).max() <= 8


@pytest.mark.parametrize(
  'video',
  [
    np.zeros((3, 8, 8, 3), np.float32),
    np.zeros((3, 8, 8, 9), np.uint8),
    np.zeros((8, 8, 3), np.uint8),
    np.zeros((0, 8, 8, 3), np.uint8),
  ],
)
def test_gif_rejects_what_is_no_video(video):
  with pytest.raises(ValueError, match='expected uint8|at least one frame'):
    images.encode_gif(video)


def test_upscale_repeats_pixels():
  image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  large = images.upscale(image, 3)
  assert large.shape == (6, 6, 3)
  for row in range(6):
    for column in range(6):
      expected = image[row // 3, column // 3]
      np.testing.assert_array_equal(large[row, column], expected)


def test_tile_places_images_and_marks():
  pictures = np.stack([np.full((4, 6, 3), 10 * i, np.uint8) for i in range(5)])
  canvas = images.tile(
    pictures, columns=3, gap=1, marks=np.array([0, 0, 0, 0, 1])
  )
  assert canvas.shape == (12, 24, 3)
  for index in range(5):
    row, column = divmod(index, 3)
    cell = canvas[6 * row : 6 * row + 6, 8 * column : 8 * column + 8]
    np.testing.assert_array_equal(cell[1:5, 1:7], pictures[index])
    edge = images.GREEN if index == 4 else images.WHITE
    np.testing.assert_array_equal(cell[0], [edge] * 8)
  np.testing.assert_array_equal(canvas[6:, 16:], 255)


def test_contact_sheet_shows_first_and_last_frames():
  videos = [np.full((t, 4, 4, 3), 9, np.uint8) for t in (11, 21)]
  videos[1][-1] = 200
  marks = [np.zeros(11, bool), np.arange(21) >= 20]
  sheet = images.contact_sheet(videos, columns=3, factor=2, marks=marks)
  assert sheet.shape == (2 * 12, 3 * 12, 3)
  assert (sheet[14:22, 26:34] == 200).all()
  assert (sheet[14:22, 14:22] == 9).all()
  np.testing.assert_array_equal(sheet[12, 24], images.GREEN)
  np.testing.assert_array_equal(sheet[12, 12], images.WHITE)


def test_side_by_side_holds_the_last_frame_of_short_videos():
  videos = [np.full((3, 4, 4, 3), 50, np.uint8), np.zeros((5, 4, 4, 3), 'u1')]
  videos[0][-1] = 90
  video = images.side_by_side(videos, columns=2, factor=1)
  assert video.shape == (5, 8, 16, 3)
  assert video[:, 3, 3, 0].tolist() == [50, 50, 90, 90, 90]


@pytest.fixture
def dataset(tmp_path):
  for index, (length, wins) in enumerate([(6, True), (6, True), (9, False)]):
    episode = make_episode(length, wins, seed=index)
    episodes.save_episode(tmp_path, f'{index:06d}', episode)
  return tmp_path


def test_info_counts_episodes(dataset):
  info = inspect.inspect(dataset)
  assert info.lengths.tolist() == [6, 6, 9]
  assert info.returns.tolist() == [3, 3, 0]
  assert info.successes.tolist() == [True, True, False]
  np.testing.assert_array_equal(info.first, [4, 4, np.nan])
  assert info.keys['image'] == ((8, 8, 3), 'uint8')
  assert info.keys['reward'] == ((), 'float32')
  assert not info.damage and not info.record
  text = inspect.describe(info)
  for part in ('3 (2 successful)', '21 (24 records)', 'mean 2.0, min 0.0, max'):
    assert part in text
  assert 'damaged files  none' in text


def test_info_names_every_damaged_file(dataset):
  data = (dataset / '000000-6.npz').read_bytes()
  (dataset / 'cut-6.npz').write_bytes(data[: len(data) // 2])
  np.savez(dataset / 'short-0.npz', **make_episode(length=0))
  other = make_episode(size=16)
  other['extra'] = np.zeros(7, np.float32)
  np.savez(dataset / 'other-6.npz', **other)
  nan = make_episode()
  nan['reward'][2] = np.nan
  np.savez(dataset / 'nan-6.npz', **nan)
  info = inspect.inspect(dataset)
  assert len(info.lengths) == 3
  assert set(info.damage) == {
    'cut-6.npz', 'short-0.npz', 'other-6.npz', 'nan-6.npz'
  }  # fmt: skip
  assert 'image is (16, 16, 3) uint8' in info.damage['other-6.npz']
  assert 'in most files (8, 8, 3) uint8' in info.damage['other-6.npz']
  assert (
    'extra is () float32, in most files absent' in info.damage['other-6.npz']
  )
  text = inspect.describe(info)
  assert 'damaged files  4' in text
  for name, problem in info.damage.items():
    assert f'{name}: {problem}' in text
  assert str(dataset) not in ''.join(info.damage.values())


def test_info_of_nothing(tmp_path):
  text = inspect.describe(inspect.inspect(tmp_path))
  assert 'episodes       0' in text
  assert '-' in inspect.compare({'metaworld_hammer': inspect.inspect(tmp_path)})
  with pytest.raises(episodes.EpisodeError, match='no such directory'):
    inspect.inspect(tmp_path / 'absent')
  (tmp_path / 'dataset.json').write_text('{"task":')
  with pytest.raises(episodes.EpisodeError, match='dataset.json: no valid'):
    inspect.inspect(tmp_path)


def test_comparison_with_the_paper(dataset):
  (dataset / 'dataset.json').write_text(
    '{"task": "metaworld_drawer-open", "seed": 3, "dropped": [4, 7]}'
  )
  info = inspect.inspect(dataset)
  assert (info.task, info.tries) == ('metaworld_drawer-open', 5)
  assert 'seed 3' in inspect.describe(info)
  row = inspect.compare({info.task: info}).splitlines()[-1]
  cells = row.replace('|', ' ').split()
  assert cells == [
    'drawer-open', '3', 'of', '5', '21', '2.0', '0.67', '4.0', '48.0', '1.00'
  ]  # fmt: skip


def test_pictures_of_a_directory(dataset, tmp_path):
  inspect.render(dataset, tmp_path / 'a' / 'sheet.png', count=2)
  _, frames = decode((tmp_path / 'a' / 'sheet.png').read_bytes())
  assert frames.shape == (1, 2 * 132, 10 * 132, 3)
  inspect.render(dataset, tmp_path / 'video.gif', count=3)
  image, frames = decode((tmp_path / 'video.gif').read_bytes())
  assert frames.shape == (10, 132, 3 * 132, 3)


def test_the_first_images_are_shown_whatever_else_is_there(tmp_path):
  records = 4
  episode = make_episode(records - 1, size=8)
  episode['depth'] = np.zeros((records, 8, 8, 1), np.float32)
  episodes.save_episode(tmp_path, '0', episode)
  videos, _ = inspect.load_videos(tmp_path, 1)
  assert videos[0].shape == (records, 8, 8, 3)


def test_pictures_need_images(dataset, tmp_path):
  with pytest.raises(ValueError, match='ends in .png or .gif'):
    inspect.render(dataset, tmp_path / 'video.mp4', count=1)
  with pytest.raises(ValueError, match="no images 'depth'.*here: image"):
    inspect.render(dataset, tmp_path / 'a.png', count=1, key='depth')
  with pytest.raises(ValueError, match='at least 1'):
    inspect.render(dataset, tmp_path / 'a.png', count=0)
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(ValueError, match='no episodes'):
    inspect.render(empty, tmp_path / 'a.png', count=1)


class FakeRecorder:
  """Succeeds at every attempt but each third one, and counts its attempts."""

  made = []

  def __init__(self, recipe, workers):
    self.recipe = recipe

  def attempts(self, indices):
    return [self.attempt(index) for index in indices]

  def attempt(self, index):
    self.made.append(index)
    return make_episode(5, wins=index % 3 != 1, seed=index)

  def close(self):
    pass


@pytest.fixture
def fake(monkeypatch):
  monkeypatch.setattr(record, 'Recorder', FakeRecorder)
  monkeypatch.setattr(FakeRecorder, 'made', [])
  return FakeRecorder


def recipe(**changes):
  options = {
    'task': 'metaworld_plate-slide',
    'env': {'image_size': 8},
    **changes,
  }
  return record.Recording(**options)


def names(directory):
  return [path.name for path in episodes.find_episodes(directory)]


def test_collect_keeps_successes_and_resumes(fake, tmp_path, capsys):
  straight = record.collect(recipe(), tmp_path / 'a', 4)
  assert names(tmp_path / 'a') == [f'{i:06d}-5.npz' for i in (0, 2, 3, 5)]
  assert len(straight.lengths) == 4 and straight.successes.all()
  assert straight.record['dropped'] == [1, 4] and straight.tries == 6
  assert '4/4 episodes, 2 dropped' in capsys.readouterr().out

  fake.made.clear()
  record.collect(recipe(), tmp_path / 'b', 2)
  record.collect(recipe(), tmp_path / 'b', 4)
  record.collect(recipe(), tmp_path / 'b', 3)
  assert fake.made == [0, 1, 2, 3, 4, 5]
  (tmp_path / 'b' / '000002-5.npz').unlink()
  resumed = record.collect(recipe(), tmp_path / 'b', 4)
  assert fake.made[6:] == [2]
  assert resumed.record == straight.record
  for name in names(tmp_path / 'a'):
    first, second = ((tmp_path / d / name).read_bytes() for d in 'ab')
    assert first == second


def test_collect_keeps_all_outcomes(fake, tmp_path):
  info = record.collect(recipe(all_outcomes=True), tmp_path, 3)
  assert info.successes.tolist() == [True, False, True]
  assert info.record['dropped'] == []


def test_collect_goes_on_after_a_crash(fake, tmp_path, monkeypatch):
  def crash(self, index):
    if index == 3:
      raise KeyboardInterrupt
    return make_episode(5, wins=index % 3 != 1, seed=index)

  with monkeypatch.context() as context:
    context.setattr(fake, 'attempt', crash)
    with pytest.raises(KeyboardInterrupt):
      record.collect(recipe(), tmp_path, 4)
  assert names(tmp_path) == ['000000-5.npz', '000002-5.npz']
  record.collect(recipe(), tmp_path, 4)
  assert fake.made == [3, 4, 5]


@pytest.mark.parametrize(
  'change, message',
  [
    ({'seed': 1}, 'seed 0 there, 1 now'),
    ({'noise': 0.3}, 'noise 0.0 there, 0.3 now'),
    (
      {'task': 'metaworld_hammer'},
      "task 'metaworld_plate-slide' there, 'metaworld_ham",
    ),
    ({'all_outcomes': True}, 'all_outcomes False there, True now'),
    ({'env': {'image_size': 64}}, r'env\.image_size 8 there, 64 now'),
  ],
)
def test_collect_refuses_other_settings(fake, tmp_path, change, message):
  record.collect(recipe(), tmp_path, 1)
  before = names(tmp_path), (tmp_path / 'dataset.json').read_bytes()
  with pytest.raises(store.StoreError, match=message):
    record.collect(recipe(**change), tmp_path, 5)
  assert before == (
    names(tmp_path), (tmp_path / 'dataset.json').read_bytes()
  )  # fmt: skip


def test_settings_may_change_while_there_are_no_episodes(fake, tmp_path):
  def fail(self, index):
    raise ValueError('no such camera')

  with pytest.MonkeyPatch.context() as context:
    context.setattr(fake, 'attempt', fail)
    with pytest.raises(ValueError, match='no such camera'):
      record.collect(recipe(env={'camera': 'typo'}), tmp_path, 1)
  info = record.collect(recipe(env={'camera': 'right'}), tmp_path, 1)
  assert info.record['env'] == {'camera': 'right'}


def test_collect_refuses_foreign_and_damaged_files(fake, tmp_path):
  episodes.save_episode(tmp_path / 'a', 'online', make_episode())
  with pytest.raises(store.StoreError, match='no dataset.json'):
    record.collect(recipe(), tmp_path / 'a', 2)
  record.collect(recipe(), tmp_path / 'b', 1)
  path = tmp_path / 'b' / '000000-5.npz'
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(store.StoreError, match='000000-5.*Remove the file'):
    record.collect(recipe(), tmp_path / 'b', 2)
  path.unlink()
  episodes.save_episode(tmp_path / 'b', 'mine', make_episode())
  with pytest.raises(store.StoreError, match='mine-6.npz: not made by'):
    record.collect(recipe(), tmp_path / 'b', 2)


def test_collect_gives_up(fake, tmp_path, monkeypatch):
  monkeypatch.setattr(
    fake, 'attempt', lambda self, index: make_episode(wins=index == 5)
  )
  with pytest.raises(record.RecordError, match='only 1 of 20 attempts'):
    record.collect(recipe(noise=0.5), tmp_path, 2)
  for options in ({'count': 0}, {'count': 1, 'workers': 0}):
    with pytest.raises(record.RecordError, match='expected at least'):
      record.collect(recipe(), tmp_path, **options)


@pytest.mark.parametrize('workers', [2, 3, 7])
def test_collect_with_more_workers(fake, tmp_path, workers):
  one = record.collect(recipe(), tmp_path / 'a', 6)
  many = record.collect(recipe(), tmp_path / 'b', 6, workers)
  assert names(tmp_path / 'a') == names(tmp_path / 'b')
  assert one.record == many.record


def test_workers_without_an_attempt_ask_no_expert(monkeypatch):
  """Three attempts of two workers: the last round leaves one without."""
  seen = []

  class Rest(envs.Env):
    def __init__(self):
      spaces = {'state': Box(-9, 9, (1,), np.float32)}
      super().__init__(spaces, 1, time_limit=3)

    def _reset(self, seed):
      return {'state': np.ones(1, np.float32)}

    def _step(self, action):
      return {'state': np.ones(1, np.float32)}, 0.0, False, False, True

  def policy(seed):
    def act(obs):
      seen.append(seed)
      assert obs['state'] == 1
      return np.zeros(1, np.float32)

    return act

  maker = lambda *_: envs.Demonstrator(policy, lambda episode: True)
  monkeypatch.setattr(envs, 'make_demonstrator', maker)
  monkeypatch.setattr(envs, 'env_maker', lambda *_: Rest)
  recorder = record.Recorder(recipe(noise=0.0), 2)
  try:
    for indices in ([0, 1], [2]):
      assert all(recorder.attempts(indices))
  finally:
    recorder.close()
  assert len(set(seen)) == 3 and 0 not in seen


def test_scripts_record_the_same_with_any_number_of_workers(tmp_path, capsys):
  options = (
    '--task plate-slide --episodes 2 --seed 5 --noise 0.1 '
    '--env.image_size 16 --env.time_limit 40'
  ).split()
  for workers in '12':
    outdir = str(tmp_path / workers)
    collect.main([*options, '--outdir', outdir, '--workers', workers])
  out = capsys.readouterr().out
  assert 'plate-slide' in out and '71.1' in out
  assert names(tmp_path / '1') == names(tmp_path / '2')
  assert len(names(tmp_path / '1')) == 2
  loaded = []
  for path in episodes.find_episodes(tmp_path / '1'):
    episode = episodes.load_episode(path)
    loaded.append(episode)
    other = episodes.load_episode(tmp_path / '2' / path.name)
    for key, value in episode.items():
      np.testing.assert_array_equal(value, other[key], key)
    assert episode['image'].shape == (41, 16, 16, 3)
    assert episode['state'].shape == (41, 39)
    assert set(np.unique(episode['reward'])) == {0, 1}
    assert episode['success'][-1] and not episode['success'][0]
    assert np.abs(episode['action']).max() <= 1
    first = episode['success'].argmax()
    assert episode['reward'][first] == 1 and not episode['reward'][:first].any()
  assert (loaded[0]['state'][0] != loaded[1]['state'][0]).any()
  stored = json.loads((tmp_path / '1' / 'dataset.json').read_text())
  assert stored['env']['image_size'] == 16 and stored['seed'] == 5
  assert stored['env']['camera'] == moto_tf.make_config().env.camera
  with pytest.raises(SystemExit, match='env.image_size 16 there, 64 now'):
    collect.main([*options[:-4], '--outdir', str(tmp_path / '1')])
  dataset_script.main(['info', str(tmp_path / '1')])
  out = capsys.readouterr().out
  assert '2 (2 successful)' in out and '71.1' in out
  gif = tmp_path / 'out.gif'
  dataset_script.main(['video', str(tmp_path / '1'), '--out', str(gif)])
  assert decode(gif.read_bytes())[0].n_frames > 20


def test_scripts_explain_mistakes(tmp_path, capsys):
  with pytest.raises(SystemExit, match='no such directory'):
    dataset_script.main(['info', str(tmp_path / 'absent')])
  base = ['--task', 'hammer', '--outdir', str(tmp_path)]
  for wrong, message in (
    (['--rssm.deter', '5'], 'unknown option --rssm.deter'),
    (['--env.camra', 'x'], 'env.camera'),
  ):
    with pytest.raises(SystemExit) as error:
      collect.main([*base, *wrong])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
  with pytest.raises(SystemExit, match='hammock.*Did you mean hammer'):
    collect.main(['--task', 'hammock', '--outdir', str(tmp_path)])
  # Training says so too, before it asks for demonstrations of it.
  logdir = str(tmp_path / 'hammock' / 'moto' / '0')
  with pytest.raises(SystemExit, match='hammock.*Did you mean hammer'):
    train.main(['--task', 'metaworld_hammock', '--logdir', logdir])
  with pytest.raises(SystemExit, match='no directory .*demos. Record'):
    train.main(['--task', 'metaworld_hammer', '--logdir', logdir])


def test_settings_that_came_later_and_are_off():
  old = {'task': 'a', 'env': {'camera': 'b'}}
  new = {'task': 'a', 'order': '', 'env': {'camera': 'b', 'extra_size': 0}}
  assert inspect.differences(old, new) == []
  new['env']['extra_size'] = 32
  assert inspect.differences(old, new) == [
    'env.extra_size None there, 32 now'
  ]  # fmt: skip
  assert inspect.differences({}, {'order': ''}) == ["order None there, '' now"]
