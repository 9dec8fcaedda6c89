"""Every method's policy as every format, from images and from state."""

import json

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import load_runs
from helpers import ACT, SPACES, randomize

from moto_tf.agents import METHODS, make_agent
from moto_tf.deploy import check, formats, runner
from moto_tf.deploy.protocol import DeployError
from moto_tf.nn import dists
from moto_tf.policy import Policy
from moto_tf.presets import make_config

# Of the images of SPACES, beside which the vector is seen.
IMAGES = {'env.image_size': 16, r'(en|de)coder\.mlp_keys': 'state'}
KERNELS = {
  r'encoder\.cnn_kernels': [4, 4],
  r'decoder\.cnn_kernels': [5, 8],
}
# The layers of debug, which the presets of some methods set anew. Weights of at
# least 1,024 numbers, since smaller ones are not quantised.
SIZES = {
  r'.*\.(layers|channels)': [40, 40],
  r'.*\.(hidden|deter|latent)': 40,
}
# One for everything that makes agents; images come with a vector beside them.
# moto is in test_export_policy.py.
CASES = [
  *[(name, 'images') for name in ('sac', 'iql', 'lompo')],
  *[(name, 'state') for name in ('bc', 'cql', 'combo')],
  *[(name, 'state') for name in ('dreamerv2', 'dreamerv2_paper')],
]


def test_every_method_has_a_case():
  made = {METHODS[name].make for name in ('moto', *dict(CASES))}
  ours = lambda make: str(make).startswith('moto_tf.')
  assert made == {m.make for m in METHODS.values() if ours(m.make)}


def make(method, seen, **settings):
  """An agent of random weights, as load_agent makes it, and random units."""
  parts = [method]
  if seen == 'images':
    free = 'model_free' in METHODS[method].groups
    parts += [IMAGES] if free else [IMAGES, KERNELS]
  else:
    parts.insert(0, 'proprio')
  common = {'precision': 'float32', 'offline_data': '', 'eager': False}
  config = make_config('debug', *parts, SIZES, common, settings)
  agent = make_agent(config, SPACES, ACT)
  randomize(agent, scale=0.1)
  rng = np.random.default_rng(1)
  agent.fit(lambda key: rng.normal(1, 2, (50, *SPACES[key].shape)))
  return agent


def sequences(agent, seed=0):
  """Two episodes of eight observations."""
  rng = np.random.default_rng(seed)
  draw = {
    'image': lambda: rng.integers(0, 256, (8, 16, 16, 3), np.uint8),
    'state': lambda: rng.normal(1, 2, (8, 5)).astype(np.float32),
  }
  return [{key: draw[key]() for key in agent.input_keys} for _ in range(2)]


@pytest.mark.parametrize('method, seen', CASES)
def test_formats_act_as_load_policy(method, seen, tmp_path):
  agent = make(method, seen)
  interface = formats.write(agent, tmp_path)
  (tmp_path / 'card.json').write_text(json.dumps({'interface': interface}))
  runners = {
    name: runner.ExportedPolicy(tmp_path, seed=3, run=run)
    for name, run in load_runs(tmp_path).items()
  }
  found = check.compare(Policy(agent, seed=3), runners, sequences(agent))
  for name, row in found.items():
    assert row['passed'] and row['steps'] == 16, (name, row)
    assert row['jumps'] == 0, (name, row)
  assert found['int8']['mean'] > found['float32']['mean']
  assert ('image' in interface['observations']) == (seen == 'images')
  assert_starts_anew(agent, sequences(agent)[0])


def assert_starts_anew(agent, sequence):
  """Where an episode begins, the state does not matter, and else it does."""
  acting = agent.acting_step(dists.normal_cdf)
  noise = {k: tf.fill(shape, 0.3) for k, (_, shape) in acting.noise.items()}
  obs = {k: tf.constant(v[:1]) for k, v in sequence.items()}

  def act(value, first):
    state = {
      k: tf.cast(tf.fill(shape, value), dtype)
      for k, (shape, dtype) in acting.state.items()
    }
    found, _ = acting.step(
      {**obs, 'is_first': tf.constant([first])}, state, noise
    )
    return found.numpy()

  np.testing.assert_array_equal(act(0, True), act(1, True))
  if acting.state:
    assert (act(0, False) != act(1, False)).any()


def test_samples_are_refused():
  agent = make('bc', 'state', eval_action='sample')
  with pytest.raises(DeployError, match='eval_action is sample'):
    agent.acting_step(dists.normal_cdf)
