"""Critics against returns, rewards against real ones, curves of training."""

import json
import types

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import make_agent, randomize, tiny_config
from study_helpers import make_episode, naive_values, set_critics

from moto_tf.agents.assessment import discounted_sum
from moto_tf.data.episodes import save_episode
from moto_tf.nn.tfutils import gumbel
from moto_tf.studies import composition, critics, reward, training
from moto_tf.studies.common import fixed_seed, pearson, spearman
from moto_tf.studies.context import encode, encode_all

GAMMA = 0.99


@pytest.mark.parametrize('end', [0.0, 7.0])
def test_discounted_sum_is_the_literal_one(end):
  reward = np.random.default_rng(0).normal(size=9)
  expected = []
  for i in range(9):
    total = 0.0
    for k in range(9 - i):
      total += GAMMA**k * reward[i + k]
    expected.append(total + GAMMA ** (9 - i) * end)
  found = discounted_sum(reward, GAMMA, end)
  np.testing.assert_allclose(found, expected)


def test_encode_steps_through_the_records(agent):
  """The action of a record leads into it."""
  episode, rssm = make_episode(), agent.model.rssm
  post = encode(agent, episode, 4)
  noise = gumbel([7, 1, *rssm.shape], fixed_seed(1, 4))
  state = rssm.initial(1)
  for i in range(7):
    image = tf.constant(episode['image'][i : i + 1])
    embed = agent.model.encoder(agent.model.preprocess({'image': image}))
    action = tf.constant(episode['action'][i : i + 1])
    first = tf.constant([i == 0])
    state = rssm.obs_step(state, action, embed, first, noise[i])
    for key in ('deter', 'stoch'):
      near = {'rtol': 1e-3, 'atol': 1e-4}
      np.testing.assert_allclose(post[key][i], state[key][0], **near)


@pytest.mark.parametrize('terminal', [False, True])
@pytest.mark.parametrize('method', ['moto', 'dreamerv2'])
def test_predicted_values_against_what_follows(monkeypatch, method, terminal):
  """Rewards follow MOTO's action, and are of the state in DreamerV2."""
  alone = {'moto__alpha': 3.0} if method == 'moto' else {'rssm__ensemble': 1}
  config = tiny_config(method=method, **alone)
  agent = make_agent(config)
  randomize(agent)
  known = set_critics(monkeypatch, agent)
  episode = make_episode(terminal=terminal)
  post = encode(agent, episode, 0)
  found = critics.episode_values(agent, config, episode, post)
  expected = naive_values(agent, known, episode, post, GAMMA)
  assert found.keys() == expected.keys()
  for key, values in expected.items():
    assert len(found[key]) == len(values) == 6
    np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-4)
  assert np.any(found['penalty']) == (method == 'moto')


def test_calibration_by_group_and_step(agent):
  lengths, success = (6, 4, 5), (True, False, True)
  rollouts = [
    make_episode(length, seed, success=flag)
    for seed, (length, flag) in enumerate(zip(lengths, success, strict=True))
  ]
  config = tiny_config()
  posts = encode_all(agent, rollouts)
  numbers, points = critics.calibrate(agent, config, rollouts, posts)
  json.dumps(numbers, allow_nan=False)
  each = [
    critics.episode_values(agent, config, e, encode(agent, e, i))
    for i, e in enumerate(rollouts)
  ]
  for key in ('predicted', 'real', 'reward'):
    np.testing.assert_array_equal(
      points[key], np.concatenate([x[key] for x in each])
    )
    found = numbers['steps']['successful'][key]
    for step in range(6):
      values = [x[key][step] for x in (each[0], each[2]) if step < len(x[key])]
      assert found[step] == pytest.approx(np.mean(values))
  assert numbers['steps']['successful']['episodes'] == [2] * 5 + [1]
  assert numbers['steps']['failed']['episodes'] == [1] * 4
  assert numbers['successes'] == 2
  assert numbers['failed']['states'] == 4
  error = each[1]['predicted'] - each[1]['real']
  assert numbers['failed']['error'] == pytest.approx(error.mean())
  assert numbers['failed']['penalty'] == pytest.approx(
    each[1]['penalty'].mean()
  )
  text = critics.describe_calibration(numbers)
  assert '3 episodes, 2 successful' in text


def test_a_group_without_episodes(agent):
  episodes = [make_episode()]
  posts = encode_all(agent, episodes)
  numbers, _ = critics.calibrate(agent, tiny_config(), episodes, posts)
  assert numbers['successful'] == {'states': 0}
  assert numbers['all'] == numbers['failed']


def test_rewards_are_imagined_from_five_records_and_the_actions(agent):
  rssm, episode = agent.model.rssm, make_episode(8)
  post = encode(agent, episode, 3)
  found = reward.predict_rewards(agent, episode, post, 3)
  np.testing.assert_allclose(found['real'], episode['reward'])
  members = rssm.draw_members(4, fixed_seed(4, 3))
  noise = gumbel([4, 1, *rssm.shape], fixed_seed(5, 3))
  state = {k: post[k][4:5] for k in ('deter', 'stoch')}
  near = {'rtol': 1e-3, 'atol': 1e-4}
  for t in range(9):
    seen = agent.model.predict_reward(post['feat'][t])
    np.testing.assert_allclose(found['seen'][t], seen, **near)
    if t < 5:
      np.testing.assert_allclose(found['imagined'][t], seen, **near)
      continue
    action = tf.constant(episode['action'][t : t + 1])
    k, weights = t - 5, rssm.weights()
    state = rssm.img_step(state, action, members[k], noise[k], weights)
    expected = agent.model.predict_reward(rssm.get_feat(state))[0]
    np.testing.assert_allclose(found['imagined'][t], expected, **near)
  changed = {**episode, 'image': episode['image'].copy()}
  changed['image'][5:] = 255 - changed['image'][5:]
  post = encode(agent, changed, 3)
  again = reward.predict_rewards(agent, changed, post, 3)
  np.testing.assert_array_equal(again['imagined'], found['imagined'])
  assert not np.allclose(again['seen'][5:], found['seen'][5:], atol=1e-5)


def test_predicted_rewards_by_real_reward(monkeypatch):
  rng, episodes = np.random.default_rng(0), []
  for length in (7, 4, 12):
    real = rng.integers(0, 3, length).astype(float)
    seen, imagined = real + rng.normal(size=(2, length))
    episodes.append({'real': real, 'seen': seen, 'imagined': imagined})
  posts = ['a', 'b', 'c']

  def predict(_, episode, post, number):
    assert post == posts[number]
    return episode

  monkeypatch.setattr(reward, 'predict_rewards', predict)
  numbers, found = reward.measure_reward(None, episodes, posts)
  assert found == episodes
  assert (numbers['episodes'], numbers['records']) == (3, 2 + 7)
  counted = [(e, t) for e in episodes for t in range(5, len(e['real']))]
  for kind in ('seen', 'imagined'):
    errors = [abs(e[kind][t] - e['real'][t]) for e, t in counted]
    assert numbers[kind]['absolute_error'] == pytest.approx(sum(errors) / 9)
    pairs = [(e[kind][t], e['real'][t]) for e, t in counted]
    expected = scipy.stats.pearsonr(*zip(*pairs, strict=True))[0]
    assert numbers[kind]['pearson'] == pytest.approx(expected)
  assert [level['reward'] for level in numbers['levels']] == [0, 1, 2]
  for level in numbers['levels']:
    values = [(e, t) for e, t in counted if e['real'][t] == level['reward']]
    assert level['records'] == len(values)
    for kind in ('seen', 'imagined'):
      x = [e[kind][t] for e, t in values]
      assert level[kind] == pytest.approx([np.mean(x), np.std(x)])
  row = reward.reward_table(numbers).splitlines()[3].split()
  mean, std = numbers['levels'][2]['imagined']
  assert row[0] == '2.00' and row[5:] == [f'{mean:.2f}', '+-', f'{std:.2f}']


def test_many_rewards_share_levels():
  real = np.array([-16.3, 0, -0.1, -8, *np.linspace(-16, 0, 30)])
  masks = reward.split_levels(real)
  assert len(masks) == reward.LEVELS
  np.testing.assert_array_equal(np.sum(masks, 0), 1)
  highest = [real[mask].max() for mask in masks]
  lowest = [real[mask].min() for mask in masks]
  assert all(a < b for a, b in zip(highest, lowest[1:], strict=False))
  assert all(b - a <= 1.63 for a, b in zip(lowest, highest, strict=True))


def test_episodes_too_short_to_count(agent):
  episodes = [make_episode(3)]
  posts = encode_all(agent, episodes)
  numbers, found = reward.measure_reward(agent, episodes, posts)
  assert numbers['levels'] == [] and numbers['seen']['pearson'] is None
  assert len(found[0]['imagined']) == 4
  assert reward.reward_table(numbers).startswith('No episode has more than')
  reward.draw({'policy': (numbers, found)})


def test_correlations():
  rng = np.random.default_rng(0)
  x = rng.integers(0, 5, 40)
  y = x + rng.integers(0, 4, 40)
  expected = scipy.stats.spearmanr(x, y).statistic
  assert spearman(x, y) == pytest.approx(expected)
  assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
  assert expected != pytest.approx(pearson(x, y))
  assert spearman(x, np.ones(40)) is None
  assert pearson(x[:1], y[:1]) is None


def test_training_curves(tmp_path, capsys):
  (tmp_path / 'config.yaml').write_text('task: a_b\nseed: 0\n')
  rows = []
  for step in range(1, 41):
    row = {'gradient_step': step, 'phase': 'online'}
    row['phase'] = 'offline' if step <= 20 else 'online'
    row['train/imag_disagreement'] = float(step)
    if step > 20:
      row['episode/success'] = float(step == 40)
    rows.append(row)
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'metrics.jsonl').write_text(text)
  found = training.training_curves(tmp_path)
  assert found['online_start'] == 20
  assert set(found['curves']) == {'train/imag_disagreement', 'episode/success'}
  x, y = found['curves']['episode/success']
  assert list(x) == list(range(21, 41)) and y.sum() == 1
  assert found['phases'] == {
    'train/imag_disagreement': {'offline': 19.5, 'online': 39.5},
    'episode/success': {'online': 0.5},
  }
  (tmp_path / 'metrics.jsonl').unlink()
  assert training.training_curves(tmp_path) is None
  assert 'metrics.jsonl is unreadable' in capsys.readouterr().err


def test_the_largest_reward_of_the_data(tmp_path):
  """Of all intact episodes; of no directory, and of an empty one, none."""

  def found(directory):
    config = tiny_config(offline_data=str(directory))
    context = types.SimpleNamespace(config=config, logdir=tmp_path / 'run')
    return composition.largest_reward(context)

  data, paths = tmp_path / 'data', {}
  for name, largest in (('a', 2), ('b', 9), ('c', 3), ('d', 1)):
    episode = make_episode()
    episode['reward'][3] = largest
    paths[name] = save_episode(data, name, episode)
  assert found(data) == 9
  paths['b'].write_bytes(paths['b'].read_bytes()[:-40])
  assert found(data) == 3
  (tmp_path / 'empty').mkdir()
  assert found(tmp_path / 'empty') is None
  assert found(tmp_path / 'none') is None
  assert found('') is None
