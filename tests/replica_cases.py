"""What tests/test_replicas.py compares, from a process with two CPU devices.

  python tests/replica_cases.py OUT.npz

Devices are split before TensorFlow starts, so not in a process of pytest.
"""

import os
import sys
from unittest import mock

import numpy as np

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import tensorflow as tf  # noqa: E402
from helpers import (  # noqa: E402
  ACT,
  SPACES,
  STILL,
  make_agent,
  make_batch,
  tiny_config,
)

from moto_tf import agents, cluster  # noqa: E402
from moto_tf.agents.dreamer import sg  # noqa: E402
from moto_tf.agents.moto import draw_transitions  # noqa: E402
from moto_tf.nn import replicas  # noqa: E402
from moto_tf.nn.crew import Crew  # noqa: E402
from moto_tf.presets import make_config  # noqa: E402

# Of three episode starts inside windows, one row is cloned, of replica 0 alone.
FIRSTS = (0, 2), (1, 1), (1, 3)
SUCCESS = np.array([1, 0, 0, 0])[:, None]
# Graphs are large by their steps, and so are their tracings.
SHORT = {
  'replay.batch': 4,
  'replay.length': 4,
  r'(en|de)coder\.cnn_keys': '$^',
  r'(en|de)coder\.mlp_keys': 'state',
}
MOTO = {
  **SHORT,
  'pred_discount': True,
  'moto.start_states': 0,
  'horizon': 1,
}
DREAMER = {
  **SHORT,
  'method': 'dreamerv2_paper',
  'horizon': 2,
  # The behavior learns in the model of before its step.
  'model_opt.lr': STILL,
  'model_opt.wd': 0.0,
}
uniform = tf.random.stateless_uniform
BC = {
  'precision': 'float32',
  'replay.batch': 4,
  'model_free.channels': [4, 4],
  'model_free.pad': 0,
}


def middling(shape, seed, *rest, **others):
  """Noise that is the same in every row: the middle of all that is possible."""
  if others:
    return uniform(shape, seed, *rest, **others)  # Of Keras, for new weights.
  low, high, dtype, _ = rest
  if dtype == tf.uint32:
    return tf.fill(shape, tf.constant(2**31, tf.uint32))
  return tf.fill(shape, (low + high) // 2)


def two_devices():
  cpu = tf.config.list_physical_devices('CPU')[0]
  one = tf.config.LogicalDeviceConfiguration()
  tf.config.set_logical_device_configuration(cpu, [one, one])


def configure(case, **others):
  if case is BC:
    return make_config('debug', 'bc', {**BC, **others})
  return tiny_config(**case, **others)


def shared(crew, case, **others):
  config = configure(case, eager=False, replicas=2, **others)
  return agents.make_agent(config, SPACES, ACT, crew)


def slots(agent, group=''):
  """Adam's means, which after one step are a tenth of the clipped gradients."""
  found = agent.save()
  return {k: v for k, v in found.items() if f'{group}_opt/mean/' in k}


def save(found, case, metrics, agent):
  for key, value in metrics.items():
    found[f'{case}/metric/{key}'] = value
  for key, value in slots(agent).items():
    found[f'{case}/slot/{key}'] = value


def whole_batches(found, crew):
  """Two replicas and one, of one batch and of noise that all rows share."""
  with mock.patch('tensorflow.random.stateless_uniform', middling):
    for name, case in (('bc', BC), ('moto', between_halves(found))):
      config = configure(case)
      batch = make_batch(config, firsts=FIRSTS, success=SUCCESS)
      one = make_agent(config)
      save(found, f'{name}/one', one.train(batch, 0), one)
      two = shared(crew, case)
      save(found, f'{name}/two', two.train(batch, 0), two)
      two.train(batch, 1)
      arrays = [agent.save() for agent in two.agents]
      for key in arrays[0]:
        found[f'{name}/first/{key}'] = arrays[0][key]
        found[f'{name}/second/{key}'] = arrays[1][key]


def between_halves(found):
  """MOTO with free nats that hold for one half of the batch, not for all."""
  config = configure(MOTO)
  batch = make_batch(config, firsts=FIRSTS, success=SUCCESS)
  model, kls = make_agent(config).model, []
  for replica in range(2):
    rows = {k: tf.convert_to_tensor(v[replica::2]) for k, v in batch.items()}
    rows = model.preprocess(rows)
    kls.append(model.loss(rows, tf.constant([0, 1]))[2]['kl'].numpy())
  found['free/halves'], mean = np.array(kls), np.mean(kls)
  found['free/nats'] = (min(kls) + mean) / 2
  return {**MOTO, 'kl.free': float(found['free/nats'])}


def folded_seeds(found, crew):
  """Two replicas, and the mean of the gradients of both halves by hand."""
  halves = configure(DREAMER, **{'moto.start_states': 4})
  batch = make_batch(halves, firsts=FIRSTS)
  grads = []
  for replica in range(2):
    agent = make_agent(halves)
    seeds = [replicas.fold(agent._seed(use, 0), replica) for use in (1, 2)]
    rows = {k: tf.convert_to_tensor(v[replica::2]) for k, v in batch.items()}
    grads.append(gradients(agent, agent.model.preprocess(rows), seeds))
  for key in grads[0]:
    mean = (grads[0][key] + grads[1][key]) / 2
    found[f'folded/hand/{key}'] = 0.1 * mean
  two = shared(crew, DREAMER, **{'moto.start_states': 8})
  metrics = two.train(batch, 0)
  for key, value in slots(two).items():
    found[f'folded/two/{key}'] = value
  norms = [v for k, v in metrics.items() if k.endswith('grad_norm')]
  found['folded/norm'] = max(norms)


def gradients(agent, rows, seeds):
  """Of the losses of both steps, before either changes weights, by slot."""
  behavior = agent.behavior
  with tf.GradientTape(persistent=True) as tape:
    loss, post, _ = agent.model.loss(rows, seeds[0])
    post = tf.nest.map_structure(sg, post)
    start, seed = behavior.starts(post, rows, seeds[1])
    seq = behavior.imagine(start, seed)
    target, _ = behavior.target(seq)
    actor, _ = behavior.actor_loss(seq, target)
    seq = {k: sg(v) for k, v in seq.items()}
    critic, _ = behavior.critic_loss(seq, sg(target))
  found = {}
  for name, value, module in (
    ('model_opt/mean/', loss, agent.model),
    ('actor_opt/mean/', actor, behavior.actor),
    ('critic_opt/mean/', critic, behavior.critics),
  ):
    for key, grad in tape.gradient(value, module.named_variables(name)).items():
      found[key] = tf.convert_to_tensor(grad).numpy()
  return found


def overflow(found, crew):
  """A gradient of one replica overflows in float16."""
  two = shared(crew, BC, precision='mixed_float16')
  batch = make_batch(configure(BC))
  batch['action'][1] = 1e18
  before = two.save()
  metrics = two.train(batch, 0)
  found['overflow/skipped'] = metrics['actor_skipped']
  after = [agent.save() for agent in two.agents]
  changed = [k for k, v in before.items() if np.any(v != after[0][k])]
  found['overflow/changed'] = np.array(changed)
  found['overflow/scales'] = np.array(
    [arrays['actor_opt/loss_scale/value'] for arrays in after]
  )


def helpers_of_losses(found, crew):
  """Values of moto_tf/nn/replicas.py in replicas whose values are 1 and 3."""
  post = dict.fromkeys(('feat', 'deter', 'stoch'), tf.zeros([2, 5, 3]))
  data = dict.fromkeys(('is_first', 'reward', 'is_terminal'), tf.zeros([2, 5]))
  data['action'] = tf.zeros([2, 5, 1])

  @tf.function
  def run():
    def one(here):
      value = tf.constant([1.0, 3.0])[here]
      with tf.GradientTape(persistent=True) as tape:
        tape.watch(value)
        above = replicas.at_least(value, 1.5)
        below = replicas.at_least(value, 2.5)
      slope = lambda x: tape.gradient(x, value, None, 'zero')
      return {
        'average': replicas.average(value),
        'total': replicas.total(value),
        'divisor': replicas.divisor(value),
        'empty': replicas.divisor(0 * value),
        'above': above,
        'below': below,
        'broken': replicas.at_least(value * np.nan, 1.5),
        'slopes': slope(above) - slope(below),
        'seed': replicas.fold(tf.constant([5, 7]), replicas.number()),
        'starts': draw_transitions(post, data, 6, tf.constant([0, 1]))['pick'],
      }

    return crew.run(one)

  for key, *values in ((k, a[k], b[k]) for a, b in [run()] for k in a):
    found[f'helpers/{key}'] = np.stack([v.numpy() for v in values])


def main():
  two_devices()
  config, found = tiny_config(replicas=2, replay__batch=4, eager=False), {}
  with Crew(config, cluster.find(config, {})) as crew:
    helpers_of_losses(found, crew)
    whole_batches(found, crew)
    overflow(found, crew)
    folded_seeds(found, crew)
  np.savez(sys.argv[1], **found)


if __name__ == '__main__':
  main()
