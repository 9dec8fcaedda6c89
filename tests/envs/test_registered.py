"""Suites and formats of one's own, with no edit elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from env_helpers import settings
from gymnasium.spaces import Box

import moto_tf
from moto_tf.commands import collect, dataset
from moto_tf.data import episodes, importers, inspect
from moto_tf.data.formats import Format, Reader, SourceError
from moto_tf.envs import (
  SUITES,
  Demonstrator,
  Env,
  EnvError,
  Suite,
  env_maker,
  full_task,
  make_demonstrator,
  make_env,
  register_suite,
  rewards_are_successes,
  suite_of,
)
from moto_tf.envs.driver import Driver
from moto_tf.envs.worker import WorkerError
from moto_tf.registry import RegistryError

DOCS = Path(__file__).parents[2] / 'docs'


class Toy(Env):
  """Observes the name of its task, the seed and the sum of actions."""

  def __init__(self, name, config):
    super().__init__({'state': Box(-99, 99, (3,), np.float32)}, 1, 1, 4)
    self._name, self._size = len(name), config.image_size

  def _reset(self, seed):
    self._seed, self._sum = seed, 0.0
    return self._observe()

  def _step(self, action):
    self._sum += float(action[0])
    done = self._sum > 1.4
    return self._observe(), float(done), False, False, done

  def _observe(self):
    return {'state': np.float32([self._name, self._seed % 7, self._sum])}


def demonstrator(name, order=''):
  """Goes to the goal in episodes of even seeds; keeps these."""
  policy = lambda seed: lambda obs: np.float32([0.5 * (seed % 2 == 0)])
  return Demonstrator(policy, lambda e: bool(e['success'].any()))


class Counted(Reader):
  """Trajectory i has i + 2 steps; a text file says how many there are."""

  def __init__(self, path, task, env, relabel):
    self._task, self._path = task, path
    self.names = [str(i) for i in range(int(path.read_text()))]

  def check(self):
    if not self.names:
      raise SourceError(f'{self._path}: is empty.')
    return {'counted': len(self.names)}

  def read(self, index):
    if os.environ['PARENT'] == str(os.getpid()):
      raise RuntimeError('This is no worker process.')
    if self._task.endswith('broken') and index == 1:
      raise SourceError(f'{self._path}: trajectory {index} is broken.')
    if self._task.endswith('frail'):
      dead = self._path.with_suffix('.dead')
      if index == 1 and not dead.exists():
        dead.touch()
        os._exit(3)
    if self._task.endswith('buggy'):
      return {'state': self._path.no_such_attribute}
    records = np.arange(index + 3)
    return {
      'state': np.stack([records, np.full_like(records, index)], -1),
      'action': np.where(records, 0.5, 0)[:, None],
      'reward': (records > 1).astype(float),
      'success': records > 1,
    }


@pytest.fixture
def registered(monkeypatch):
  """Registries are afterwards as they were before."""
  monkeypatch.setenv('PARENT', str(os.getpid()))
  before = {**SUITES}, {**importers.FORMATS}
  yield
  for registry, known in zip((SUITES, importers.FORMATS), before, strict=True):
    for name in set(registry) - set(known):
      registry.remove(name)


def load(directory):
  paths = episodes.find_episodes(directory)
  return {path.name: episodes.load_episode(path) for path in paths}


def same(a, b):
  return a.keys() == b.keys() and all(
    a[name].keys() == b[name].keys()
    and all(np.array_equal(a[name][key], b[name][key]) for key in a[name])
    for name in a
  )


def test_suite_in_worker_processes(registered, tmp_path, capsys):
  """Workers do not import this file's registration; they get the entry."""
  register_suite(
    'toy', lambda name, config: Toy(name, config), demonstrator=demonstrator
  )
  assert suite_of('toy_a').make('abc', settings())._name == 3
  make = env_maker('toy_abc', settings())
  policy = lambda obs, state, lanes: (np.full((2, 1), 0.5), state)
  for workers in ('none', 'process'):
    driver = Driver(make, 2, workers)
    found = driver.run(policy, [3, 4, 5])
    driver.close()
    assert [e['state'][0].tolist() for e in found] == [
      [3, 3, 0], [3, 4, 0], [3, 5, 0]
    ]  # fmt: skip
    assert found[0]['reward'].tolist() == [0, 0, 0, 1, 1]
  options = ['--task', 'toy_abc', '--episodes', '4', '--outdir']
  for workers in '13':
    out = str(tmp_path / workers)
    collect.main([*options, out, '--workers', workers])
  text = capsys.readouterr().out
  assert 'abc            4/4 episodes, ' in text
  # A suite without a table of its own has the plain one.
  assert re.search(r'toy_abc +4 of \d+ +\| +16 +2.0 +1.00 +3.0\n', text)
  assert 'paper' not in text
  assert same(load(tmp_path / '1'), load(tmp_path / '3'))
  assert inspect.inspect(tmp_path / '1').measures == {}
  dataset.main(['info', str(tmp_path / '1')])
  text = capsys.readouterr().out
  assert 'episodes       4 (4 successful)' in text
  assert text.rstrip().endswith('damaged files  none')


def test_format_in_worker_processes(registered, tmp_path, capsys):
  moto_tf.register_format('counted', Counted, where='Count them.')
  source = tmp_path / 'count.txt'
  source.write_text('5')
  line = ['import', '--format', 'counted', str(source)]
  for workers in '137':
    out = str(tmp_path / workers)
    options = ['--task', 'metaworld_hammer', '--workers', workers]
    dataset.main([*line, out, *options])
  found = load(tmp_path / '1')
  assert list(found) == [f'{i:06d}-{i + 2}.npz' for i in range(5)]
  assert found['000003-5.npz']['is_last'].tolist() == 5 * [False] + [True]
  assert found['000003-5.npz']['is_first'].tolist() == [True] + 5 * [False]
  assert same(found, load(tmp_path / '3')) and same(found, load(tmp_path / '7'))
  text = capsys.readouterr().out
  assert 'hammer         5/5 episodes' in text and '63.3' in text
  record = inspect.read_record(tmp_path / '1')
  assert record['counted'] == record['trajectories'] == 5
  assert record['task'] == 'metaworld_hammer'
  assert record['format'] == 'counted'
  # The suite of a task may go without its name, as elsewhere.
  dataset.main([*line, str(tmp_path / '1'), '--task', 'hammer'])
  assert 'hammer' in capsys.readouterr().out


def test_import_goes_on(registered, tmp_path):
  moto_tf.register_format('counted', Counted)
  source, out = tmp_path / 'count.txt', tmp_path / 'out'
  source.write_text('4')
  env = moto_tf.make_config('metaworld').env
  made = importers.Import('counted', source, 'metaworld_hammer', env)
  importers.import_dataset(made, out)
  whole = load(out)
  (out / '000001-3.npz').unlink()
  kept = out / '000002-4.npz'
  when = kept.stat().st_mtime_ns
  importers.import_dataset(made, out, workers=2)
  assert kept.stat().st_mtime_ns == when
  assert same(load(out), whole)


def test_import_survives_a_worker_that_dies(registered, tmp_path, capsys):
  moto_tf.register_format('counted', Counted)
  source = tmp_path / 'count.txt'
  source.write_text('4')
  env = moto_tf.make_config('metaworld').env
  for task in ('metaworld_frail', 'metaworld_hammer'):
    made = importers.Import('counted', source, task, env)
    importers.import_dataset(made, tmp_path / task, workers=2)
  assert same(load(tmp_path / 'metaworld_frail'), load(tmp_path / task))
  assert 'Trajectory 1 is read again' in capsys.readouterr().err


@pytest.mark.parametrize(
  'count, change, error, message',
  [
    (0, {}, SourceError, 'count.txt: is empty'),
    (3, {'task': 'metaworld_buggy'}, WorkerError, 'no_such_attribute'),
    (3, {'task': 'atari_pong'}, EnvError, 'pong.*metaworld, kitchen, gym'),
    (3, {'format': 'nothing'}, RegistryError, 'There are: minari, d4rl, rpl'),
    (3, {'path': Path('absent')}, SourceError, 'no such file. Count them'),
  ],
)
def test_import_explains_mistakes(
  registered, tmp_path, count, change, error, message
):
  moto_tf.register_format('counted', Counted, where='Count them.')
  source = tmp_path / 'count.txt'
  source.write_text(str(count))
  options = {'format': 'counted', 'path': source, 'task': 'metaworld_hammer'}
  env = moto_tf.make_config().env
  made = importers.Import(**{**options, **change}, env=env)
  with pytest.raises(error, match=message):
    importers.import_dataset(made, tmp_path / 'out')
  assert not list(tmp_path.glob('out/*.npz'))


def test_import_goes_on_past_a_broken_trajectory(registered, tmp_path, capsys):
  """The reader's own error is named as it is, without a traceback."""
  moto_tf.register_format('counted', Counted)
  source = tmp_path / 'count.txt'
  source.write_text('3')
  env = moto_tf.make_config().env
  made = importers.Import('counted', source, 'metaworld_broken', env)
  importers.import_dataset(made, tmp_path / 'out', workers=2)
  error = capsys.readouterr().err
  assert f'{source}: trajectory 1 is broken.' in error
  assert 'Traceback' not in error
  assert list(load(tmp_path / 'out')) == ['000000-2.npz', '000002-4.npz']


def test_formats_of_one_suite(registered):
  kind = importers.FORMATS['d4rl']
  assert kind.suite == 'kitchen' and kind.where.startswith('Get it from')
  assert importers.full_task('d4rl', 'mixed') == 'kitchen_mixed'
  assert importers.full_task('d4rl', 'kitchen_mixed') == 'kitchen_mixed'
  with pytest.raises(SourceError, match='data of tasks kitchen_<name>'):
    importers.full_task('d4rl', 'metaworld_hammer')
  importers.register_format('any', Counted)
  assert importers.FORMATS['any'] == Format(Counted)
  assert importers.full_task('any', 'hammer') == 'metaworld_hammer'
  assert importers.full_task('any', 'kitchen_mixed') == 'kitchen_mixed'


def test_registry_of_suites(registered):
  assert list(SUITES) == ['metaworld', 'kitchen', 'gym']
  assert [name for name in SUITES if SUITES[name].binary_reward] == [
    'metaworld'
  ]
  assert rewards_are_successes('metaworld_hammer')
  assert not rewards_are_successes('kitchen_mixed')
  assert not rewards_are_successes('custom_mine')
  assert suite_of('custom_mine') is None
  assert full_task('hammer') == 'metaworld_hammer'
  assert full_task('hammer-v3') == full_task('hammer-v2') == full_task('hammer')
  entry = register_suite('toy', Toy, binary_reward=True, all_tasks=['a'])
  assert entry == Suite(Toy, binary_reward=True, all_tasks=('a',))
  assert register_suite('toy', Toy, all_tasks=['b']).all_tasks == ('b',)
  assert SUITES['toy'].all_tasks == ('b',)  # As from a notebook's cell.
  with pytest.raises(RegistryError, match="suite 'gym' in moto_tf"):
    register_suite('gym', Toy)
  for name in ('two_words', 'Toy', '', '2d'):
    with pytest.raises(RegistryError, match='lower-case'):
      register_suite(name, Toy)
  with pytest.raises(EnvError, match='metaworld, kitchen, gym, toy'):
    make_env('atari_pong', settings())
  with pytest.raises(EnvError, match='no scripted expert for toy_a'):
    make_demonstrator('toy_a')


def test_registries_are_light():
  """They know names and functions without importing a simulator."""
  code = (
    'import sys; from moto_tf.data import importers; '
    'from moto_tf.commands import collect, dataset; '
    'assert list(importers.FORMATS) and list(importers.envs.SUITES); '
    'heavy = ("tensorflow", "mujoco", "metaworld", "matplotlib", "h5py"); '
    'print([name for name in heavy if name in sys.modules])'
  )
  command = [sys.executable, '-c', code]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert done.stdout == '[]\n'


def blocks(page, language):
  text = (DOCS / page).read_text()
  return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def test_suite_and_format_of_the_documents(
  registered, tmp_path, monkeypatch, capsys
):
  """The files that docs/ shows whole, by --plugins, as in its commands."""
  files = {
    'slider.py': next(
      x for x in blocks('environments.md', 'python') if 'register_suite' in x
    ),
    'sliderlog.py': next(
      x for x in blocks('data.md', 'python') if 'register_format' in x
    ),
  }
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path])
  for name, text in files.items():
    monkeypatch.delitem(sys.modules, name[:-3], raising=False)
    Path(name).write_text(text)
  plugins = ['--plugins', 'slider.py']
  collect.main(
    [*plugins, '--task', 'slider_all', '--episodes', '4', '--outdir', 'demos']
  )
  text = capsys.readouterr().out
  assert 'slider_left: 4 episodes' in text and 'slider_right: 4' in text
  found = load('demos/left')
  assert len(found) == 4
  for episode in found.values():
    assert episode['image'].shape == (31, 64, 64, 3)
    assert episode['success'][-1]
  dataset.main(['info', *plugins, 'demos/left'])
  assert 'slider_left: 4 episodes, mean way' in capsys.readouterr().out
  # The logs of these episodes give them again.
  Path('logs').mkdir()
  for name, episode in found.items():
    action = np.append(episode['action'][1:, 0], 0)
    table = [episode['state'][:, 0], action, episode['reward']]
    np.savetxt(f'logs/{name}.csv', np.transpose(table), '%.9g', ',')
  dataset.main(
    ['import', '--plugins', 'slider.py,sliderlog.py', '--format', 'sliderlog']
    + ['logs', 'imported', '--task', 'left']
  )
  text = capsys.readouterr().out
  assert 'Read 124 rows.' in text and 'slider_left: 4 episodes' in text
  again = load('imported')
  for first, second in zip(found.values(), again.values(), strict=True):
    assert first.keys() == second.keys()
    for key in first:
      np.testing.assert_array_equal(first[key], second[key], key)
  for name in ('slider', 'sliderlog'):
    sys.modules.pop(name)
