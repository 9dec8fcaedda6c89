"""Values against evaluations, and the penalty against opposite actions."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_agent, make_batch, randomize, tiny_config
from latent_helpers import METHODS as LATENT
from latent_helpers import latent_agent
from moto_naive import SEED, fresh, naive_q, posterior
from study_helpers import make_episode, naive_values, set_critics

from moto_tf.agents import assessment
from moto_tf.agents.base import Agent
from moto_tf.nn.tfutils import gumbel, split
from moto_tf.studies.context import encode

# Transitions of episodes, and whether they end by themselves.
EPISODES = ((40, False), (5, True), (0, False), (1, False), (18, True))
METHODS = {
  'moto': {'method': 'moto', 'moto__alpha': 3.0},
  'no_unc': {'method': 'no_unc', 'moto__alpha': 0.0},
  'dreamerv2': {'method': 'dreamerv2', 'rssm__ensemble': 1},
}
VECTOR = {
  'encoder__mlp_keys': 'state',
  'encoder__cnn_keys': '$^',
  'decoder__mlp_keys': 'state',
  'decoder__cnn_keys': '$^',
}


@pytest.fixture(autouse=True)
def graphs():
  """Leaves tf.function on for the tests that follow."""
  yield
  tf.config.run_functions_eagerly(False)


def make_episodes(shapes=EPISODES):
  episodes = [
    make_episode(max(length, 1), seed, terminal)
    for seed, (length, terminal) in enumerate(shapes)
  ]
  return [
    {key: values[: length + 1] for key, values in episode.items()}
    for episode, (length, _) in zip(episodes, shapes, strict=True)
  ]


@pytest.mark.parametrize('method', METHODS)
def test_overestimation_is_that_of_a_loop(monkeypatch, method):
  config = tiny_config(**METHODS[method])
  agent = make_agent(config)
  randomize(agent)
  # Posteriors without chance, so that the states are those of `encode`.
  bias = agent.variables()['model/rssm/out_bias']
  bias.assign(np.where(np.arange(bias.shape[0]) % 4 == 1, 1e3, 0.0))
  known, episodes = set_critics(monkeypatch, agent), make_episodes()
  means = {'predicted': [], 'real': []}
  for episode in episodes:
    if len(episode['reward']) > 1:
      post = encode(agent, episode, 0)
      values = naive_values(agent, known, episode, post, config.discount)
      half = int(np.ceil(len(values['real']) / 2))
      for key, found in means.items():
        found.append(sum(values[key][:half]) / half)
  predicted, real = (np.mean(means[key]) for key in ('predicted', 'real'))
  found = agent.assess(episodes)
  assert found == {
    'value_predicted': pytest.approx(predicted, rel=1e-4, abs=1e-4),
    'value_real': pytest.approx(real, rel=1e-4, abs=1e-4),
    'overestimation': pytest.approx(predicted - real, rel=1e-3, abs=1e-3),
  }
  assert abs(found['overestimation']) > 0.05


@pytest.mark.parametrize('method', LATENT)
def test_values_of_latent_critics(method):
  """Index for index: values at s[i] and a[i+1], and where i ends."""
  agent, rng = latent_agent(method), np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=(5, 3, *shape)).astype(np.float32)
  post = {'feat': draw(agent.model.feat)}
  episode = {'action': np.tanh(draw(2)), 'reward': draw()}
  last = np.tanh(draw(2))
  found = agent.behavior.predict_values(post, episode, last)
  assert all(x.shape == (4, 3) for x in found)
  q = lambda feat, action: naive_q(agent, 'online', feat, action)
  less = set()
  for i in range(4):
    for n in range(3):
      here = q(post['feat'][i, n], episode['action'][i + 1, n])
      tail = q(post['feat'][i + 1, n], last[i + 1, n])
      less |= {np.argmin(here), np.argmin(tail)}
      for name, true in (
        ('predicted', min(here)),
        ('tail', min(tail)),
        ('reward', episode['reward'][i + 1, n]),
        ('penalty', 0),
        ('end', 0),
      ):
        value = getattr(found, name)[i, n]
        np.testing.assert_allclose(value, true, 1e-4, 1e-5, err_msg=name)
  assert less == {0, 1}


def test_windows_overlap_by_a_record():
  episodes = make_episodes()
  size = assessment.WINDOW
  found = list(assessment.windows(episodes, ('action', 'image')))
  assert len(found) == int(np.ceil(41 / size))
  for number, window in enumerate(found):
    assert window['action'].shape == (size + 1, len(episodes), 2)
    for t in range(size + 1):
      for lane, episode in enumerate(episodes):
        record = number * size + t - 1
        record = min(max(record, 0), len(episode['reward']) - 1)
        for key, values in window.items():
          np.testing.assert_array_equal(values[t, lane], episode[key][record])


@pytest.mark.parametrize('settings', [{}, VECTOR])
@pytest.mark.parametrize('method', ['moto', 'dreamerv2'])
def test_assessment_is_traced_once_and_changes_nothing(method, settings):
  config = tiny_config(
    **METHODS[method], **settings, eager=False, precision='mixed_bfloat16'
  )
  agent = make_agent(config)
  randomize(agent)
  before = agent.save()
  found = agent.assess(make_episodes())
  assert all(type(x) is float and np.isfinite(x) for x in found.values())
  assert agent.assess(make_episodes()) == found
  agent.assess(make_episodes(EPISODES[::-1][:3] + ((9, False), (2, True))))
  assert agent._values.experimental_get_tracing_count() == 1
  for key, value in agent.save().items():
    np.testing.assert_array_equal(value, before[key])


def test_nothing_to_assess(monkeypatch, agent):
  assert agent.assess(make_episodes(((0, False), (0, True)))) == {}
  assert Agent.assess(agent, make_episodes()) == {}
  monkeypatch.delattr(type(agent.behavior), 'predict_values')
  assert agent.assess(make_episodes()) == {}


def test_penalty_of_recorded_and_opposite_actions():
  """One step from every state whose next record is of the same episode."""
  agent = fresh(moto__alpha=3.0)
  rssm = agent.model.rssm
  post, data = posterior(
    agent, make_batch(tiny_config(), firsts=((0, 3), (1, 2), (2, 5)))
  )
  member_seed, noise_seed = split(SEED, 2)
  member = rssm.draw_members(1, member_seed)[0]
  noise = gumbel([1, 15, *rssm.shape], noise_seed)[0]
  expected = {'recorded': [], 'negated': []}
  for b in range(3):
    for i in range(5):
      if data['is_first'][b, i + 1]:
        continue
      here = {k: post[k][b, i][None] for k in ('deter', 'stoch')}
      for name, sign in (('recorded', 1), ('negated', -1)):
        action = sign * data['action'][b, i + 1][None]
        eps, weights = noise[5 * b + i][None], rssm.weights()
        state = rssm.img_step(here, action, member, eps, weights)
        seq = {k: tf.stack([here[k], state[k]]) for k in here}
        u = agent.behavior.disagreement(seq).numpy().item()
        expected[name].append(3 * u)
  found = agent.behavior.report(post, data, SEED)
  assert len(expected['negated']) == 12
  for name, values in expected.items():
    assert float(found[f'penalty_{name}']) == pytest.approx(
      np.mean(values), rel=1e-3
    )
  assert found['penalty_recorded'] != found['penalty_negated']
  still = {**data, 'action': tf.zeros_like(data['action'])}
  found = agent.behavior.report(post, still, SEED)
  assert found['penalty_recorded'] == found['penalty_negated']
  nothing = {**data, 'is_first': tf.ones_like(data['is_first'])}
  found = agent.behavior.report(post, nothing, SEED)
  assert found['penalty_recorded'] == found['penalty_negated'] == 0


@pytest.mark.parametrize('method', METHODS)
def test_reports_have_the_penalty_where_there_is_one(method):
  agent = make_agent(tiny_config(**METHODS[method]))
  metrics, _ = agent.report([make_batch(tiny_config(), i) for i in (0, 1)], 0)
  penalties = {'penalty_recorded', 'penalty_negated'}
  assert penalties & metrics.keys() == (
    penalties if method == 'moto' else set()
  )


def test_cloned_records_are_counted():
  agent = fresh()
  batch = make_batch(tiny_config(), firsts=((0, 3), (1, 2)), success=0.0)
  batch['success'][0, 2:] = 1
  post, data = posterior(agent, batch)
  metrics = agent.behavior.clone(post, data, SEED)
  assert metrics['bc_records'] == 3  # Not the one that starts an episode.
  assert float(metrics['bc_share']) == pytest.approx(3 / 15)
