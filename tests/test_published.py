"""Published policies: small files that act as their runs do."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from study_helpers import make_run

from moto_tf.commands import evaluate, publish
from moto_tf.policy import load_agent, load_policy
from moto_tf.results import published
from moto_tf.results.published import PublishError
from moto_tf.training.checkpoint import CheckpointError

EPISODES, SEED = 3, 2_000_000


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run, of which one evaluation is on record."""
  logdir = make_run(tmp_path_factory.mktemp('runs') / 'moto' / '0')
  row = {'gradient_step': 0, 'success': [0, 0], 'return': [-3.0, -5.0]}
  (logdir / 'evaluations.jsonl').write_text(json.dumps(row) + '\n')
  return logdir


@pytest.fixture(scope='module')
def file(run, tmp_path_factory):
  """Its policy, published by the command."""
  place = tmp_path_factory.mktemp('policies')
  publish.main(
    ['--logdir', str(run), '--name', 'swing-up', '--outdir', str(place)]
    + ['--episodes', str(EPISODES), '--envs', '1', '--seed', str(SEED)]
  )
  return place / 'swing-up.npz'


def test_what_is_in_a_file(run, file):
  agent, config, meta = load_agent(run)
  wanted = agent.policy_variables()
  with np.load(file, allow_pickle=False) as content:
    assert set(content) == {*wanted, 'card'}
    for key, var in wanted.items():
      half = len(var.shape) > 1
      assert content[key].dtype == (np.float16 if half else var.dtype.name)
      np.testing.assert_allclose(content[key], var, rtol=1e-3, atol=1e-6)
    card = json.loads(content['card'].tobytes())
  for word in ('decoder', 'prior', 'reward', 'critics', 'opt'):
    assert not [key for key in wanted if f'{word}/' in key], word
  assert card['counters'] == meta['counters']
  assert card['settings']['task'] == card['task'] == 'gym_Pendulum-v1'
  assert not {'logdir', 'offline_data', 'plugins'} & set(card['settings'])
  assert str(run) not in json.dumps(card)
  assert card['commit'] is None or len(card['commit']) >= 40
  assert card['evaluation']['episodes'] == EPISODES
  assert card['before_float16']['success'] == 0.0
  assert card['before_float16']['episodes'] == 2
  assert 0 < card['before_float16']['mean_difference'] < 0.05
  assert published.describe(card).startswith('swing-up: moto on gym_Pendulum')
  assert config.task == card['task']


def test_its_evaluation_repeats_the_card(file, tmp_path, capsys):
  command = ['--published', str(file), '--episodes', str(EPISODES)]
  command += ['--envs', '1', '--outdir', str(tmp_path)]
  evaluate.main(command)
  output = capsys.readouterr().out
  assert 'On its card: success 0.00 [0.00, ' in output
  (path,) = tmp_path.glob('*.json')
  result = json.loads(path.read_text())
  _, card = published.read(file)
  for key in ('return', 'success', 'episodes', 'return_low'):
    assert result[key] == card['evaluation'][key]
  assert result['published'] == 'swing-up' and 'logdir' not in result
  assert result['seed'] == card['evaluation']['first_seed'] == SEED
  with pytest.raises(SystemExit, match='is there already'):
    evaluate.main(command)
  with pytest.raises(SystemExit):
    evaluate.main([*command, '--checkpoint', '4'])
  assert '--checkpoint is of a run' in capsys.readouterr().err


def test_it_acts_as_its_run(run, file):
  """As near as float16 is, and from a file that has moved."""
  policies = load_policy(run), load_policy(file)
  rng, apart = np.random.default_rng(0), []
  for _ in range(5):
    obs = rng.normal(size=3).astype(np.float32)
    first, second = (policy({'state': obs}) for policy in policies)
    apart.append(np.abs(first - second).max())
  assert 0 < max(apart) < 0.05


class Acting:
  """Its action is what it has seen so far, times a factor."""

  input_keys = ('state',)

  def __init__(self, factor):
    self.factor = factor

  def policy(self, obs, state, lanes, mode):
    assert mode == 'eval'
    state = (0 if obs['is_first'][0] else state) + obs['state']
    return self.factor * state + lanes[0] + 10 * lanes[1], state


def test_a_file_has_no_other_checkpoints(file):
  with pytest.raises(CheckpointError, match='is the file of one policy'):
    load_policy(file, 1000)


def test_actions_are_compared_along_the_same_observations():
  rng = np.random.default_rng(0)
  episodes = [
    {
      'state': rng.normal(size=(length, 2)),
      'reward': np.zeros(length),
      'is_first': np.arange(length) == 0,
    }
    for length in (5, 3)
  ]
  found = published.compare_actions(Acting(1), Acting(1.5), episodes)
  # The last observation is followed by no action.
  sums = [0.5 * np.cumsum(e['state'], 0)[:-1] for e in episodes]
  apart = np.abs(np.concatenate(sums))
  assert found['mean_difference'] == pytest.approx(apart.mean())
  assert found['largest_difference'] == pytest.approx(apart.max())


def test_numbers_beyond_float16(tmp_path):
  large = np.full((2, 2), 7e4, np.float32)
  with pytest.raises(PublishError, match='actor/x has numbers up to 7e'):
    published.shrink('actor/x', large)
  # Units of vectors keep their precision.
  assert published.shrink('mean', large[0]) is not None
  assert published.shrink('mean', large[0]).dtype == np.float32
  counts = np.arange(6).reshape(2, 3)
  assert published.shrink('count', counts) is counts


def test_names(run, file, tmp_path):
  for name in ('', '../x', 'a/b', '.hidden', 'a b', 'x' * 101):
    with pytest.raises(PublishError, match='cannot name a policy'):
      published.publish(run, name, outdir=tmp_path)
  assert published.find('swing-up', file.parent) == file
  assert published.find(str(file), tmp_path) == file
  with pytest.raises(PublishError, match='did you mean swing-up.*There are'):
    published.find('swing-pu', file.parent)
  with pytest.raises(PublishError, match='There are none in'):
    published.find('swing-up', tmp_path)
  with pytest.raises(PublishError, match="no published policy '../swing-up'"):
    published.find('../swing-up', file.parent / 'x')


def written(path, arrays, card):
  """A file of other content."""
  stream = io.BytesIO()
  text = np.frombuffer(json.dumps(card).encode(), np.uint8)
  np.savez_compressed(stream, **arrays, card=text)
  path.write_bytes(stream.getvalue())
  return path


SMALL = {'mean_difference': 0.0, 'largest_difference': 0.0}


@pytest.mark.parametrize(
  'place, value, problem',
  [
    ('format', 2, 'format 1'),
    ('name', '../../x', 'its name is a path'),
    ('name', None, 'its name is no text'),
    ('task', 'a\nb', 'its task is no text'),
    ('seed', True, 'its seed'),
    ('spaces', {'observations': {}, 'action': [2**40]}, 'action'),
    ('settings', [], 'settings is no group'),
    ('counters', {'gradient_step': -1}, 'counters'),
    ('evaluation', {}, 'success'),
    ('before_float16', {'mean_difference': 'x'}, 'is no number'),
    ('before_float16', {**SMALL, 'success': 'x'}, 'success is no number'),
    ('before_float16', {**SMALL, 'success': 0.5}, 'episodes'),
    ('before_float16', {**SMALL, 'mean_difference': 10**400}, 'is no number'),
    ('commit', '\x1b[31m', 'its commit is no text'),
  ],
)
def test_cards_that_cannot_be(file, tmp_path, place, value, problem):
  arrays, card = published.read(file)
  path = written(tmp_path / 'x.npz', arrays, {**card, place: value})
  with pytest.raises(PublishError, match=f'x.npz is no.*{problem}'):
    published.read(path)


def test_files_that_are_broken(file, tmp_path, monkeypatch):
  arrays, card = published.read(file)
  key = next(k for k in arrays if k.startswith('actor/'))
  path = tmp_path / 'x.npz'
  for changed, problem in (
    ({key: np.full_like(arrays[key], np.nan)}, 'is not finite'),
    ({key: np.array(['x'])}, 'expected numbers'),
  ):
    written(path, {**arrays, **changed}, card)
    with pytest.raises(PublishError, match=problem):
      published.read(path)
  written(path, {**arrays, key: arrays[key][:1]}, card)
  with pytest.raises(ValueError, match='does not fit'):
    published.load(str(path))
  data = file.read_bytes()
  for size in (0, 100, len(data) // 2, len(data) - 1):
    path.write_bytes(data[:size])
    with pytest.raises(PublishError, match='x.npz is no published policy'):
      published.read(path)
  shutil.copy(file, path)
  monkeypatch.setattr(published, 'LARGEST', 1000)
  with pytest.raises(PublishError, match='more than 1,000 bytes'):
    published.read(path)


def test_settings_of_another_version(file, tmp_path, capsys):
  """What is not known here is named, what is not said has its default."""
  arrays, card = published.read(file)
  settings = {**card['settings'], 'of.later': 3}
  del settings['kl.forward']
  path = written(tmp_path / 'x.npz', arrays, {**card, 'settings': settings})
  _, config, _ = published.load(str(path))
  assert config.kl.forward is False and config.task == card['task']
  assert 'unknown here: of.later' in capsys.readouterr().err


def test_the_place_of_published_policies():
  """Where they are committed; every one that is there can be read."""
  root = Path(__file__).parents[1]
  assert published.PLACE == root / 'results' / 'policies'
  for path in published.PLACE.glob('*.npz'):
    _, card = published.read(path)
    assert card['name'] == path.stem
