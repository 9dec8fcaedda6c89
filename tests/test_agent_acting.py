"""The agent: acting in lanes, what it observes, and its reports."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from agent_helpers import make
from helpers import SPACES, make_batch, randomize

from moto_tf.model.world_model import CONTEXT
from moto_tf.nn.tfutils import make_seed, split

pytestmark = pytest.mark.usefixtures('graphs')
tfd = tfp.distributions
VECTOR = {
  'encoder__mlp_keys': 'state',
  'encoder__cnn_keys': '$^',
  'decoder__mlp_keys': 'state',
  'decoder__cnn_keys': '$^',
}
BOTH = {'encoder__mlp_keys': 'state', 'decoder__mlp_keys': 'state'}


def make_obs(count, seed=0, first=False):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (count, 16, 16, 3), np.uint8),
    'state': rng.normal(size=(count, 5)).astype(np.float32),
    'is_first': np.full(count, first),
  }


def take(values, index):
  return {k: v[index] for k, v in values.items()}


def act(agent, lanes, seeds, mode='train', steps=4):
  """Actions [steps, N, A] of some lanes out of four."""
  state, actions = None, []
  for step in range(steps):
    obs = take(make_obs(4, step, step == 0), lanes)
    number = np.full(len(lanes), step)
    action, state = agent.policy(
      obs, state, (np.array(seeds)[lanes], number), mode
    )
    actions.append(action)
  return np.stack(actions)


def test_unknown_mode():
  agent, config = make()
  obs = {'image': np.zeros((1, 16, 16, 3), np.uint8), 'is_first': np.ones(1)}
  with pytest.raises(ValueError, match="'trian'"):
    agent.policy(obs, None, (np.zeros(1), np.zeros(1)), 'trian')


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_a_lane_acts_the_same_in_any_company(mode):
  agent, _ = make(**BOTH)
  randomize(agent)
  seeds = [3, 8, 3, 5]
  every = act(agent, [0, 1, 2, 3], seeds, mode)
  assert every.shape == (4, 4, 2) and every.dtype == np.float32
  assert np.abs(every).max() < 1
  for lanes in ([1], [3, 0], [2, 1, 0]):
    some = act(agent, lanes, seeds, mode)
    np.testing.assert_allclose(some, every[:, lanes], atol=1e-5)
  other = act(agent, [0, 1, 2, 3], [4, 8, 3, 5], mode)
  np.testing.assert_allclose(other[:, 1:], every[:, 1:], atol=1e-5)
  if mode == 'train':
    assert np.abs(other[:, 0] - every[:, 0]).min() > 1e-6


@pytest.mark.parametrize('eval_action', ['mean', 'mode', 'sample'])
def test_eval_mode_takes_what_the_config_says(eval_action):
  agent, _ = make(eval_action=eval_action)
  randomize(agent)
  obs, lanes = make_obs(4, 0, True), (np.arange(4), np.zeros(4, int))
  action, state = agent.policy(obs, None, lanes, 'eval')
  out = agent.behavior.actor.mlp(agent.model.rssm.get_feat(state))
  loc, std = np.tanh(out[:, :2]), 2 / (1 + np.exp(-out[:, 2:] / 2)) + 0.1
  dist = tfd.TruncatedNormal(loc, std, -1.0, 1.0)
  if eval_action == 'sample':
    wanted, _ = agent.policy(obs, None, lanes)
    assert np.abs(action - dist.mean()).min() > 1e-6
  else:
    wanted = {'mean': dist.mean(), 'mode': loc}[eval_action]
  np.testing.assert_allclose(action, wanted, atol=1e-5)


def test_train_mode_explores_and_eval_mode_takes_the_mean():
  agent, _ = make()
  randomize(agent)
  obs, lanes = make_obs(4, 0, True), (np.arange(4), np.zeros(4, int))
  feat = lambda state: agent.model.rssm.get_feat(state)
  action, state = agent.policy(obs, None, lanes, 'eval')
  mean = agent.behavior.actor(feat(state)).mean()
  np.testing.assert_allclose(action, mean, atol=1e-5)
  np.testing.assert_array_equal(state['action'], action)
  again, _ = agent.policy(obs, None, lanes, 'eval')
  np.testing.assert_array_equal(again, action)
  sampled, state = agent.policy(obs, None, lanes)
  assert np.abs(sampled - mean).min() > 1e-6
  # With many lanes, samples follow the distribution of their own state.
  lanes = (np.arange(400), np.zeros(400, int))
  obs = take(obs, [0] * 400)
  sampled, state = agent.policy(obs, None, lanes)
  dist = agent.behavior.actor(feat(state))
  cdf = lambda x: (
    0.5 * (1 + tf.math.erf((x - dist._loc) / dist._scale / 2**0.5))
  )
  place = (cdf(sampled) - cdf(-1.0)) / (cdf(1.0) - cdf(-1.0))
  place = np.sort(place, 0)
  gap = np.abs(place - ((np.arange(400) + 0.5) / 400)[:, None]).max()
  assert gap < 1.95 / 20  # Kolmogorov-Smirnov, 1 in 1000.


def test_is_first_forgets_state_and_action():
  agent, _ = make()
  randomize(agent)
  lanes = (np.array([1, 2]), np.array([0, 0]))
  _, state = agent.policy(make_obs(2, 5, True), None, lanes)
  obs = {**make_obs(2, 6), 'is_first': np.array([True, False])}
  old, after = agent.policy(obs, state, lanes)
  new, fresh = agent.policy(obs, None, lanes)
  np.testing.assert_allclose(old[0], new[0], atol=1e-6)
  np.testing.assert_allclose(after['deter'][0], fresh['deter'][0], atol=1e-6)
  assert np.abs(after['deter'][1] - fresh['deter'][1]).max() > 1e-3


def test_policy_is_one_posterior_step_on_its_own_action():
  """Acting filters as training does: same noise, same state."""
  agent, _ = make(eager=False)
  randomize(agent)
  rssm, state, actions, states = agent.model.rssm, None, [np.zeros([1, 2])], []
  noises = []
  for step in range(3):
    obs = make_obs(1, step, step == 0)
    action, state = agent.policy(obs, state, (np.array([7]), np.array([step])))
    actions.append(action)
    states.append(state)
    rng = np.random.default_rng([7, step])
    uniform = rng.random(16 + 2, np.float32)[:16].reshape([1, 4, 4])
    noises.append(-np.log(-np.log(uniform)))
  manual = rssm.initial(1)
  for step in range(3):
    obs = make_obs(1, step, step == 0)
    image = obs['image'].astype(np.float32) / 255 - 0.5
    manual = rssm.obs_step(
      manual,
      tf.constant(actions[step], tf.float32),
      agent.model.encoder({'image': tf.constant(image)}),
      tf.constant(obs['is_first'], tf.float32),
      tf.constant(noises[step]),
    )
    for key in ('deter', 'stoch', 'logit'):
      np.testing.assert_allclose(states[step][key], manual[key], atol=1e-4)
  assert agent._policy.experimental_get_tracing_count() == 1


@pytest.mark.parametrize('precision', ['mixed_float16', 'mixed_bfloat16'])
def test_policy_in_low_precision(precision):
  agent, _ = make(precision=precision, eager=False)
  actions = act(agent, [0, 1], [3, 8])
  assert actions.dtype == np.float32 and np.isfinite(actions).all()
  assert agent._policy.experimental_get_tracing_count() == 1


@pytest.mark.parametrize('behavior', ['moto', 'dreamer'])
@pytest.mark.parametrize(
  'settings, keys, images',
  [
    (VECTOR, ['state'], False),
    (BOTH, ['image', 'state'], True),
    ({'pred_discount': True}, ['image'], True),
  ],
)
def test_observation_kinds_and_discount_head(behavior, settings, keys, images):
  agent, config = make(behavior, **settings)
  assert agent.input_keys == agent.obs_keys == keys
  batch = make_batch(config, 0, ((1, 2),))
  batch['is_terminal'][0, -1] = True
  unused = {k for k in SPACES if k not in keys}
  batch = {k: v for k, v in batch.items() if k not in unused}
  metrics = agent.train(batch, 0)
  assert all(np.isfinite(v) for v in metrics.values())
  assert ('image_loss' in metrics) == images
  assert ('vector_loss' in metrics) == ('state' in keys)
  assert ('discount_loss' in metrics) == bool(settings.get('pred_discount'))
  obs = {k: v for k, v in make_obs(2, 0, True).items() if k not in unused}
  action, _ = agent.policy(obs, None, (np.arange(2), np.zeros(2, int)))
  assert action.shape == (2, 2)
  metrics, videos = agent.report([batch], 0)
  assert all(np.isfinite(v) for v in metrics.values())
  assert list(videos) == (['image'] if images else [])


def test_report_changes_nothing_and_marks_the_context():
  """In a suite whose rewards mean success, with precision and recall."""
  task = 'metaworld_door-open'
  agent, config = make(replay__length=8, eager=False, task=task)
  before = agent.save()
  batch = make_batch(config)
  metrics, videos = agent.report([batch], 5)
  again, _ = agent.report([batch], 5)
  assert metrics == again
  for key, value in agent.save().items():
    np.testing.assert_array_equal(value, before[key])
  video = videos['image']
  assert video.dtype == np.uint8 and video.shape == (8, 48, 3 * 16, 3)
  green = (video == [0, 200, 0]).all(-1)
  for edge in (green[:, :2], green[:, -2:], green[:, :, :2], green[:, :, -2:]):
    assert edge[:CONTEXT].all()
    assert not edge[CONTEXT:].all((1, 2)).any()
  assert not green[:, 2:-2, 2:-2].all((1, 2)).any()
  truth = batch['image'][0, 0, 2:, 2:]
  shown = video[0, 2:16, 2:16].astype(int)
  assert np.abs(shown - truth).max() <= 1
  assert {'reward_precision', 'reward_recall'} <= metrics.keys()
  other, _ = make(replay__length=8, eager=False, task='kitchen_mixed')
  rest, _ = other.report([batch], 5)
  assert rest == {k: v for k, v in metrics.items() if k in rest}
  assert set(metrics) - set(rest) == {'reward_precision', 'reward_recall'}
  assert metrics['model_loss'] == pytest.approx(
    metrics['image_loss'] + metrics['reward_loss'] + metrics['kl_loss'],
    rel=1e-4,
  )


def test_report_of_several_batches():
  """Losses are averaged; precision and recall are of all their records."""
  agent, config = make(task='metaworld_door-open', eager=False)
  batches = [make_batch(config, i) for i in range(3)]
  batches[1]['reward'][:] = 0
  metrics, _ = agent.report(batches, 4)
  single = [agent.report([b], 4 + i)[0] for i, b in enumerate(batches)]
  loss = np.mean([x['model_loss'] for x in single])
  assert metrics['model_loss'] == pytest.approx(loss, rel=1e-5)
  found = true = hits = 0
  for i, batch in enumerate(batches):
    data = agent.model.preprocess(
      {k: tf.convert_to_tensor(v) for k, v in batch.items()}
    )
    seed = tf.convert_to_tensor(make_seed(config.seed, 3, 4 + i))
    _, post, _ = agent.model.loss(data, split(seed, 2)[0])
    guess = agent.model.predict_reward(post['feat']).numpy() > 0.5
    real = batch['reward'] > 0.5
    found, true = found + guess.sum(), true + real.sum()
    hits += (guess & real).sum()
  assert true and metrics['reward_recall'] == pytest.approx(hits / true)
  assert metrics['reward_precision'] == pytest.approx(hits / max(found, 1))
