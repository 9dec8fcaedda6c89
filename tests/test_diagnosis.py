"""Critics against returns, penalty against errors, files of the script."""

import argparse
import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import make_agent, make_batch, randomize, tiny_config

from moto_tf.commands.diagnose import main, roll_out
from moto_tf.data.episodes import save_episode
from moto_tf.nn import dists
from moto_tf.nn.tfutils import gumbel
from moto_tf.presets import make_config
from moto_tf.studies import critics, figures, penalty, reward, training
from moto_tf.studies.common import (
  StudyError,
  encode,
  encode_all,
  find_data,
  fixed_seed,
  load_data,
  pearson,
  spearman,
)
from moto_tf.train.checkpoint import Checkpoints
from moto_tf.train.evaluation import load_agent
from moto_tf.train.run import Run

GAMMA = 0.99
STEPS = 3


def make_episode(length=6, seed=0, terminal=False, success=False):
  """A random episode of `length` transitions."""
  config = tiny_config(
    replay__batch=1, replay__length=length + 1, start_states=0
  )
  batch = make_batch(config, seed)
  episode = {k: v[0] for k, v in batch.items()}
  episode['action'][0] = episode['reward'][0] = 0
  episode['is_last'][-1] = True
  episode['is_terminal'][-1] = terminal
  episode['success'] = np.arange(length + 1) > (2 if success else length)
  return episode


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


def measure(agent, config, episodes, steps=STEPS):
  """The penalty of episodes."""
  posts = encode_all(agent, episodes)
  return penalty.measure_penalty(agent, config, episodes, posts, steps)


@pytest.mark.parametrize('end', [0.0, 7.0])
def test_discounted_sum_is_the_literal_one(end):
  reward = np.random.default_rng(0).normal(size=9)
  expected = []
  for i in range(9):
    total = 0.0
    for k in range(9 - i):
      total += GAMMA**k * reward[i + k]
    expected.append(total + GAMMA ** (9 - i) * end)
  found = critics.discounted_sum(reward, GAMMA, end)
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


class Known:
  """Critics whose values are known: linear in what they get."""

  def __init__(self, size, seed=0):
    self.weight = np.random.default_rng(seed).normal(size=size)

  def value(self, *inputs):
    inputs = [np.asarray(x, np.float64) for x in inputs]
    return np.concatenate(inputs, -1) @ self.weight

  def __call__(self, *inputs):
    value = self.value(*inputs)
    return tf.constant(np.stack([value + 1, value, value + 2]), tf.float32)


@pytest.mark.parametrize('terminal', [False, True])
def test_q_is_compared_with_what_follows_its_action(
  agent, monkeypatch, terminal
):
  rssm, episode = agent.model.rssm, make_episode(terminal=terminal)
  known = Known(rssm.feat + 2)
  monkeypatch.setattr(agent.behavior, 'critics', known)
  post = encode(agent, episode, 0)
  config = tiny_config(alpha=3.0)
  found = critics.episode_values(agent, config, episode, post)
  feat, last = post['feat'].numpy(), 6
  tail = known.value(feat[6], agent.behavior.actor(feat[6:]).mean()[0])
  for i in range(last):
    predicted = known.value(feat[i], episode['action'][i + 1])
    reward = real = 0.0
    for k in range(last - i):
      # Of s[i+k] and a[i+k+1]: of the heads where they lead.
      there = {key: post[key][i + k : i + k + 2, None] for key in post}
      u = agent.behavior.disagreement(there).numpy()[0, 0]
      reward += GAMMA**k * episode['reward'][i + 1 + k]
      real += GAMMA**k * (episode['reward'][i + 1 + k] - 3 * u)
      if k == 0:
        assert found['penalty'][i] == pytest.approx(3 * u, abs=1e-4)
    real += 0 if terminal else GAMMA ** (last - i) * tail
    assert found['predicted'][i] == pytest.approx(predicted, abs=1e-4)
    assert found['reward'][i] == pytest.approx(reward, abs=1e-4)
    assert found['real'][i] == pytest.approx(real, abs=1e-4)
  assert {len(v) for v in found.values()} == {last}


@pytest.mark.parametrize('terminal', [False, True])
def test_a_state_value_has_the_reward_of_its_state(monkeypatch, terminal):
  config = tiny_config(behavior='dreamer', rssm__ensemble=1, start_states=0)
  dreamer = make_agent(config)
  randomize(dreamer)
  episode = make_episode(terminal=terminal)
  known = Known(dreamer.model.rssm.feat)
  monkeypatch.setattr(dreamer.behavior, 'critics', known)
  post = encode(dreamer, episode, 0)
  found = critics.episode_values(dreamer, config, episode, post)
  value = known.value(post['feat'])
  for i in range(6):
    cut = real = 0.0
    for k in range(7 - i):
      cut += GAMMA**k * episode['reward'][i + k]
    for k in range(6 - i):
      real += GAMMA**k * episode['reward'][i + k]
    real = cut if terminal else real + GAMMA ** (6 - i) * value[6]
    assert found['predicted'][i] == pytest.approx(value[i], abs=1e-4)
    assert found['reward'][i] == pytest.approx(cut, abs=1e-4)
    assert found['real'][i] == pytest.approx(real, abs=1e-4)
  assert not found['penalty'].any()


def test_calibration_by_group_and_step(agent):
  lengths, success = (6, 4, 5), (True, False, True)
  rollouts = [
    make_episode(length, seed, success=flag)
    for seed, (length, flag) in enumerate(zip(lengths, success, strict=True))
  ]
  config = tiny_config(alpha=3.0)
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
  figures.reward({'policy': (numbers, found)})


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
  penalty.measure_penalty(agent, tiny_config(), loaded, states, STEPS)
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


def test_policy_imagination_is_that_of_training(agent):
  """With the same draws, samples of the policy visit the same states."""
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
    for name, statistic in penalty.PENALTIES.items():
      expected = statistic(logits, stoch)
      np.testing.assert_allclose(found[name][k], expected, rtol=1e-4)


def test_only_heads_that_differ_disagree(loaded):
  agent = make_agent(tiny_config())
  randomize(agent)
  numbers = measure(agent, tiny_config(), loaded)
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
  numbers = measure(agent, tiny_config(), loaded)
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
  numbers = measure(agent, tiny_config(), loaded)
  error = numbers['errors']['image']
  for k in range(STEPS):
    expected = [
      np.mean((episode['image'][i + k + 1] / 255 - 0.5) ** 2)
      for episode in loaded
      for i in range(len(episode['reward']) - STEPS)
    ]
    assert error['mean'][k] == pytest.approx(np.mean(expected), rel=1e-4)
    assert error['posterior'][k] == error['mean'][k]
  assert error['spearman_excess'] == dict.fromkeys(penalty.PENALTIES)


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
  config = tiny_config()
  numbers = measure(agent, config, loaded)
  assert numbers == measure(agent, config, loaded)
  json.dumps(numbers, allow_nan=False)
  table = penalty.penalty_table(numbers)
  assert f'{penalty.KINDS[3]:<24}' in table and 'step 3' in table
  assert 'prob_distance (the penalty)' in table and "error of 'image'" in table


def test_data_that_cannot_be_used(agent, data, tmp_path, capsys):
  (data / 'broken.npz').write_bytes(b'x')
  recorded = load_data(agent, data)
  assert len(recorded) == 3
  assert f'{data}/broken.npz: unreadable' in capsys.readouterr().err
  with pytest.raises(StudyError, match='No recorded episode has the 7'):
    measure(agent, tiny_config(), recorded, 7)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(StudyError, match='no episode that .* no .*npz files'):
    load_data(agent, tmp_path / 'empty')
  (tmp_path / 'empty' / 'a.npz').write_bytes(b'x')
  with pytest.raises(StudyError, match='no episode that .*unreadable'):
    load_data(agent, tmp_path / 'empty')


def test_where_the_data_is(tmp_path):
  logdir, given = tmp_path / 'moto' / '0', tmp_path / 'given'
  config = tiny_config(offline_data='auto')
  with pytest.raises(StudyError, match='demos any more.*--data DIR'):
    find_data(config, logdir, None)
  with pytest.raises(StudyError, match='given; --data names'):
    find_data(config, logdir, given)
  (tmp_path / 'demos').mkdir()
  given.mkdir()
  assert find_data(config, logdir, None) == tmp_path / 'demos'
  assert find_data(config, logdir, given) == given
  config = tiny_config(offline_data='')
  assert find_data(config, logdir, None) is None


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


def make_run(logdir, **overrides):
  """A run on Pendulum, whose episodes a time limit cuts, of random weights."""
  config = make_config(
    'gym',
    'debug',
    'proprio',
    {
      'logdir': str(logdir),
      'task': 'gym_Pendulum-v1',
      'env.time_limit': 12,
      'env_workers': 'none',
      'prefill_episodes': 2,
      'offline_steps': 0,
      'eager': False,
      **overrides,
    },
  )
  with Run(config) as run:
    run.prefill()
    randomize(run.agent)
    run.save()
  rows = [
    {'gradient_step': step, 'phase': phase, f'train/imag_{name}': 0.1 * step}
    for step, phase in ((1, 'offline'), (2, 'online'), (3, 'online'))
    for name in ('disagreement', 'penalty', 'reward_raw')
    if config.behavior == 'moto'
  ]
  with (logdir / 'metrics.jsonl').open('a') as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)
  return logdir


def files(directory):
  return {path.name for path in directory.iterdir()}


def test_script_writes_numbers_and_figures(tmp_path, capsys):
  logdir = make_run(tmp_path / 'moto' / '0')
  saved = Checkpoints(logdir / 'checkpoints', 1).load()[0]
  agent, config, _ = load_agent(logdir, policy_only=False)
  for key, value in agent.save().items():
    np.testing.assert_array_equal(value, saved[key], key)
  command = ['--logdir', str(logdir), '--episodes', '3']
  command += ['--data', str(logdir / 'episodes')]
  main(command)
  output = capsys.readouterr().out
  for part in ('3/3 episodes', 'logit_std', 'negated', 'Pearson', 'Numbers:'):
    assert part in output, part
  names = 'q_calibration reward penalty disagreement'
  figures = {f'{name}.png' for name in names.split()}
  assert files(logdir / 'diagnosis') == {'diagnosis.json', *figures}
  text = (logdir / 'diagnosis' / 'diagnosis.json').read_text()
  result = json.loads(text)
  assert result['task'] == 'gym_Pendulum-v1'
  assert result['critics']['all']['states'] == 3 * 12
  rollouts = roll_out(agent, config, argparse.Namespace(episodes=3, envs=1))
  posts = encode_all(agent, rollouts)
  numbers, _ = critics.calibrate(agent, config, rollouts, posts)
  assert numbers['all'] == pytest.approx(result['critics']['all'], rel=1e-3)
  assert result['penalty']['episodes'] == 2
  assert result['penalty']['states'] == 2 * 3
  assert result['reward']['policy']['records'] == 3 * (13 - 5)
  assert result['reward']['recorded']['episodes'] == 2
  assert 'online' in result['training']['train/imag_penalty']
  main([*command, '--outdir', str(tmp_path / 'again')])
  assert (tmp_path / 'again' / 'diagnosis.json').read_text() == text
  main([*command[:2], '--episodes', '1'])
  output = capsys.readouterr().out
  assert 'No recorded episodes to look at' in output
  with pytest.raises(SystemExit) as error:
    main([*command[:4], '--data', str(tmp_path / 'gone')])
  assert str(error.value).startswith('Error: There is no directory')


def test_script_on_a_dreamer_of_one_head(tmp_path, capsys):
  settings = {'behavior': 'dreamer', 'rssm.ensemble': 1, 'start_states': 0}
  logdir = make_run(tmp_path / 'dreamerv2' / '0', **settings)
  main(['--logdir', str(logdir), '--episodes', '2'])
  output = capsys.readouterr().out
  assert 'No penalty.png: the ensemble has one member' in output
  assert f'by --data, such as {logdir}/episodes' in output
  (tmp_path / 'empty').mkdir()
  with pytest.raises(SystemExit, match='no episode that this agent can use'):
    main(['--logdir', str(logdir), '--data', str(tmp_path / 'empty')])
  assert 'episodes/s' not in capsys.readouterr().out
  assert 'No disagreement.png' in output
  figures = {'q_calibration.png', 'reward.png'}
  assert files(logdir / 'diagnosis') == {'diagnosis.json', *figures}
  text = (logdir / 'diagnosis' / 'diagnosis.json').read_text()
  result = json.loads(text)
  assert result['penalty'] is None
  assert result['critics']['all']['penalty'] == 0
  assert result['critics']['all']['states'] == 2 * 12
