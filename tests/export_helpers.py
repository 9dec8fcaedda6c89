"""A run to export, what exported files compute, and what they see."""

import json

import numpy as np
from helpers import ACT, SPACES, make_agent, randomize, tiny_config

from moto_tf.data.episodes import save_episode
from moto_tf.deploy import formats, runner
from moto_tf.policy import spaces_to_meta
from moto_tf.training import meta
from moto_tf.training.checkpoint import Checkpoints

STEP = 7


def write_run(logdir):
  """Random weights that see images and vectors, with episodes."""
  # Weights of at least 1,024 numbers, since smaller ones are not quantised.
  sizes = {'rssm__hidden': 48, 'rssm__deter': 48, 'rssm__stoch': 8}
  options = {'encoder__mlp_keys': 'state', 'offline_data': '', 'eager': False}
  config = tiny_config(**options, **sizes)
  config.save(logdir / 'config.yaml')
  agent = make_agent(config)
  randomize(agent, scale=0.1)
  write_checkpoint(logdir, config, agent.save(), SPACES)
  rng = np.random.default_rng(0)
  for number, records in enumerate((9, 6)):
    flags = np.zeros(records, bool)
    episode = {
      'image': rng.integers(0, 256, (records, 16, 16, 3), np.uint8),
      'state': rng.normal(size=(records, 5)).astype(np.float32),
      'action': np.zeros((records, 2), np.float32),
      'reward': np.zeros(records, np.float32),
      'is_first': flags | (np.arange(records) == 0),
      'is_last': flags | (np.arange(records) == records - 1),
      'is_terminal': flags,
      'success': flags,
    }
    save_episode(logdir / 'episodes', f'{number:06d}', episode)
  row = {'gradient_step': STEP, 'phase': 'offline', 'success': [1, 0, 0, 0]}
  (logdir / 'evaluations.jsonl').write_text(json.dumps(row) + '\n')


def write_checkpoint(logdir, config, arrays, spaces):
  """A checkpoint that says what those of a run say."""
  counters = dict.fromkeys(meta.COUNTERS, 0)
  said = {
    'counters': {**counters, 'gradient_step': STEP},
    'phase': 'offline',
    'prefill': 0,
    'episodes': [],
    'spaces': spaces_to_meta(spaces, ACT),
    'settings': meta.settings(config),
  }
  Checkpoints(logdir / 'checkpoints', 1).save(STEP, arrays, said)


def load_runs(directory):
  saved = formats.load_saved_model(directory / 'saved_model')
  lites = {
    name: formats.load_litert(directory / file)[0]
    for name, file in runner.FILES.items()
  }
  return {'saved_model': saved, **lites}


def observations(count, seed=0):
  rng = np.random.default_rng(seed)
  for _ in range(count):
    image = rng.integers(0, 256, (16, 16, 3), np.uint8)
    yield {'image': image, 'state': rng.normal(size=5).astype(np.float32)}
