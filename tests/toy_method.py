"""A method without a world model, registered as a user would do it."""

import numpy as np

import moto_tf


def make(config, obs_space, act_space):
  """Linear regression of recorded actions on the state before them."""
  import tensorflow as tf

  from moto_tf.agents.base import Agent, check_mode, lane_noise

  class Linear(Agent):
    def __init__(self):
      super().__init__(config, obs_space, act_space)
      self.input_keys = self.obs_keys = ['state']
      sizes = obs_space['state'].shape[0], act_space.shape[0]
      self.kernel = self.layers.weight('kernel', list(sizes))
      self.units = tf.Variable(tf.ones(sizes[:1]))
      self.functions = {'step': self.compile(self._step, jit=True)}

    def fit(self, records):
      self.units.assign(np.abs(records('state')).mean(0))

    def policy(self, obs, state, lanes, mode='train'):
      check_mode(mode)
      action = obs['state'] / self.units.numpy() @ self.kernel.numpy()
      if mode == 'train':
        action = action + 0.2 * (lane_noise(lanes, action.shape[-1]) - 0.5)
      return np.clip(action, -1, 1), state

    def _train(self, batch, step):
      return self.functions['step'](batch, self._seed(1, step))

    def _step(self, batch, seed):
      keep = 1 - tf.cast(batch['is_first'][:, 1:], tf.float32)[..., None]
      state = batch['state'][:, :-1] / self.units
      state += 1e-3 * tf.random.stateless_normal(state.shape, seed)
      with tf.GradientTape() as tape:
        error = state @ self.kernel - batch['action'][:, 1:]
        loss = tf.reduce_mean(keep * error**2)
      (grad,) = tape.gradient(loss, [self.kernel])
      self.kernel.assign_sub(config.linear.rate * grad)
      return {'linear_loss': loss}

    def report(self, batches, step):
      rewards = [batch['reward'].mean() for batch in batches]
      return {'reward': float(np.mean(rewards))}, {}

    def variables(self):
      return {'kernel': self.kernel, 'units': self.units}

    policy_variables = variables

  return Linear()


moto_tf.register_method(
  'linear',
  make,
  label='Linear regression',
  groups=('linear',),
  settings={'linear.rate': (0.3, 'Step size of gradient descent.')},
  preset={'replay.batch': 8},
)
