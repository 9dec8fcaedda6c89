"""Penalty against errors, under actions on and off the data."""

import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import make_agent, randomize, tiny_config
from study_helpers import make_episode

from moto_tf.agents.penalties import PENALTIES
from moto_tf.data.episodes import save_episode
from moto_tf.nn import dists
from moto_tf.studies import StudyError, StudySkipped, penalty
from moto_tf.studies.common import fixed_seed
from moto_tf.studies.context import encode, encode_all, load_data

STEPS = 3


@pytest.fixture
def data(tmp_path):
  """Directory of three episodes, one of them too short to imagine from."""
  for number, length in enumerate((6, 2, 4)):
    save_episode(tmp_path / 'data', f'{number}', make_episode(length, number))
  return tmp_path / 'data'


@pytest.fixture
def loaded(agent, data):
  """The same, loaded."""
  return load_data(agent, data)


def measure(agent, episodes, steps=STEPS):
  """The penalty of episodes."""
  posts = encode_all(agent, episodes)
  return penalty.measure_penalty(agent, episodes, posts, steps)


def test_starts_have_the_actions_that_follow(monkeypatch):
  lengths = [6, 2, 3, 1, 4]
  owner = [e for e, t in enumerate(lengths) for _ in range(t + 1)]
  fit = lambda i: owner[i : i + STEPS + 1] == [owner[i]] * (STEPS + 1)
  expected = [i for i in range(len(owner)) if fit(i)]
  starts = penalty.draw_starts(lengths, STEPS)
  assert starts.tolist() == expected
  monkeypatch.setattr(penalty, 'STATES', 4)
  some = penalty.draw_starts(lengths, STEPS)
  assert len(set(some)) == 4 and set(some) < set(expected)
  assert len(penalty.draw_starts([2, 1], STEPS)) == 0


def test_imagination_takes_the_actions_on_record(agent, loaded, monkeypatch):
  calls, states = [], encode_all(agent, loaded)
  imagine = penalty.imagine

  def record(agent, start, actions, steps):
    result = imagine(agent, start, actions, steps)
    calls.append((start, actions, result[1]))
    return result

  monkeypatch.setattr(penalty, 'imagine', record)
  penalty.measure_penalty(agent, loaded, states, STEPS)
  starts = [
    (e, i)
    for e, episode in enumerate(loaded)
    for i in range(len(episode['reward']) - STEPS)
  ]
  assert len(starts) == 4 + 2
  recorded, policy, noise, negated = (actions for _, actions, _ in calls)
  assert policy is None
  for n, (e, i) in enumerate(starts):
    expected = loaded[e]['action'][i + 1 : i + 1 + STEPS]
    np.testing.assert_array_equal(recorded[:, n], expected)
    # The GRU has no noise: with the same action it arrives in the same h.
    deter = states[e]['deter'][i + 1]
    arrived = calls[0][2][0][n, -deter.shape[0] :]
    np.testing.assert_allclose(arrived, deter, rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(negated, -recorded)
  assert noise.shape == recorded.shape and len(np.unique(noise)) == tf.size(
    noise
  )
  assert np.abs(noise).max() <= 1
  for start, _, _ in calls[1:]:
    np.testing.assert_array_equal(start['deter'], calls[0][0]['deter'])


@pytest.mark.parametrize('share', [1.0, 0.1])
def test_policy_imagination_is_that_of_training(share):
  """With the same draws, samples of the policy visit the same states.

  They are not drawn towards the mean, as where episodes are collected.
  """
  agent = make_agent(tiny_config(collect_std=share))
  randomize(agent)
  start = {k: encode(agent, make_episode(), 0)[k] for k in ('deter', 'stoch')}
  actor = agent.behavior.actor
  seq = agent.model.imagine(actor, start, STEPS, fixed_seed(3))
  near = {'rtol': 1e-3, 'atol': 1e-4}
  for actions in (None, seq['action']):
    _, feats = penalty.imagine(agent, start, actions, STEPS)
    np.testing.assert_allclose(tf.stack(feats), seq['feat'][1:], **near)


def test_statistics_are_those_of_the_heads(agent):
  start = {k: encode(agent, make_episode(), 0)[k] for k in ('deter', 'stoch')}
  found, feats = penalty.imagine(agent, start, None, STEPS)
  rssm = agent.model.rssm
  for k, feat in enumerate(feats):
    stoch = tf.reshape(feat[:, : -rssm.deter], [7, *rssm.shape])
    logits = rssm.prior_all(feat[:, -rssm.deter :])
    for name, statistic in PENALTIES.items():
      expected = statistic(logits, stoch)
      np.testing.assert_allclose(found[name][k], expected, rtol=1e-4)


def test_only_heads_that_differ_disagree(loaded):
  agent = make_agent(tiny_config())
  randomize(agent)
  numbers = measure(agent, loaded)
  spread = lambda numbers: [
    value
    for kinds in numbers['statistics'].values()
    for kind in penalty.KINDS
    for value in kinds[kind]['mean']
  ]
  assert len(spread(numbers)) == 3 * 4 * STEPS
  assert min(spread(numbers)) > 1e-2
  heads = agent.model.rssm.prior
  for var in heads.variables:
    var.assign(tf.repeat(var[:1], heads.members, 0))
  numbers = measure(agent, loaded)
  assert max(spread(numbers)) < 1e-5


def test_rise_and_spread_are_over_states():
  found = {
    'recorded': {'x': np.array([[1.0, 3.0], [4.0, 4.0]])},
    'negated': {'x': np.array([[2.0, 4.0], [2.0, 2.0]])},
  }
  numbers = penalty._spread(found, 'negated', 'x')
  assert numbers == {'mean': [3, 2], 'std': [1, 0], 'rise': [0.5, -0.5]}


def test_model_error_is_of_the_record_it_predicts(agent, loaded, monkeypatch):
  """A decoder that sees nothing but zeros errs by the observation itself."""
  zeros = lambda feat: {
    'image': dists.UnitNormal(tf.zeros([feat.shape[0], 16, 16, 3]), 3)
  }
  monkeypatch.setattr(agent.model, 'decoder', zeros)
  numbers = measure(agent, loaded)
  error = numbers['errors']['image']
  for k in range(STEPS):
    expected = [
      np.mean((episode['image'][i + k + 1] / 255 - 0.5) ** 2)
      for episode in loaded
      for i in range(len(episode['reward']) - STEPS)
    ]
    assert error['mean'][k] == pytest.approx(np.mean(expected), rel=1e-4)
    assert error['posterior'][k] == error['mean'][k]
  assert error['spearman_excess'] == dict.fromkeys(PENALTIES)


def test_rank_correlations_of_disagreement_and_error():
  rng = np.random.default_rng(0)
  u, floor = rng.normal(size=(2, STEPS, 20))
  error = floor + np.exp(u)
  found = penalty._ranks(u, error, floor)
  rho = lambda x, y: scipy.stats.spearmanr(x, y).statistic
  assert found['spearman'] == pytest.approx(rho(u.ravel(), error.ravel()))
  each = [rho(u[k], error[k]) for k in range(STEPS)]
  assert found['spearman_at_step'] == pytest.approx(np.mean(each))
  assert found['spearman_excess'] == pytest.approx(1)


def test_a_second_measurement_gives_the_same_numbers(agent, loaded):
  numbers = measure(agent, loaded)
  assert numbers == measure(agent, loaded)
  json.dumps(numbers, allow_nan=False)
  table = penalty.penalty_table(numbers)
  assert f'{"negated":<24}' in table and 'step 3' in table
  assert 'prob_distance (the penalty)' in table and "error of 'image'" in table


def test_data_that_cannot_be_used(agent, data, tmp_path, capsys):
  (data / 'broken.npz').write_bytes(b'x')
  recorded = load_data(agent, data)
  assert len(recorded) == 3
  assert f'{data}/broken.npz: unreadable' in capsys.readouterr().err
  with pytest.raises(StudySkipped, match='no recorded episode has the 7'):
    measure(agent, recorded, 7)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(StudyError, match='no episode that .* no .*npz files'):
    load_data(agent, tmp_path / 'empty')
  (tmp_path / 'empty' / 'a.npz').write_bytes(b'x')
  with pytest.raises(StudyError, match='no episode that .*unreadable'):
    load_data(agent, tmp_path / 'empty')
