"""DreamerV2's behavior against its published equations, written as loops.

Hafner et al. 2020, Eq. 4 to 6: the reward predicted at s[t] is of s[t], the
critic learns the lambda target of s[t], and the policy at s[t] is judged by the
target of s[t+1], the first state its action can change.
"""

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
  STILL,
  changed,
  make_agent,
  make_batch,
  naive_mlp,
  naive_policy,
  naive_stack,
  randomize,
  snapshot,
  tiny_config,
)

from moto_tf.agents import dreamer
from moto_tf.nn.layers import Layers
from moto_tf.presets import load_configs
from moto_tf.rules import ConfigError

GAMMA, LAMBDA = 0.99, 0.95
SEED = tf.constant([3, 5])
PRESET = load_configs().presets['dreamerv2']


def config_of(**overrides):
  return tiny_config(**{**PRESET, **overrides})


def fresh(**overrides):
  """Weights are random throughout and the target critic differs."""
  agent = make_agent(config_of(**overrides))
  randomize(agent)
  return agent


@pytest.fixture(scope='module')
def agent():
  return fresh()


def posterior(agent, batch):
  data = agent.model.preprocess({k: tf.constant(v) for k, v in batch.items()})
  _, post, _ = agent.model.loss(data, SEED)
  return tf.nest.map_structure(tf.stop_gradient, post), data


def rollout(agent, horizon=4, count=3, seed=0):
  """A rollout of random numbers, as Dreamer.imagine returns one."""
  rng = np.random.default_rng(seed)
  shape = (horizon + 1, count)
  seq = {
    'feat': rng.normal(size=(*shape, agent.model.rssm.feat)),
    'reward': rng.normal(size=shape),
    'discount': rng.uniform(0.5, 1, shape),
    'weight': rng.uniform(0.2, 1, shape),
  }
  seq = {k: tf.constant(v, tf.float32) for k, v in seq.items()}
  return {**seq, 'policy': agent.behavior.actor.outputs(seq['feat'])}


def naive_value(agent, which, feat):
  """[...] of the 'online' or 'target' critic."""
  values = naive_stack(agent.save(), f'critics/{which}', feat)[..., 0]
  assert len(values) == 1
  return values[0]


def naive_target(reward, value, discount, lambda_):
  """Eq. 4 of one rollout: V[t] for t < H from r, v and gamma at 0 to H."""
  last = len(value) - 1

  def v(t):
    if t == last:
      return value[last]
    mixed = (1 - lambda_) * value[t + 1] + lambda_ * v(t + 1)
    return reward[t] + discount[t] * mixed

  return np.array([v(t) for t in range(last)])


def naive_targets(agent, seq):
  value = naive_value(agent, 'target', seq['feat'].numpy())
  reward, discount = seq['reward'].numpy(), seq['discount'].numpy()
  return np.stack(
    [
      naive_target(reward[:, n], value[:, n], discount[:, n], LAMBDA)
      for n in range(value.shape[1])
    ],
    1,
  )


# Targets


@pytest.mark.parametrize('horizon', [1, 2, 5, 15])
@pytest.mark.parametrize('lambda_', [0.0, 0.5, 0.95, 1.0])
def test_lambda_return(horizon, lambda_):
  rng = np.random.default_rng(horizon)
  reward, discount = rng.normal(size=(2, horizon, 2))
  value = rng.normal(size=(horizon + 1, 2))
  target = dreamer.lambda_return(
    *(tf.constant(x, tf.float32) for x in (reward, value, discount)), lambda_
  )
  assert target.shape == (horizon, 2)
  for n in range(2):
    true = naive_target(reward[:, n], value[:, n], discount[:, n], lambda_)
    np.testing.assert_allclose(target[:, n], true, rtol=1e-3, atol=1e-4)


def test_lambda_return_by_hand():
  """H = 2, gamma = 0.5, lambda = 0.5, worked out on paper."""
  value = tf.constant([[100.0], [4.0], [16.0]])
  target = dreamer.lambda_return(
    tf.constant([[1.0], [2.0]]), value, tf.fill([2, 1], 0.5), 0.5
  )
  # V(s1) = 2 + .5 * 16 = 10, V(s0) = 1 + .5 * (.5 * 4 + .5 * 10).
  np.testing.assert_allclose(target[:, 0], [4.5, 10])


def test_lambda_return_extremes():
  """lambda = 0 is one step of reward, lambda = 1 is all of them."""
  rng = np.random.default_rng(0)
  reward = rng.normal(size=(4, 1)).astype(np.float32)
  value = rng.normal(size=(5, 1)).astype(np.float32)
  discount = np.full((4, 1), GAMMA, np.float32)
  one = dreamer.lambda_return(reward, value, discount, 0.0)
  np.testing.assert_allclose(one, reward + GAMMA * value[1:], rtol=1e-4)
  every = dreamer.lambda_return(reward, value, discount, 1.0)
  total = sum(GAMMA**t * reward[t] for t in range(4)) + GAMMA**4 * value[4]
  np.testing.assert_allclose(every[0], total, rtol=1e-4)


def test_target(agent):
  """r[t] is of s[t], and the target critic gives the values."""
  seq = rollout(agent)
  target, _ = agent.behavior.target(seq)
  np.testing.assert_allclose(target, naive_targets(agent, seq), rtol=1e-3)


# Rollouts


def test_imagine(agent):
  post, data = posterior(agent, make_batch(config_of()))
  start = dreamer.flatten_states(post, data)
  seq = agent.behavior.imagine(start, SEED)
  np.testing.assert_array_equal(seq['deter'][0], start['deter'])
  assert seq['feat'].shape[:2] == (4, 18)
  reward = naive_mlp(agent.save(), 'model/reward', seq['feat'].numpy())[..., 0]
  np.testing.assert_allclose(seq['reward'], reward, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(seq['discount'], GAMMA)
  for t in range(4):
    np.testing.assert_allclose(seq['weight'][t], GAMMA**t, rtol=1e-5)


def test_imagine_discount():
  """Discounts are predicted, but for the first state, which the data know."""
  agent = fresh(pred_discount=True)
  batch = make_batch(config_of())
  batch['is_terminal'][0, 5] = True
  post, data = posterior(agent, batch)
  start = dreamer.flatten_states(post, data)
  seq = agent.behavior.imagine(start, SEED)
  logit = naive_mlp(agent.save(), 'model/discount', seq['feat'].numpy())[..., 0]
  discount = 1 / (1 + np.exp(-logit))
  discount[0] = GAMMA
  discount[0, 5] = 0
  np.testing.assert_allclose(seq['discount'], discount, rtol=1e-3)
  for n in range(18):
    weight = 1.0
    for t in range(4):
      np.testing.assert_allclose(seq['weight'][t, n], weight, rtol=1e-3)
      weight *= discount[t, n]


def test_all_states_start_rollouts(agent):
  post, data = posterior(agent, make_batch(config_of(), firsts=((0, 3),)))
  data = {**data, 'is_terminal': tf.reshape(tf.range(18.0), [3, 6])}
  every = dreamer.flatten_states(post, data)
  for b in range(3):
    for t in range(6):
      index = 6 * b + t
      assert every['is_terminal'][index] == index
      np.testing.assert_array_equal(every['deter'][index], post['deter'][b, t])
      np.testing.assert_array_equal(every['stoch'][index], post['stoch'][b, t])


# Losses


@pytest.mark.parametrize('ent', [0.0, 0.3])
def test_actor_loss(ent):
  """The policy at s[t] takes the target of s[t+1] and the weight of s[t]."""
  agent = fresh(actor_ent=ent)
  seq = rollout(agent)
  target = tf.constant(naive_targets(agent, seq), tf.float32)
  loss, metrics = agent.behavior.actor_loss(seq, target)
  entropy = naive_policy(agent.save(), seq['feat'].numpy()).entropy().sum(-1)
  terms = [
    seq['weight'][t, n].numpy()
    * (target[t + 1, n].numpy() + ent * entropy[t, n])
    for t in range(3)
    for n in range(3)
  ]
  np.testing.assert_allclose(loss, -np.mean(terms), rtol=1e-3)
  np.testing.assert_allclose(
    metrics['actor_ent'], entropy[:3].mean(), rtol=1e-3
  )


def test_critic_loss(agent):
  """Weighted negative log-likelihood of the targets, unit variance."""
  seq = rollout(agent)
  target = naive_targets(agent, seq)
  loss, _ = agent.behavior.critic_loss(seq, tf.constant(target, tf.float32))
  value = naive_value(agent, 'online', seq['feat'].numpy())
  terms = []
  for t in range(4):
    for n in range(3):
      density = np.exp(-((target[t, n] - value[t, n]) ** 2) / 2)
      density = max(density / np.sqrt(2 * np.pi), 1e-300)
      terms.append(-seq['weight'][t, n].numpy() * np.log(density))
  np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-3)


# Whole gradient steps


class Spy(dreamer.Dreamer):
  """Keeps what the parts of a gradient step are given."""

  def imagine(self, start, seed):
    self.start = start
    return super().imagine(start, seed)

  def actor_loss(self, seq, target):
    self.actor_target = target
    return super().actor_loss(seq, target)

  def critic_loss(self, seq, target):
    self.seq, self.critic_target = seq, target
    return super().critic_loss(seq, target)


def test_train():
  """All posterior states start rollouts; both losses take one target."""
  agent = fresh()
  post, data = posterior(agent, make_batch(config_of(), firsts=((0, 3),)))
  spy = Spy(config_of(), agent.model, 2, Layers(0))
  metrics = spy.train(post, data, SEED)
  deter = post['deter'].numpy().reshape(18, -1)
  np.testing.assert_array_equal(spy.start['deter'], deter)
  np.testing.assert_array_equal(spy.seq['deter'][0], deter)
  np.testing.assert_array_equal(spy.critic_target, spy.actor_target)
  assert spy.critic_target.shape == (3, 18)
  assert all(np.isfinite(x) for x in metrics.values())
  unwanted = ('data', 'bc', 'penalty', 'disagreement')
  assert not [k for k in metrics if any(x in k for x in unwanted)]


@pytest.mark.parametrize(
  'settings, moved',
  [
    ({'critic_opt__lr': STILL, 'critic_opt__wd': 0.0}, {'actor'}),
    ({'actor_opt__lr': STILL, 'actor_opt__wd': 0.0}, {'critics/online'}),
    ({}, {'actor', 'critics/online'}),
  ],
)
def test_train_moves(settings, moved):
  """Each loss moves its own network; neither moves the world model."""
  agent = fresh(slow_target_update=2, **settings)
  post, data = posterior(agent, make_batch(config_of()))
  agent.behavior.train(post, data, SEED)  # The first one copies the target.
  for step in (1, 2):
    before = snapshot(agent)
    agent.behavior.train(post, data, SEED)
    copied = {'critics/target'} if step == 2 else set()
    if 'critics/online' not in moved:
      copied = set()
    assert changed(agent, before) == moved | copied | {'critics/updates'}


def test_gradient_paths(agent):
  """Only later states' rewards and values tell the policy what to do."""
  post, data = posterior(agent, make_batch(config_of()))
  start = dreamer.flatten_states(post, data)
  behavior = agent.behavior
  with tf.GradientTape(persistent=True) as tape:
    seq = behavior.imagine(start, SEED)
    target, _ = behavior.target(seq)
    loss, _ = behavior.actor_loss(seq, target)
    first = tf.reduce_sum(seq['reward'][0])
    later = [tf.reduce_sum(x) for x in (seq['reward'][1], target[-1])]
  variables = behavior.actor.variables
  for grad in tape.gradient(first, variables):
    assert grad is None or np.all(grad.numpy() == 0)
  for value in (*later, loss):
    grads = [g.numpy() for g in tape.gradient(value, variables)]
    assert np.all(np.isfinite(np.concatenate([g.ravel() for g in grads])))
    assert max(np.abs(g).max() for g in grads) > 1e-6


# The preset


def test_preset():
  """The preset changes the algorithm, and no size or step size."""
  configs = load_configs()
  config, default = configs.make('dreamerv2').flat, configs.defaults.flat
  assert {k: v for k, v in config.items() if v != default[k]} == {
    'method': 'dreamerv2',
    'rssm.ensemble': 1,
    'actor.sample_grad': 'dreamerv2',
  }


@pytest.mark.parametrize('name', ['exact', 'dreamerv2'])
def test_sample_grad(name):
  """The setting reaches the policy, in imagination and everywhere else."""
  actor = fresh(actor__sample_grad=name).behavior.actor
  outputs = tf.constant([[0.3, -0.2, 0.5, -1.0]])
  with tf.GradientTape() as tape:
    tape.watch(outputs)
    sample = actor.dist(outputs).sample(noise=tf.constant([[0.4, 0.8]]))
  found = tape.gradient(sample, outputs)[:, :2]
  moved = 1 - tf.tanh(outputs[:, :2]) ** 2  # d loc / d output.
  if name == 'dreamerv2':
    np.testing.assert_allclose(found, moved, 1e-6)
  else:
    assert (found < 0.9 * moved).numpy().all()


def test_preset_architecture():
  """One prior, one critic of the state alone; all else is MOTO's."""
  ours, theirs = fresh().save(), make_agent(tiny_config()).save()
  shapes = lambda arrays: {
    k: v.shape for k, v in arrays.items() if '_opt/' not in k
  }
  ours, theirs = shapes(ours), shapes(theirs)
  assert ours.keys() == theirs.keys()
  feat = 4 * 4 + 16
  assert ours['critics/online/kernel/0'] == (1, feat, 16)
  assert theirs['critics/online/kernel/0'] == (2, feat + 2, 16)
  assert ours['model/rssm/prior/kernel/0'] == (1, 16, 16)
  different = {k for k in ours if ours[k] != theirs[k]}
  assert all(k.startswith(('critics', 'model/rssm/prior')) for k in different)


@pytest.mark.parametrize('count', [7, 0])
def test_paper(count):
  """C.3: MOTO's hyperparameters, so its priors and its batch of states."""
  config = tiny_config(method='dreamerv2_paper', moto__start_states=count)
  agent = make_agent(config)
  behavior = agent.behavior
  assert type(behavior) is dreamer.PaperDreamer
  numbers = np.arange(18, dtype=np.float32).reshape(3, 6)
  post = {'deter': tf.constant(numbers[..., None])}
  post['stoch'] = tf.tile(post['deter'][..., None] + 100, [1, 1, 2, 2])
  data = {'is_terminal': tf.constant(numbers % 2)}
  drawn = []
  for seed in range(20):
    states, after = behavior.starts(post, data, tf.constant([seed, 5]))
    rows = states['deter'].numpy()[:, 0]
    assert len(set(rows)) == len(rows) == (count or 18)
    np.testing.assert_array_equal(states['stoch'][:, 1, 1], rows + 100)
    np.testing.assert_array_equal(states['is_terminal'], rows % 2)
    # What is drawn later does not depend on how many states are.
    assert after.numpy().tolist() != [seed, 5]
    drawn.append(tuple(rows))
  assert len(set(drawn)) == (20 if count else 1)
  assert set(sum(drawn, ())) == set(range(18))
  metrics = agent.train(make_batch(config), 0)
  assert all(np.isfinite(x) for x in metrics.values())


def test_paper_preset():
  """MOTO's settings, DreamerV2's gradient; one critic of the state alone."""
  configs = load_configs()
  config, default = configs.make('dreamerv2_paper').flat, configs.defaults.flat
  different = {k: v for k, v in config.items() if v != default[k]}
  assert different == {
    'method': 'dreamerv2_paper',
    'actor.sample_grad': 'dreamerv2',
  }
  with pytest.raises(ConfigError, match='start_states: 9999 is more than'):
    configs.make('dreamerv2_paper', {'moto.start_states': 9999})
  with pytest.raises(ConfigError, match='horizon'):
    configs.make('dreamerv2_paper', {'horizon': 1})
  agent = make_agent(tiny_config(method='dreamerv2_paper'))
  shapes = {k: v.shape for k, v in agent.save().items()}
  assert shapes['model/rssm/prior/kernel/0'] == (3, 16, 16)
  assert shapes['critics/online/kernel/0'] == (1, 4 * 4 + 16, 16)


@pytest.mark.parametrize('key', ['moto__alpha', 'moto__beta'])
def test_preset_ignores(key):
  """Neither penalty nor cloning has any influence."""
  results = []
  for value in (0.0, 1000.0):
    # Whoever gives it by name is told that it has no effect.
    with pytest.raises(ConfigError, match='has no effect on dreamerv2'):
      config_of(**{key: value})
    config = config_of().replace({key.replace('__', '.'): value})
    agent = make_agent(config)
    agent.train(make_batch(config_of()), 0)
    results.append(agent.save())
  for name, value in results[0].items():
    np.testing.assert_array_equal(value, results[1][name], err_msg=name)
