"""Small recurrent models, and one as a plain loop to compare."""

import numpy as np
import tensorflow as tf
from helpers import tiny_config
from net_helpers import normal

from moto_tf.model.rssm import EnsembleRSSM
from moto_tf.nn.layers import Layers
from moto_tf.nn.tfutils import gumbel, make_seed

BATCH, STEPS, EMBED, ACTION = 3, 6, 7, 2
SEED = make_seed(11)


def make_rssm(ensemble=3, norm='none', precision='float32'):
  """Random weights everywhere, so that no bias or gain is trivial."""
  config = tiny_config(
    rssm__ensemble=ensemble,
    rssm__norm=norm,
    rssm__hidden=9,
    rssm__deter=8,
    rssm__stoch=3,
    rssm__discrete=4,
  )
  rssm = EnsembleRSSM(Layers(0, precision), EMBED, ACTION, config.rssm)
  for i, var in enumerate(rssm.variables):
    var.assign(normal(var.shape, [7, i]) * 0.4 + 0.1)
  return rssm


def make_inputs(firsts=()):
  """Embeddings, actions and is_first of a batch; `firsts` holds (b, t)."""
  is_first = np.zeros([BATCH, STEPS], np.float32)
  is_first[:, 0] = 1
  for b, t in firsts:
    is_first[b, t] = 1
  return (
    normal([BATCH, STEPS, EMBED], 1),
    normal([BATCH, STEPS, ACTION], 2),
    is_first,
  )


def observe(rssm, inputs, seed=SEED):
  state = rssm.observe(*map(tf.constant, inputs), tf.constant(seed))
  return {k: tf.cast(v, tf.float32).numpy() for k, v in state.items()}


def posterior_noise(seed=SEED):
  return gumbel([STEPS, BATCH, 3, 4], seed).numpy()


def layer_norm(x, gain, bias):
  mean = tf.reduce_mean(x, -1, keepdims=True)
  var = tf.math.reduce_variance(x, -1, keepdims=True)
  return (x - mean) / tf.sqrt(var + 1e-3) * gain + bias


class NaiveRSSM:
  """One step at a time on concatenated inputs, as the equations say.

  Of plain operations, so that TensorFlow makes the gradients.
  """

  def __init__(self, rssm, norm):
    self.weights = rssm.named_variables()
    self.norm = norm

  def hidden(self, x, name):
    w = self.weights
    x = tf.matmul(x, w[f'{name}_kernel'])
    if self.norm == 'layer':
      x = x + w[f'{name}_offset']
      return tf.nn.elu(layer_norm(x, w[f'{name}_gain'], w[f'{name}_bias']))
    return tf.nn.elu(x + w[f'{name}_bias'])

  def recurrent(self, stoch, deter, action):
    w, size = self.weights, deter.shape[-1]
    x = tf.concat([tf.reshape(stoch, [stoch.shape[0], -1]), action], -1)
    x = tf.concat([self.hidden(x, 'inp'), deter], -1)
    x = tf.matmul(x, w['gru_kernel']) + w['gru_offset']
    x = layer_norm(x, w['gru_gain'], w['gru_bias'])
    reset, cand = tf.sigmoid(x[:, :size]), x[:, size : 2 * size]
    update = tf.sigmoid(x[:, 2 * size :] - 1)
    return update * tf.tanh(reset * cand) + (1 - update) * deter

  def posterior(self, deter, embed):
    w = self.weights
    x = self.hidden(tf.concat([deter, embed], -1), 'post')
    x = tf.matmul(x, w['out_kernel']) + w['out_bias']
    return tf.reshape(x, [-1, 3, 4])

  def prior(self, deter, member):
    w = {k: v[member] for k, v in self.weights.items() if 'prior/' in k}
    x = tf.matmul(deter, w['prior/kernel/0'])
    if self.norm == 'layer':
      x = x + w['prior/offset/0']
      x = layer_norm(x, w['prior/gain/0'], w['prior/bias/0'])
    else:
      x = x + w['prior/bias/0']
    x = tf.matmul(tf.nn.elu(x), w['prior/kernel/1']) + w['prior/bias/1']
    return tf.reshape(x, [-1, 3, 4])

  @staticmethod
  def sample(logit, noise):
    """The hard sample with the gradient of the soft one."""
    hard, soft = (
      tf.one_hot(tf.argmax(logit + noise, -1), 4),
      tf.nn.softmax(logit),
    )
    return soft + tf.stop_gradient(hard - soft)

  def observe(self, embed, action, is_first, noise):
    """Posterior states by loops over lanes and time steps."""
    states = {k: [] for k in ('deter', 'stoch', 'logit')}
    for b in range(len(embed)):
      lane = {k: [] for k in states}
      for t in range(embed.shape[1]):
        if is_first[b, t]:
          deter, stoch = tf.zeros([1, 8]), tf.zeros([1, 3, 4])
          act = tf.zeros([1, ACTION])
        else:
          act = action[b, t][None]
        deter = self.recurrent(stoch, deter, act)
        logit = self.posterior(deter, embed[b, t][None])
        stoch = self.sample(logit, noise[t, b])
        for k, v in (('deter', deter), ('stoch', stoch), ('logit', logit)):
          lane[k].append(v[0])
      for k in states:
        states[k].append(tf.stack(lane[k]))
    return {k: tf.stack(v) for k, v in states.items()}


def assert_close(one, other, tolerance=1e-4):
  for key in ('deter', 'stoch', 'logit'):
    np.testing.assert_allclose(
      one[key], other[key], rtol=tolerance, atol=tolerance, err_msg=key
    )
