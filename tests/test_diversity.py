"""What makes demonstrations of an expert differ: noise on its actions.

Those of the kitchen are also kicked, see tests/envs/test_kitchen_expert.py.
"""

import json

import numpy as np
import pytest
from data_helpers import FakeRecorder
from grid_helpers import write
from gymnasium.spaces import Box

from moto_tf import envs
from moto_tf.commands import collect
from moto_tf.data import episodes, record
from moto_tf.envs.kitchen import demonstrations as kitchen
from moto_tf.grid import demonstrations, spec

STEPS, SIZE = 250, 3


class Still(envs.Env):
  """A place where nothing moves."""

  def __init__(self):
    spaces = {'state': Box(-1, 1, (1,), np.float32)}
    super().__init__(spaces, SIZE, time_limit=STEPS)

  def _reset(self, seed):
    return {'state': np.zeros(1, np.float32)}

  def _step(self, action):
    return self._reset(0), 0.0, False, False, False


@pytest.fixture
def still():
  """A suite whose expert always does the same, without noise of its own."""
  act = lambda obs: np.float32([0, 0.1, 0.9])
  made = envs.Demonstrator(lambda seed: act, lambda episode: True)
  envs.register_suite(
    'still',
    lambda name, config: Still(),
    demonstrator=lambda name, order='': made,
  )
  yield
  envs.SUITES.remove('still')


def test_noise_on_the_actions_of_an_expert(still, tmp_path):
  """Gaussian, anew at each step and in each episode."""
  actions = {}
  for noise in (0.0, 0.3):
    recording = record.Recording('still_task', {}, noise=noise)
    record.collect(recording, tmp_path / str(noise), 2)
    paths = episodes.find_episodes(tmp_path / str(noise))
    found = [episodes.load_episode(path)['action'][1:] for path in paths]
    actions[noise] = np.array(found, float)
    assert actions[noise].shape == (2, STEPS, SIZE)
  # What the expert does, at most 1.
  means = np.float32([0, 0.1, 0.9])
  assert (actions[0.0] == means).all()
  noisy = actions[0.3][..., :2] - means[:2]
  assert noisy.std() == pytest.approx(0.3, abs=0.03)
  assert noisy.mean() == pytest.approx(0, abs=0.03)
  # Of a normal distribution 68 % lie within one deviation.
  assert np.mean(np.abs(noisy) < 0.3) == pytest.approx(0.683, abs=0.05)
  assert (np.diff(noisy, axis=1) != 0).all()
  pairs = [
    (noisy[:, :-1], noisy[:, 1:]),
    (noisy[0], noisy[1]),
    (noisy[..., 0], noisy[..., 1]),
  ]
  for first, second in pairs:
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.15
  assert actions[0.3].max() == 1 and actions[0.3].min() >= -1


def recorded_noise(directory):
  return json.loads((directory / 'dataset.json').read_text())['noise']


@pytest.mark.parametrize(
  'task, words, noise',
  [
    ('kitchen_mixed', [], 0.1),
    ('kitchen_partial', ['--noise', '0.25'], 0.25),
    ('kitchen_complete', ['--noise', '0', '--all_outcomes'], 0.0),
    ('metaworld_hammer', [], 0.0),
  ],
)
def test_collect_records_with_the_experts_own_noise(
  tmp_path, monkeypatch, task, words, noise
):
  monkeypatch.setattr(record, 'Recorder', FakeRecorder)
  words = ['--task', task, '--outdir', str(tmp_path), *words]
  collect.main([*words, '--episodes', '1', '--workers', '1'])
  assert recorded_noise(tmp_path) == noise
  assert kitchen.NOISE == 0.1


@pytest.mark.parametrize('given, noise', [('', 0.1), ('noise: 0', 0.0)])
def test_a_suite_records_with_the_experts_own_noise(
  tmp_path, monkeypatch, given, noise
):
  monkeypatch.setattr(record, 'Recorder', FakeRecorder)
  text = f"""
    presets: [proprio, debug]
    tasks:
      kitchen_mixed:
        presets: [kitchen]
        demonstrations: {{episodes: 2, {given}}}
    methods: [moto]
  """
  grid = spec.load(write(tmp_path, text), tmp_path / 'runs')
  demonstrations.make(demonstrations.look(grid), 1)
  assert recorded_noise(tmp_path / 'runs' / 'kitchen_mixed' / 'demos') == noise
