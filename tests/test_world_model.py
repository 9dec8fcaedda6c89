"""The world model: loss terms, imagination and open-loop videos."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import ACT, SPACES, make_batch, tiny_config
from plain import TOLERANCE, assert_near, evaluate

from moto_tf.agents.actor_critic import Actor
from moto_tf.model.world_model import CONTEXT, WorldModel, success_metrics
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import gumbel, make_seed, split, uniform

SEED = tf.constant(make_seed(3))
SHAPES = {k: v.shape for k, v in SPACES.items()}


@pytest.fixture(autouse=True)
def graphs():
  """Agents of other tests may have switched tf.function off."""
  tf.config.run_functions_eagerly(False)


def randomize(module, seed=0, scale=0.3):
  """Adds noise to all weights, so that no bias is zero, no gain one."""
  rng = np.random.default_rng(seed)
  for var in module.variables:
    var.assign_add(rng.normal(0, scale, var.shape).astype(np.float32))


def make_model(config, precision='float32'):
  layers = Layers(config.seed, precision)
  model = WorldModel(config, SHAPES, ACT.shape[0], layers)
  randomize(model)
  return model


def make_data(model, config, **kwargs):
  batch = make_batch(config, **kwargs)
  return model.preprocess({k: tf.constant(v) for k, v in batch.items()})


def make_actor(model, config):
  actor = Actor(Layers(1), model.rssm.feat, 2, config.actor)
  randomize(actor, 1)
  return actor


def make_start(model, count=4):
  """Random states [N, ...] from which rollouts start."""
  rng = np.random.default_rng(0)
  size, (stoch, discrete) = model.rssm.deter, model.rssm.shape
  index = rng.integers(0, discrete, (count, stoch))
  return {
    'deter': tf.constant(np.tanh(rng.normal(size=(count, size))), tf.float32),
    'stoch': tf.constant(np.eye(discrete)[index], tf.float32),
  }


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def naive_kl(post, prior):
  """KL per state, summed over the categoricals."""
  post, prior = softmax(post), softmax(prior)
  return (post * (np.log(post) - np.log(prior))).sum((-2, -1))


def test_preprocess():
  config = tiny_config()
  data = make_data(make_model(config), config, firsts=((1, 3),))
  raw = make_batch(config, firsts=((1, 3),))
  assert {v.dtype for v in data.values()} == {tf.float32}
  np.testing.assert_allclose(
    data['image'], raw['image'] / 255.0 - 0.5, atol=1e-6
  )
  np.testing.assert_array_equal(data['is_first'], raw['is_first'] * 1.0)
  np.testing.assert_array_equal(data['reward'], raw['reward'])
  model = make_model(config, 'mixed_float16')
  ends = model.preprocess({'image': tf.constant([0, 255], tf.uint8)})['image']
  assert ends.dtype == tf.float16 and ends.numpy().tolist() == [-0.5, 0.5]
  floats = model.preprocess({'reward': tf.constant([0.1])})
  assert floats['reward'].dtype == tf.float32


def test_loss_matches_naive_sums():
  scales = {'kl': 0.7, 'image': 0.5, 'vector': 2.0, 'reward': 3, 'discount': 4}
  config = tiny_config(
    decoder__mlp_keys='state',
    encoder__mlp_keys='state',
    pred_discount=True,
    **{f'loss_scales__{k}': v for k, v in scales.items()},
  )
  model = make_model(config)
  raw = make_batch(config, firsts=((1, 3),))
  raw['is_terminal'][[0, 1], [5, 2]] = True
  data = model.preprocess({k: tf.constant(v) for k, v in raw.items()})
  loss, post, metrics = model.loss(data, SEED)
  post_seed, member_seed = split(SEED, 2)
  state = model.rssm.observe(
    model.encoder(data), data['action'], data['is_first'], post_seed
  )
  for key in state:
    np.testing.assert_array_equal(post[key], state[key])
  feat = model.rssm.get_feat(state)
  np.testing.assert_array_equal(post['feat'], feat)

  members = model.rssm.draw_members(6, member_seed).numpy()
  every = model.rssm.prior_all(state['deter']).numpy()
  logit, decoded = state['logit'].numpy(), model.decoder(feat)
  reward = model.reward(feat).numpy()[..., 0]
  alive = 1 / (1 + np.exp(-model.discount(feat).numpy()[..., 0]))
  const = 0.5 * np.log(2 * np.pi)
  sums = dict.fromkeys(scales, 0.0)
  for b in range(3):
    for t in range(6):
      image = raw['image'][b, t] / 255.0 - 0.5
      error = (image - decoded['image'].mean()[b, t].numpy()).ravel()
      sums['image'] += 0.5 * (error**2).sum() + const * error.size
      error = raw['state'][b, t] - decoded['state'].mean()[b, t].numpy()
      sums['vector'] += 0.5 * (error**2).sum() + const * 5
      error = raw['reward'][b, t] - reward[b, t]
      sums['reward'] += 0.5 * error**2 + const
      target = 0.99 * (1 - raw['is_terminal'][b, t])
      sums['discount'] -= target * np.log(alive[b, t])
      sums['discount'] -= (1 - target) * np.log(1 - alive[b, t])
      sums['kl'] += naive_kl(logit[b, t], every[members[t], b, t])
  for name, total in sums.items():
    np.testing.assert_allclose(
      metrics[f'{name}_loss'], total / 18, rtol=1e-4, err_msg=name
    )
  expected = sum(scales[k] * v / 18 for k, v in sums.items())
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['kl'], sums['kl'] / 18, rtol=1e-4)
  entropy = lambda x: -(softmax(x) * np.log(softmax(x))).sum((-2, -1)).mean()
  drawn = np.stack([every[m, :, t] for t, m in enumerate(members)])
  np.testing.assert_allclose(metrics['post_ent'], entropy(logit), rtol=1e-4)
  np.testing.assert_allclose(metrics['prior_ent'], entropy(drawn), rtol=1e-4)


def test_a_new_member_enters_at_every_step():
  """Of the drawn members alone, the prior heads get a gradient."""
  config = tiny_config(rssm__ensemble=7, replay__length=4)
  model = make_model(config)
  data = make_data(model, config)
  seen = set()
  for step in range(4):
    seed = tf.constant(make_seed(0, step))
    members = model.rssm.draw_members(4, split(seed, 2)[1]).numpy()
    seen.add(tuple(members))
    with tf.GradientTape() as tape:
      loss, _, _ = model.loss(data, seed)
    grads = tape.gradient(loss, model.rssm.prior.variables)
    for grad in map(tf.convert_to_tensor, grads):
      used = {m for m in range(7) if np.any(grad[m])}
      assert used == set(members.tolist())
  assert len(seen) == 4
  assert all(len({*members}) > 1 for members in seen)


def test_two_images_of_one_kind_are_added():
  config = tiny_config(encoder__cnn_keys='.*', decoder__cnn_keys='.*')
  shapes = {**SHAPES, 'second': (16, 16, 3)}
  model = WorldModel(config, shapes, 2, Layers(0))
  data = make_data(model, config)
  data['second'] = data['image'] + 1
  loss, post, metrics = model.loss(data, SEED)
  decoded = model.decoder(post['feat'])
  expected = sum(
    -tf.reduce_mean(decoded[k].log_prob(data[k])) for k in ('image', 'second')
  )
  np.testing.assert_allclose(metrics['image_loss'], expected, rtol=1e-5)
  total = sum(metrics[f'{k}_loss'] for k in ('image', 'reward', 'kl'))
  np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_training_lowers_the_loss_and_cuts_gradients():
  config = tiny_config(model_opt__lr=3e-3)
  model = make_model(config)
  data = make_data(model, config, firsts=((1, 3),))
  train = tf.function(model.train)
  losses = []
  before = [v.numpy() for v in model.variables]
  for step in range(12):
    post, metrics = train(data, tf.constant(make_seed(0, step)))
    losses.append(float(metrics['model_loss']))
  assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 1
  # In 12 steps of 6 draws, all three members have been drawn.
  for old, new in zip(before, model.variables, strict=True):
    assert np.any(old != new.numpy())
  with tf.GradientTape() as tape:
    post, _ = model.train(data, SEED)
    loss = tf.add_n([tf.reduce_sum(v) for v in post.values()])
  assert tape.gradient(loss, model.variables) == [None] * len(before)


def test_discount_is_gamma_without_a_head():
  config = tiny_config(discount=0.9)
  model = make_model(config)
  assert not any('discount' in k for k in model.named_variables())
  feat = tf.zeros([4, 3, model.rssm.feat])
  result = model.predict_discount(feat)
  np.testing.assert_allclose(result, np.full([4, 3], 0.9), rtol=1e-6)


def test_discount_head_predicts_a_probability():
  config = tiny_config(pred_discount=True)
  model = make_model(config)
  feat = tf.random.stateless_normal([4, 3, model.rssm.feat], [0, 1])
  logit = model.discount(feat)[..., 0].numpy()
  np.testing.assert_allclose(
    model.predict_discount(feat), 1 / (1 + np.exp(-logit)), rtol=1e-5
  )


def test_imagination_matches_a_manual_loop():
  config = tiny_config(rssm__ensemble=5)
  model = make_model(config)
  actor, start = make_actor(model, config), make_start(model)
  horizon = 6
  seq = model.imagine(actor, start, horizon, SEED)
  rssm = model.rssm
  assert {k: tuple(v.shape) for k, v in seq.items()} == {
    'feat': (horizon + 1, 4, rssm.feat),
    'deter': (horizon + 1, 4, rssm.deter),
    'stoch': (horizon + 1, 4, *rssm.shape),
    'action': (horizon + 1, 4, 2),
    'policy': (horizon + 1, 4, 4),
  }
  member_seed, stoch_seed, action_seed = split(SEED, 3)
  members = rssm.draw_members(horizon, member_seed)
  assert len({*members.numpy()}) > 1
  noise = gumbel([horizon, 4, *rssm.shape], stoch_seed)
  noises = uniform([horizon + 1, 4, 2], action_seed)
  state = start
  for t in range(horizon + 1):
    np.testing.assert_allclose(seq['deter'][t], state['deter'], atol=1e-5)
    np.testing.assert_array_equal(seq['stoch'][t], state['stoch'])
    feat = rssm.get_feat(state)
    np.testing.assert_allclose(seq['feat'][t], feat, atol=1e-5)
    action = actor(feat).sample(noise=noises[t])
    np.testing.assert_allclose(seq['action'][t], action, atol=1e-5)
    if t < horizon:
      action = seq['action'][t]
      state = rssm.img_step(state, action, members[t], noise[t], rssm.weights())
      logit = rssm.prior_all(state['deter'])[members[t]].numpy()
      stoch = np.eye(rssm.shape[1])[(logit + noise[t].numpy()).argmax(-1)]
      np.testing.assert_array_equal(state['stoch'], stoch)


def test_policy_gradients_flow_through_the_states_only():
  config = tiny_config()
  model = make_model(config)
  actor, start = make_actor(model, config), make_start(model)
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(start)
    seq = model.imagine(actor, start, 3, SEED)
    action = tf.reduce_sum(seq['action'][0])
    feats = [tf.reduce_sum(seq['feat'][t] ** 2) for t in range(4)]
  # The policy does not see the gradient of its input.
  assert tape.gradient(action, start['deter']) is None
  assert tape.gradient(feats[1], start['deter']) is not None
  # An action moves the state that follows it, not its own.
  assert not np.any(tape.gradient(feats[0], actor.variables[0]))
  for feat in feats[1:]:
    for grad in tape.gradient(feat, actor.variables):
      assert np.any(grad)


@pytest.mark.parametrize('precision', ['float32', 'mixed_float16'])
def test_rollouts_keep_the_policy_of_their_states(precision):
  """With its gradient, so that losses need not run the actor again."""
  config = tiny_config()
  model = make_model(config, precision)
  actor = Actor(Layers(1, precision), model.rssm.feat, 2, config.actor)
  randomize(actor, 1)
  start = {k: tf.cast(v, model._dtype) for k, v in make_start(model).items()}

  def kept():
    policy = model.imagine(actor, start, 3, SEED)['policy']
    assert policy.dtype == tf.float32
    return actor.dist(policy).entropy(), actor.dist(policy).mode()

  def again():
    feat = model.imagine(actor, start, 3, SEED)['feat']
    dist = actor(tf.stop_gradient(feat))
    return dist.entropy(), dist.mode()

  results, expected = (evaluate(f, [], actor.variables) for f in (kept, again))
  assert expected[0].shape == (4, 4)
  assert_near(results, expected, TOLERANCE[model._dtype.name])


def test_imagination_repeats_by_seed():
  config = tiny_config()
  model = make_model(config)
  actor, start = make_actor(model, config), make_start(model)
  imagine = tf.function(lambda s: model.imagine(actor, start, 4, s)['feat'])
  one, two = imagine(SEED), imagine(SEED)
  np.testing.assert_array_equal(one, two)
  other = imagine(tf.constant(make_seed(4)))
  assert np.abs(one - other).max() > 0.01
  np.testing.assert_array_equal(one[0], other[0])


def make_video():
  config = tiny_config(replay__length=9, replay__batch=8)
  model = make_model(config)
  return model, make_data(model, config)


def test_video_shows_truth_model_and_error():
  model, data = make_video()
  videos = {k: v.numpy() for k, v in model.video(data, SEED).items()}
  assert list(videos) == ['image']
  video = videos['image']
  # Rows: truth, model, error. Four sequences side by side.
  assert video.shape == (9, 3 * 16, 4 * 16, 3)
  assert video.min() >= 0 and video.max() <= 1
  rows = video.reshape([9, 3, 16, 4, 16, 3]).transpose([1, 3, 0, 2, 4, 5])
  truth, model_row, error = rows
  np.testing.assert_allclose(truth, data['image'][:4] + 0.5, atol=1e-6)
  np.testing.assert_allclose(error, (model_row - truth + 1) / 2, atol=1e-6)
  first = {k: v[:4, :CONTEXT] for k, v in data.items()}
  post = model.rssm.observe(
    model.encoder(first),
    first['action'],
    first['is_first'],
    split(SEED, 3)[0],
  )
  mean = model.decoder(model.rssm.get_feat(post))['image'].mean() + 0.5
  np.testing.assert_allclose(
    model_row[:, :CONTEXT], np.clip(mean, 0, 1), atol=1e-5
  )


def test_video_is_open_loop_after_the_context():
  model, data = make_video()
  model_row = lambda x: model.video(x, SEED)['image'].numpy()[:, 16:32]
  before = model_row(data)
  image = data['image'].numpy()
  image[:, CONTEXT:] = 0.5 - image[:, CONTEXT:]
  np.testing.assert_array_equal(before, model_row({**data, 'image': image}))
  image[:, CONTEXT - 1] *= -1
  after = model_row({**data, 'image': tf.constant(image)})
  np.testing.assert_array_equal(before[: CONTEXT - 1], after[: CONTEXT - 1])
  assert np.abs(before - after)[CONTEXT - 1 :].max() > 1e-3
  action = data['action'].numpy()
  action[:, 6] = -action[:, 6]
  after = model_row({**data, 'action': tf.constant(action)})
  np.testing.assert_array_equal(before[:6], after[:6])
  assert np.abs(before - after)[6].max() > 1e-4


def test_success_counts():
  predicted = tf.constant([[0.9, 0.2, 0.6], [0.4, 0.51, 3.0]])
  reward = tf.constant([[1.0, 1.0, 0.0], [0.0, 1.0, 4.0]])
  counts = success_metrics(predicted, reward)
  assert {k: float(v) for k, v in counts.items()} == {
    'reward_tp': 3,
    'reward_fp': 1,
    'reward_fn': 1,
  }


def test_noise_is_on_the_vectors_of_the_encoder_alone():
  config = tiny_config(encoder__mlp_keys='state', decoder__mlp_keys='state')
  model = make_model(config)
  data = make_data(model, config, firsts=((1, 3),))
  noisy = model._noisy(data, 0.5, SEED)
  for key in data.keys() - {'state'}:
    assert noisy[key] is data[key]
  noise = (noisy['state'] - data['state']).numpy().ravel() / 0.5
  assert abs(noise.mean()) < 4 / noise.size**0.5
  assert noise.std() == pytest.approx(1, abs=4 / noise.size**0.5)
  assert len(np.unique(noise.round(5))) > 0.9 * noise.size
  # The state is what the noisy input says, and the targets are clean.
  _, post, metrics = model.loss(data, SEED, 0.5)
  _, expected, _ = model.loss(noisy, SEED)
  np.testing.assert_array_equal(post['feat'], expected['feat'])
  dist = model.decoder(post['feat'])['state']
  like = -np.mean(dist.log_prob(data['state']))
  assert float(metrics['vector_loss']) == pytest.approx(like, rel=1e-5)
  clean = model.loss(data, SEED)[1]['feat']
  np.testing.assert_array_equal(model.loss(data, SEED, 0.0)[1]['feat'], clean)
  assert np.abs(post['feat'] - clean).max() > 1e-3
  # Every key has noise of its own.
  model.encoder.mlp_keys = ['state', 'again']
  both = model._noisy({**data, 'again': data['state']}, 0.5, SEED)
  assert np.abs(both['state'] - both['again']).max() > 0.1


def test_training_takes_the_noise_of_its_settings():
  losses = []
  for noise in (0.0, 0.5):
    keys = dict(encoder__mlp_keys='state', decoder__mlp_keys='state')
    config = tiny_config(encoder__noise=noise, **keys)
    model = make_model(config)
    data = make_data(model, config, firsts=((1, 3),))
    expected = model.loss(data, SEED, noise)[2]['vector_loss']
    # Reports are without.
    clean = float(model.loss(data, SEED)[2]['vector_loss'])
    found = model.train(data, SEED)[1]['vector_loss']
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    losses.append((float(found), clean))
  assert losses[0][0] == losses[0][1] == losses[1][1] != losses[1][0]
