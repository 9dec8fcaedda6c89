"""The paper's studies A.1 and B, and ranking, against their literal forms."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import make_agent, randomize, tiny_config
from study_helpers import make_episode, set_critics

from moto_tf.agents.penalties import PENALTIES
from moto_tf.nn.tfutils import gumbel, split
from moto_tf.studies import StudySkipped, bound, composition, rank
from moto_tf.studies.common import fixed_seed
from moto_tf.studies.context import encode_together
from moto_tf.studies.penalty import imagine
from moto_tf.studies.returns import first_states, first_values, model_rewards

NEAR = {'rtol': 1e-3, 'atol': 1e-4}


@pytest.fixture(scope='module')
def episodes():
  return [make_episode(length, i) for i, length in enumerate((6, 4, 5))]


def test_states_of_many_episodes_at_once(agent, episodes):
  """Each as if alone, whatever is longer beside it."""
  found, rssm = encode_together(agent, episodes), agent.model.rssm
  noise = gumbel([7, 3, *rssm.shape], fixed_seed(6))
  for i, episode in enumerate(episodes):
    state = rssm.initial(1)
    assert len(found[i]['feat']) == len(episode['reward'])
    for t in range(len(episode['reward'])):
      one = {k: tf.constant(v[t : t + 1]) for k, v in episode.items()}
      data = agent.model.preprocess({'image': one['image']})
      embed = agent.model.encoder(data)
      given = one['action'], embed, one['is_first'], noise[t, i : i + 1]
      state = rssm.obs_step(state, *given)
      for key in ('deter', 'stoch'):
        np.testing.assert_allclose(found[i][key][t], state[key][0], **NEAR)


def test_other_members_and_noise_by_number(agent, episodes):
  start = first_states(agent, episodes)
  run = lambda **kwargs: imagine(agent, start, None, 3, **kwargs)[1][-1].numpy()
  np.testing.assert_array_equal(run(), run(number=0))
  assert not np.array_equal(run(), run(number=1))
  assert not np.array_equal(run(), run(mode='eval'))
  assert imagine(agent, start, None, 3, names=())[0] == {}


def test_uncertainty_is_equation_12(agent, episodes, monkeypatch):
  """Start by start and step by step."""
  monkeypatch.setattr(bound, 'CHUNK', 4)
  steps, rssm = 4, agent.model.rssm
  posts = encode_together(agent, episodes)
  found = bound.uncertainty(agent, episodes, posts, steps)
  starts = [
    (e, j)
    for e, episode in enumerate(episodes)
    for j in range(len(episode['reward']))
    if j + steps < len(episode['reward'])
  ]
  assert len(starts) == 3 + 1 + 2
  total = dict.fromkeys(PENALTIES, 0.0)
  for place, (e, j) in enumerate(starts):
    chunk, lane = divmod(place, 4)
    seeds = split(fixed_seed(3, chunk) if chunk else fixed_seed(3), 3)
    size = min(4, len(starts) - 4 * chunk)
    members = rssm.draw_members(steps, seeds[0])
    noise = gumbel([steps, size, *rssm.shape], seeds[1])
    state = {k: posts[e][k][j : j + 1] for k in ('deter', 'stoch')}
    for t in range(steps):
      action = tf.constant(episodes[e]['action'][j + t + 1][None])
      given = members[t], noise[t, lane : lane + 1], rssm.weights()
      state = rssm.img_step(state, action, *given)
      logits = rssm.prior_all(state['deter'])
      for name, statistic in PENALTIES.items():
        total[name] += float(statistic(logits, state['stoch'])[0])
  for name, value in total.items():
    assert found[name] == pytest.approx(value / (steps * len(starts)), rel=1e-3)


@pytest.mark.parametrize('ends', [False, True])
def test_rewards_of_the_policy_in_its_model(agent, episodes, ends):
  config = tiny_config(pred_discount=ends, moto__alpha=3.0)
  agent = make_agent(config)
  randomize(agent)
  start, rssm, steps = first_states(agent, episodes), agent.model.rssm, 5
  rewards, penalties = model_rewards(agent, config, start, steps)
  seeds = split(fixed_seed(3), 3)
  members = rssm.draw_members(steps, seeds[0])
  noise = gumbel([steps, 3, *rssm.shape], seeds[1])
  for lane in range(3):
    state = {k: start[k][lane : lane + 1] for k in ('deter', 'stoch')}
    alive = 1.0
    for t in range(steps):
      action = agent.behavior.actor(rssm.get_feat(state)).mean()
      given = members[t], noise[t, lane : lane + 1], rssm.weights()
      state = rssm.img_step(state, action, *given)
      feat, logits = rssm.get_feat(state), rssm.prior_all(state['deter'])
      u = PENALTIES['prob_distance'](logits, state['stoch'])[0]
      reward = alive * float(agent.model.predict_reward(feat)[0])
      np.testing.assert_allclose(rewards[t, lane], reward, **NEAR)
      expected = alive * 3.0 * float(u)
      np.testing.assert_allclose(penalties[t, lane], expected, **NEAR)
      if ends:
        alive *= min(1.0, float(agent.model.predict_discount(feat)[0]) / 0.99)
  assert not ends or alive < 0.9


@pytest.mark.parametrize('method', ['moto', 'dreamerv2'])
def test_values_of_first_states(monkeypatch, episodes, method):
  """The smaller Q of the mean action, or V."""
  alone = {} if method == 'moto' else {'rssm__ensemble': 1}
  agent = make_agent(tiny_config(method=method, **alone))
  randomize(agent)
  known = set_critics(monkeypatch, agent)
  start = first_states(agent, episodes)
  feat = start['feat'].numpy()
  mean = agent.behavior.actor(start['feat']).mean().numpy()
  expected = known.value(feat, *([mean] if method == 'moto' else []))
  np.testing.assert_allclose(first_values(agent, start), expected, **NEAR)
  only_firsts = [{k: v[:1] for k, v in e.items()} for e in episodes]
  again = first_states(agent, only_firsts)
  np.testing.assert_array_equal(again['stoch'], start['stoch'])


def counting(length, stands, seed=0):
  """A random episode whose reward counts, a thing more at each of `stands`."""
  episode = make_episode(length, seed, success=True)
  index = np.arange(length + 1)[:, None]
  episode['reward'] = (index >= np.array(stands)).sum(1).astype(np.float32)
  return episode


def test_the_rest_of_an_episode_by_its_actions_alone(agent):
  """Seen until two of three things stand."""
  chosen = [counting(8, [1, 3, 6]), counting(6, [1, 2, 5], 1)]
  found_by, most = composition.choose([*chosen, counting(6, [1, 2], 2)])
  assert most == 3 and found_by == chosen
  posts, rssm = encode_together(agent, chosen), agent.model.rssm
  found = composition.replay_actions(agent, chosen, posts, most)
  seeds, steps = split(fixed_seed(3), 3), 5
  members = rssm.draw_members(steps, seeds[0])
  noise = gumbel([steps, 2, *rssm.shape], seeds[1])
  for i, seen in enumerate((3, 2)):
    assert found[i]['seen'] == seen
    np.testing.assert_array_equal(found[i]['real'], chosen[i]['reward'])
    state = {k: posts[i][k][seen : seen + 1] for k in ('deter', 'stoch')}
    for t in range(len(chosen[i]['reward'])):
      feat = posts[i]['feat'][t : t + 1]
      if t > seen:
        k, action = t - seen - 1, tf.constant(chosen[i]['action'][t : t + 1])
        given = members[k], noise[k, i : i + 1], rssm.weights()
        state = rssm.img_step(state, action, *given)
        feat = rssm.get_feat(state)
      expected = float(agent.model.predict_reward(feat)[0])
      np.testing.assert_allclose(found[i]['predicted'][t], expected, **NEAR)
  rewards = np.arange(12.0).reshape(4, 3)
  numbers = composition.summarise(found, rewards, most)
  json.dumps(numbers, allow_nan=False)
  lasts = [x['predicted'][-1] for x in found]
  assert numbers['replayed']['final'] == pytest.approx(np.mean(lasts))
  assert numbers['replayed']['final_real'] == 3
  # Of the fifth step after, only the longer episode has one.
  steps = numbers['replayed']['steps']
  pair = found[0]['predicted'][4], found[1]['predicted'][3]
  assert steps[1] == pytest.approx(np.mean(pair))
  assert steps[5] == pytest.approx(found[0]['predicted'][8]) and len(steps) == 6
  assert numbers['policy']['final'] == 10
  numbers |= {'largest_in_data': 2.0, 'policy_average': 0.0}
  text = composition.describe(numbers)
  assert text.endswith('The largest of the data is 2.')
  numbers['policy_average'] = 0.99
  assert text in composition.describe(numbers)
  assert '(policy_average 0.99)' in composition.describe(numbers)
  composition.draw(numbers, found, rewards)


def test_what_does_not_count_has_no_composition():
  binary = counting(6, [4])
  with pytest.raises(StudySkipped, match='does not count things'):
    composition.choose([binary])
  halves = {**binary, 'reward': 2.5 * binary['reward']}
  with pytest.raises(StudySkipped, match='does not count things'):
    composition.choose([halves])
  with pytest.raises(StudySkipped, match='succeeds; name some'):
    composition.choose([])
  with pytest.raises(StudySkipped, match='no action follows'):
    composition.choose([counting(6, [2, 6, 6])])


def test_the_smallest_scale_bounds_every_gap():
  rng = np.random.default_rng(0)
  rows = [
    {
      'uncertainty': dict(zip(PENALTIES, rng.uniform(0.1, 1, 3), strict=True)),
      'gap': float(rng.normal(2)),
      'model_gap': float(-rng.uniform()),
    }
    for _ in range(9)
  ]
  relations = bound.relate(rows)
  for name in PENALTIES:
    pairs = [(row['uncertainty'][name], row['gap']) for row in rows]
    found = relations['gap'][name]
    holds = lambda c, pairs=pairs: all(c * u >= gap for u, gap in pairs)
    assert holds(found['scale'] * (1 + 1e-9))
    assert not holds(found['scale'] * (1 - 1e-6))
    pearson = scipy.stats.pearsonr(*zip(*pairs, strict=True))
    spearman = scipy.stats.spearmanr(*zip(*pairs, strict=True))
    assert found['pearson'] == pytest.approx(pearson.statistic)
    assert found['spearman'] == pytest.approx(spearman.statistic)
    assert relations['model_gap'][name]['scale'] == 0
  rows[0]['uncertainty'][name] = 0.0
  assert bound.relate(rows)['gap'][name]['scale'] is None


@pytest.mark.parametrize('used', [*PENALTIES, 'other'])
def test_the_figure_of_the_gap_has_the_papers_statistic(used):
  """A row below, unless it is the penalty or the run has none of it."""
  names = ['other'] if used == 'other' else [*PENALTIES]
  rng = np.random.default_rng(1)
  rows = [
    {
      'uncertainty': dict(zip(names, rng.uniform(0.1, 1, 3))),
      **{'gap': float(rng.normal()), 'model_gap': float(rng.normal())},
      **{'gradient_step': step, 'phase': 'offline' if step < 2 else 'online'},
    }
    for step in range(4)
  ]
  numbers = {'used': used, 'checkpoints': rows, 'relations': bound.relate(rows)}
  axes = bound.draw(numbers).axes
  shown = [used] if used in ('other', 'logit_std') else [used, 'logit_std']
  assert len(axes) == 2 * len(shown)
  for ax, (name, gap) in zip(axes, itertools.product(shown, bound.GAPS)):
    assert f'({name})' in ax.get_xlabel()
    x, y = ax.lines[0].get_data()
    assert [*x] == [row['uncertainty'][name] for row in rows]
    assert [*y] == [row[gap] for row in rows]


def test_discounted_sums_over_a_whole_episode(agent, episodes, monkeypatch):
  config = tiny_config(env__time_limit=4)
  rewards = np.arange(12.0).reshape(4, 3)
  penalties = np.full([4, 3], 0.5)
  monkeypatch.setattr(rank, 'model_rewards', lambda *args: (rewards, penalties))
  found = rank.expectations(agent, config, episodes)
  sums = [
    [sum(0.99**t * rewards[t][i] for t in range(4)) for i in range(3)],
    [sum(0.99**t * 0.5 for t in range(4))] * 3,
  ]
  assert found['return'] == pytest.approx(np.mean(sums[0]))
  expected = np.mean(sums[0]) - np.mean(sums[1])
  assert found['penalised'] == pytest.approx(expected)
  start = first_states(agent, episodes)
  assert found['value'] == pytest.approx(first_values(agent, start).mean())
