"""An agent of NumPy alone, for tests of what surrounds agents."""

import numpy as np


class Plain:
  """Keeps the mean product of state and action."""

  def __init__(self, config, obs_space, act_space):
    self.obs_space, self.act_space = obs_space, act_space
    self.obs_keys, self.input_keys = list(obs_space), ['state']
    self.remarks, self.seconds, self._seed = [], 0.0, config.seed
    shape = (*obs_space['state'].shape, *act_space.shape)
    self._weights = {'kernel': np.zeros(shape), 'scale': np.ones(shape[:1])}

  def fit(self, records):
    self._weights['scale'] = np.abs(records('state')).mean(0)

  def policy(self, obs, state, lanes, mode='train'):
    action = obs['state'] / self._weights['scale'] @ self._weights['kernel']
    if mode == 'train':
      seeds = zip(*lanes, strict=True)
      rngs = [np.random.default_rng([*map(int, seed)]) for seed in seeds]
      action = action + [rng.normal(size=action.shape[1]) for rng in rngs]
    return np.clip(action, -1, 1).astype(np.float32), state

  def train(self, batch, step):
    noise = np.random.default_rng([self._seed, step]).normal(scale=1e-3)
    state, action = (batch[k].reshape(-1, batch[k].shape[-1]) for k in KEYS)
    error = state.T @ action / len(state) + noise - self._weights['kernel']
    self._weights['kernel'] = self._weights['kernel'] + 0.1 * error
    return {'plain_loss': float((error**2).mean())}

  def report(self, batches, step):
    images = [k for k in self.obs_keys if self.obs_space[k].dtype == np.uint8]
    return {'length': batches[0]['reward'].shape[1]}, {
      key: batches[0][key][0] for key in images
    }

  def assess(self, episodes):
    return {'assessed': len(episodes)}

  def variables(self):
    return self._weights

  policy_variables = variables

  def save(self):
    return dict(self._weights)

  def load(self, arrays, policy_only=False):
    self._weights = dict(arrays)


KEYS = 'state', 'action'
