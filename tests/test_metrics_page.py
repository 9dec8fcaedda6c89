"""docs/metrics.md explains every metric that a run writes."""

import json
import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import moto_tf
from moto_tf import make_config
from moto_tf.envs.gym import wrap_gym
from moto_tf.training import tensorboard

# What stands for several names on the page.
PLACES = {
  '<name>': r'[^/]+',
  '<loss>': r'(model|image|vector|reward|discount|kl)_loss',
  '<part>': r'(model|actor|critic|value|temperature)',
}
PAGE = Path(__file__).parents[1] / 'docs' / 'metrics.md'


class Still(gymnasium.Env):
  """Four steps with vector, image, and a log_ observation, then an end."""

  observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
  render_mode = 'rgb_array'

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    self._steps = 0
    return np.zeros(2, np.float32), {}

  def step(self, action):
    self._steps += 1
    state = np.full(2, 0.1 * self._steps, np.float32)
    return state, 1.0, self._steps == 8, False, {'success': True}

  def render(self):
    return np.zeros((64, 64, 3), np.uint8)


class Logged:
  """An environment that watches its drawer beside."""

  def __init__(self, env):
    self._env = env
    space = gymnasium.spaces.Box(0, 1, (), np.float32)
    self.obs_space = {**env.obs_space, 'log_drawer': space}
    self.act_space = env.act_space
    self.action_repeat = env.action_repeat

  def reset(self, seed):
    return {**self._env.reset(seed), 'log_drawer': np.float32(0)}

  def step(self, action):
    return {**self._env.step(action), 'log_drawer': np.float32(1)}

  def close(self):
    self._env.close()


def explained():
  """Patterns of the names in the first column of the page's tables."""
  names = re.findall(r'^\| `([^`]+)` \|', PAGE.read_text(), re.MULTILINE)
  assert len(names) == len(set(names))
  fill = lambda match: PLACES.get(match[0], match[0])
  return [re.sub(r'<\w+>', fill, re.escape(name)) for name in names]


def unexplained(names):
  patterns = explained()
  return [x for x in names if not any(re.fullmatch(p, x) for p in patterns)]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Names that a run of each family writes, of every kind of data."""
  names, data = set(), ''
  for method in ('moto', 'dreamerv2'):
    logdir = tmp_path_factory.mktemp(method)
    config = make_config(
      'gym',
      'debug',
      method,
      {
        'logdir': str(logdir),
        'env.time_limit': 8,
        'precision': 'mixed_float16',
        'encoder.mlp_keys': 'state',
        'decoder.mlp_keys': 'state',
        'pred_discount': True,
        'heldout_data': data,
        'prefill_episodes': 2,
        'envs': 1,
        'env_workers': 'none',
      },
    )
    make_env = lambda env=config.env: Logged(wrap_gym(Still(), env))
    with moto_tf.Run(config, make_env=make_env) as run:
      run.prefill()
      for episode in run.online_episodes():
        run.collect_episode(episode)
        for _ in run.updates(episode):
          run.update(run.sample())
    for line in (logdir / 'metrics.jsonl').read_text().splitlines():
      names |= json.loads(line).keys()
    data = str(logdir / 'episodes')
  return names


def test_every_metric_is_explained(written):
  groups = {name.split('/')[0] for name in written if '/' in name}
  assert groups == {
    *('train', 'report', 'heldout', 'eval', 'episode'),
    *('time', 'replay', 'memory'),
  }
  assert {'eval/overestimation', 'report/penalty_negated'} <= written
  assert 'eval/drawer' in written and 'train/model_skipped' in written
  counters = {x for x in written if '/' not in x} - {'phase', 'gradient_step'}
  tags = {f'counters/{x}' for x in counters}
  tags |= {x for x in written if '/' in x}
  tags |= set(tensorboard.BY_ENV_STEP.values())
  assert not unexplained(tags)


def test_what_is_not_explained_is_found():
  names = ['train/new_loss', 'report/new', 'train/kl', 'eval/drawer']
  assert unexplained(names) == names[:2]


def test_layout_names_what_is_written(written):
  """A chart of the Custom Scalars page that stays empty helps nobody."""
  tags = {x for x in written if '/' in x}
  tags |= set(tensorboard.BY_ENV_STEP.values())
  for charts in tensorboard.LAYOUT.values():
    for title, patterns in charts.items():
      for pattern in patterns:
        assert any(re.fullmatch(pattern, tag) for tag in tags), title
