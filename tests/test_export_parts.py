"""Exported policies in parts: approximations, ties, an agent of images."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from export_helpers import load_runs, observations
from helpers import ACT, SPACES, tiny_config

from moto_tf.agents.base import Agent, lane_noise
from moto_tf.deploy import check, formats, lite, runner
from moto_tf.deploy.protocol import ActingStep, DeployError
from moto_tf.nn import dists
from moto_tf.policy import Policy


def test_erf_is_within_its_error():
  x = np.linspace(-6, 6, 20_001).astype(np.float32)
  exact = np.array([math.erf(v) for v in x])
  off = np.abs(lite.erf(tf.constant(x)).numpy() - exact)
  assert off.max() <= lite.ERF_ERROR
  away = np.abs(x) > 1e-3
  assert (off[away] / np.abs(exact[away])).max() <= lite.ERF_RELATIVE_ERROR


def test_means_by_the_approximation():
  """Against SciPy, over what the actor can say."""
  loc, scale = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(0.1, 2.1, 41))
  dist = dists.TruncNormal(loc, scale)
  exact = scipy.stats.truncnorm.mean(
    (-1 - loc) / scale, (1 - loc) / scale, loc, scale
  )
  off = np.abs(dist.mean_by(lite.normal_cdf).numpy() - exact)
  assert off.max() <= 5e-6
  np.testing.assert_array_equal(dist.mean_by(dists.normal_cdf), dist.mean())


def test_one_tie_is_no_difference():
  """A step in two hundred may jump, after which both go on alike."""

  class Steps:
    card = {'interface': {'noise': {'latent': {}}}}

    def __init__(self, jumps=()):
      self.jumps, self.count = jumps, 0
      self.reset()

    def reset(self):
      self.state = {'x': np.zeros(1)}

    def __call__(self, obs):
      del obs
      self.count += 1
      self.state = {'x': self.state['x'] + 0.1 + (self.count in self.jumps)}
      return self.state['x']

  sequences = [{'o': np.zeros([50, 1])}] * 4
  for jumps, passed in (((), True), ((70,), True), ((70, 90), False)):
    found = check.compare(Steps(), {'float32': Steps(jumps)}, sequences)
    assert found['float32'] == {
      'steps': 200,
      'jumps': len(jumps),
      'mean': pytest.approx(0),
      'largest': pytest.approx(0),
      'passed': passed,
    }
  # Where nothing is drawn, nothing can fall otherwise.
  steps = Steps((70,))
  steps.card = {'interface': {'noise': {}}}
  found = check.compare(Steps(), {'float32': steps}, sequences)
  assert not found['float32']['passed'] and found['float32']['jumps'] == 1
  # Nothing is within bounds that is not a number.
  broken = lambda obs: np.array([np.nan])
  broken.card = Steps.card
  broken.reset, broken.state = lambda: None, {}
  found = check.compare(Steps(), {'int8': broken}, sequences)
  assert not found['int8']['passed']


class Stacked(Agent):
  """Without a world model: sees the last three images, acts by noise too."""

  kind = tf.float32

  def __init__(self, config):
    super().__init__(config, SPACES, ACT)
    self.input_keys = ['image']
    self.kernel = self.layers.weight('kernel', [16 * 16 * 9, 2])

  def policy(self, obs, state, lanes, mode='train'):
    first = tf.constant(obs['is_first'])
    stack = state['image'] if state else tf.zeros([1, 16, 16, 9], tf.uint8)
    obs = {'image': tf.constant(obs['image']), 'is_first': first}
    noise = {'action': tf.constant(lane_noise(lanes, 2))}
    action, state = self._step(obs, {'image': stack}, noise)
    return action.numpy(), state

  def acting_step(self, cdf):
    del cdf
    state = {'image': ((1, 16, 16, 9), 'uint8')}
    return ActingStep(self._step, state, {'action': ('uniform', (1, 2))})

  def _step(self, obs, state, noise):
    new = tf.tile(obs['image'], [1, 1, 1, 3])
    stack = tf.concat([state['image'][..., 3:], obs['image']], -1)
    first = obs['is_first'][:, None, None, None]
    # Not of uint8, which LiteRT cannot choose between.
    stack = tf.where(first, tf.cast(new, self.kind), tf.cast(stack, self.kind))
    pixels = tf.reshape(tf.cast(stack, tf.float32) / 255, [1, -1])
    action = tf.tanh(pixels @ self.kernel) + 0.1 * (noise['action'] - 0.5)
    state = {'image': tf.cast(stack, tf.uint8)}
    return tf.clip_by_value(action, -1, 1), state


def test_agents_without_a_world_model(tmp_path):
  """What they remember may be a stack of images."""
  agent = Stacked(tiny_config(eager=False))
  interface = formats.write(agent, tmp_path)
  (tmp_path / 'card.json').write_text(json.dumps({'interface': interface}))
  runners = {
    name: runner.ExportedPolicy(tmp_path, run=run)
    for name, run in load_runs(tmp_path).items()
  }
  images = {'image': np.stack([obs['image'] for obs in observations(6)])}
  found = check.compare(Policy(agent), runners, [images] * 4)
  assert all(row['passed'] for row in found.values()), found
  policy = runners['float32']
  policy.reset()
  actions = [policy(image) for image in images['image']]
  assert np.std(actions, 0).min() > 1e-3
  agent.kind = tf.uint8
  with pytest.raises(DeployError, match='LiteRT has no operation SelectV2'):
    formats.write(agent, tmp_path / 'other')
