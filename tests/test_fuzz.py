"""Random settings and damage: a clear message, or something sound.

`--fuzz N` tries N examples of each; 40 by default, which takes some seconds.
"""

import collections
import functools
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_broken_files import ACT_SPACE, SPACES, make_episode, outcome

from moto_tf import presets, yamlfile
from moto_tf.commands import settings as commands
from moto_tf.commands import train
from moto_tf.config import Config
from moto_tf.data import episodes, lerobot
from moto_tf.presets import load_configs
from moto_tf.training.checkpoint import Checkpoints

KEYS = sorted(load_configs().defaults.flat)
KINDS = ('<f4', '<f8', '>f4', '|u1', '|b1', '<i8', '<c8', '<U2', '<f2')


@pytest.fixture(autouse=True)
def once_read(monkeypatch):
  """configs.yaml takes longer to read than a test to run."""
  read = functools.cache(presets.load_configs)
  for module in (presets, commands):
    monkeypatch.setattr(module, 'load_configs', read)


@pytest.fixture
def fuzz(request, tally):
  """Runs a test on random examples and counts how they end.

  The test returns 'valid' for what is sound, else as `outcome`.
  """

  def run(kind, test, *strategies):
    found = tally.setdefault(kind, collections.Counter())

    def once(values):
      result = test(*values)
      found[result.partition(':')[0]] += 1
      assert result in ('clear', 'valid'), result

    # The same examples each time, and the smallest that fails.
    seed(0)(
      settings(
        max_examples=request.config.getoption('--fuzz'),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
      )(given(st.tuples(*strategies))(once))
    )()

  return run


numbers = st.one_of(
  st.integers(-3, 300),
  st.integers(),
  st.integers(10**15, 10**40),
  st.floats(),
)
texts = st.one_of(
  st.text(max_size=20),
  st.text('[]{}*&!<>:.,-~%"\'\\ \n0a', max_size=20),
  st.sampled_from(['', 'none', 'auto', 'True', '.*', '(', '{task}', '{0}']),
)
values = st.one_of(numbers, st.booleans(), texts, st.lists(numbers, max_size=4))


def test_command_lines(fuzz, tmp_path, capsys):
  def check(pairs, presets):
    argv = [f'--{k}={_shown(v)}' for k, v in pairs]
    argv += ['--configs', *presets] if presets else []
    return _settings(argv, pairs, tmp_path, capsys)

  pair = st.tuples(st.sampled_from(KEYS), values)
  presets = st.lists(st.sampled_from(['metaworld', 'small', 'debug', 'gym']))
  fuzz('command lines', check, st.lists(pair, min_size=1, max_size=3), presets)


def test_files_of_settings(fuzz, tmp_path, capsys):
  """Trees of names and values, some of them names of settings."""
  path = tmp_path / 'settings.yaml'

  def check(tree):
    try:
      path.write_text(yamlfile.write(tree), encoding='utf-8')
    except Exception:
      return 'valid'  # The writer has its own limits.
    return _settings(['--configs', str(path)], (), tmp_path, capsys)

  names = st.one_of(st.sampled_from(KEYS), texts)
  tree = st.recursive(
    st.dictionaries(names, values, max_size=3),
    lambda x: st.dictionaries(names, x, max_size=3),
    max_leaves=5,
  )
  fuzz('trees of settings', check, tree)


def test_texts_of_settings(fuzz, tmp_path, capsys):
  """YAML with changed lines, and no YAML at all."""
  path = tmp_path / 'settings.yaml'
  plain = str(load_configs().make('small', 'gym')).splitlines()

  def check(lines, odd, place):
    lines = [plain[i] for i in lines]
    lines.insert(place, odd)
    path.write_bytes('\n'.join(lines).encode(errors='surrogatepass'))
    return _settings(['--configs', str(path)], (), tmp_path, capsys)

  index = st.lists(st.integers(0, len(plain) - 1), max_size=4, unique=True)
  fuzz('texts of settings', check, index, texts, st.integers(0, 4))


def _settings(argv, pairs, place, capsys):
  """Settings that are taken can be saved and are the same when loaded."""
  names = [key for key, _ in pairs] or ['settings.yaml', '']
  found = 'unclear'
  for name in names:
    found = outcome(capsys, name, train.main, [*argv, '--print-config'])
    if found == 'clear':
      return found
  if found == 'accepted':
    config = commands.parse(argv)
    again = Config.load(config.save(place / 'saved.yaml'))
    assert again == config
    config.path('logdir')
    capsys.readouterr()
    return 'valid'
  return found


def _shown(value):
  if isinstance(value, list):
    return ','.join(map(str, value))
  return str(value)


def damage(data, changes):
  """Bytes with some of them overwritten, inserted, left out or cut."""
  data = bytearray(data)
  for kind, place, value in changes:
    i = int(place * len(data))
    if kind == 'set':
      data[i : i + 1] = bytes([value])
    elif kind == 'flip':
      data[i : i + 1] = bytes(x ^ (1 << value % 8) for x in data[i : i + 1])
    elif kind == 'insert':
      data[i:i] = bytes([value]) * (1 + value % 9)
    elif kind == 'delete':
      del data[i : i + 1 + value % 9]
    elif kind == 'huge':
      data[i : i + 4] = b'\xfe\xff\xff\xff'
    else:
      del data[i:]
  return bytes(data)


changes = st.lists(
  st.tuples(
    st.sampled_from(['set', 'flip', 'insert', 'delete', 'huge', 'cut']),
    # The directory at the end is what everything hangs on.
    st.one_of(st.floats(0, 0.999), st.floats(0.8, 0.999)),
    st.integers(0, 255),
  ),
  min_size=1,
  max_size=3,
)


@pytest.mark.parametrize('write', [np.savez, np.savez_compressed])
def test_damaged_episodes(fuzz, tmp_path, capsys, write):
  path, stream = tmp_path / 'damaged.npz', io.BytesIO()
  whole = make_episode()
  write(stream, **whole)

  def check(how):
    path.write_bytes(damage(stream.getvalue(), how))
    loaded = {}
    load = lambda: loaded.update(episodes.load_episode(path, SPACES, ACT_SPACE))
    found = outcome(capsys, path.name, load)
    length = outcome(capsys, path.name, episodes.episode_length, path)
    if length not in ('clear', 'accepted'):
      return length
    return 'valid' if found == 'accepted' and same(loaded, whole) else found

  fuzz(f'damaged episodes, {write.__name__}', check, changes)


@pytest.mark.parametrize('images', ['png', 'video'])
def test_damaged_datasets_of_lerobot(fuzz, tmp_path, capsys, images):
  """Any file of a dataset that was sound."""
  for i in range(2):
    episodes.save_episode(tmp_path / 'demos', f'{i}', make_episode(seed=i))
  root = lerobot.export(tmp_path / 'demos', tmp_path, 'me/a', 10, images)
  env = load_configs().make({'env.image_size': 8}).env
  whole = {
    str(x.relative_to(root)): x.read_bytes()
    for x in root.rglob('*')
    if x.is_file()
  }

  def check(name, how):
    (root / name).write_bytes(damage(whole[name], how))
    found = []

    def load():
      reader = lerobot.open_reader(root, 'gym_a', env, False)
      reader.check()
      found.extend(reader.read(i) for i in range(2))

    result = outcome(capsys, str(root), load)
    (root / name).write_bytes(whole[name])
    # What a codec or JSON makes of a changed byte may be sound, but of a shape.
    good = all(x['image'].shape == (7, 8, 8, 3) for x in found)
    return 'valid' if result == 'accepted' and good else result

  names = st.sampled_from(sorted(whole))
  fuzz(f'damaged datasets of LeRobot, {images}', check, names, changes)


def test_damaged_checkpoints(fuzz, tmp_path, capsys):
  rng = np.random.default_rng(0)
  whole = {'a/w': rng.normal(size=(5, 3)).astype(np.float32), 'n': np.array(3)}
  meta = {'counters': {'gradient_step': 5}, 'phase': 'online'}
  checkpoints = Checkpoints(tmp_path, 3)
  checkpoints.save(1, whole, meta)
  path = checkpoints.save(2, whole, meta)
  data = path.read_bytes()

  def check(how):
    path.write_bytes(damage(data, how))
    arrays, found, used = checkpoints.load()
    text = capsys.readouterr().err
    if not same(arrays, whole) or found != meta:
      return 'accepted'
    named = path.name in text and text.count('\n') == 1
    return 'valid' if used == path else 'clear' if named else f'unclear: {text}'

  fuzz('damaged checkpoints', check, changes)


def test_episodes_of_any_arrays(fuzz, tmp_path, capsys):
  """What is taken has the types, shapes and finite numbers of an episode."""
  path = tmp_path / 'any.npz'
  shapes = st.one_of(
    st.sampled_from([(7,), (7, 2), (7, 5), (7, 8, 8, 3), (), (1,), (0,)]),
    arrays.array_shapes(max_dims=3, max_side=8, min_side=0),
  )
  value = st.tuples(
    shapes,
    st.sampled_from(KINDS),
    st.sampled_from([0, 1, -1, 0.5, np.nan, np.inf, 1e300, 255]),
  )
  keys = st.sampled_from([*make_episode(), 'discount', 'log_a', 'other'])

  def check(changed, left):
    made = {k: v for k, v in make_episode().items() if k not in left}
    with np.errstate(all='ignore'):
      for key, (shape, kind, number) in changed.items():
        filled = 'a' if kind == '<U2' else number
        if kind in ('|u1', '|b1', '<i8') and not np.isfinite(number):
          filled = 1
        if kind in ('|u1', '<i8'):
          filled = int(filled) % 256
        made[key] = np.full(shape, filled, kind)
    np.savez(path, **made)
    loaded = {}
    load = lambda: loaded.update(episodes.load_episode(path, SPACES, ACT_SPACE))
    found = outcome(capsys, path.name, load)
    return 'valid' if found == 'accepted' and sound(loaded) else found

  left = st.lists(keys, max_size=2)
  fuzz('episodes of any arrays', check, st.dictionaries(keys, value), left)


def same(found, wanted):
  return found.keys() == wanted.keys() and all(
    np.array_equal(found[k], wanted[k]) and found[k].dtype == wanted[k].dtype
    for k in wanted
  )


def sound(episode):
  records = len(episode['reward'])
  spaces = {**SPACES, 'action': ACT_SPACE}
  flags = [episode[key] for key in episodes.FLAGS]
  return (
    records >= 2
    and all(v.shape[0] == records for v in episode.values())
    and all(episode[k].shape[1:] == v.shape for k, v in spaces.items())
    and all(x.dtype == bool and x.shape == (records,) for x in flags)
    and all(np.isfinite(v).all() for v in episode.values())
    and episode['image'].dtype == np.uint8
    and episode['reward'].dtype == np.float32
    and np.abs(episode['action']).max() <= 1
    and not episode['action'][0].any()
    and episode['is_first'].sum() == 1
  )
