"""A small suite, and what its runs leave."""

import json

from moto_tf.grid import spec
from moto_tf.training import meta
from moto_tf.training.checkpoint import Checkpoints

TEXT = """
about: Some runs.
presets: [gym, proprio, debug]
tasks: [gym_Pendulum-v1]
methods:
  moto:
  dreamerv2: {settings: {horizon: 4}}
  mine: {presets: [no_bc], settings: {moto.alpha: 1, actor.layers: [8, 8]}}
seeds: [0, 1]
settings: {online_steps: 8, offline_steps: 0}
"""


def write(tmp_path, text=TEXT, name='mine'):
  path = tmp_path / f'{name}.yaml'
  path.write_text(text)
  return path


def grid_of(tmp_path, **options):
  return spec.load(write(tmp_path), tmp_path / 'runs', **options)


def finish(run, step=None, **row):
  """What a run leaves: a checkpoint and a row; by default of its end."""
  config, total = run.config, run.config.online_steps
  step = total if step is None else step
  said = {
    'counters': dict.fromkeys(meta.COUNTERS, 0) | {'gradient_step': step},
    'phase': 'online',
    'episodes': [],
    'spaces': {'action': [1], 'observations': {}},
    'prefill': 0,
    'settings': meta.settings(config),
    'unfinished': False,
  }
  run.logdir.mkdir(parents=True, exist_ok=True)
  config.save(run.logdir / 'config.yaml')
  Checkpoints(run.logdir / 'checkpoints', 3).save(step, {}, said)
  row = {'gradient_step': step, 'env_step': step, 'phase': 'online', **row}
  with (run.logdir / 'metrics.jsonl').open('a') as file:
    file.write(json.dumps(row) + '\n')
