"""Files of runs as training leaves them, with made-up numbers."""

import json

import numpy as np


def write_run(path, rows, task='metaworld_door-open', seed=None, **config):
  """A run directory; the seed is the last part of the path by default."""
  path.mkdir(parents=True)
  seed = int(path.name) if seed is None else seed
  lines = [
    f'{k}: {v}' for k, v in {'task': task, 'seed': seed, **config}.items()
  ]
  (path / 'config.yaml').write_text('\n'.join(lines) + '\n')
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (path / 'metrics.jsonl').write_text(text)
  return path


def row(step, offline=1000, **metrics):
  """Row of a Meta-World run, where 20 updates follow 200 environment steps."""
  online = step > offline
  env_step = 10 * (step - offline) if online else 0
  return {
    'gradient_step': step,
    'env_step': env_step,
    'phase': 'online' if online else 'offline',
    **{key.replace('_', '/', 1): value for key, value in metrics.items()},
  }


def score(rng, step, top):
  share = 0.2 + (top - 0.2) * max(0, step - 1000) / 20000
  return rng.binomial(10, share) / 10


def write_runs(root, tasks, seeds=3):
  """What a small benchmark leaves: methods of different skill on tasks."""
  for method, top in (('moto', 0.95), ('no_bc', 0.6), ('dreamerv2', 0.3)):
    for task in tasks:
      for seed in range(seeds if method != 'dreamerv2' else 2):
        rng = np.random.default_rng((seed, len(task), len(method)))
        rows = []
        for step in range(500, 21001, 500):
          metrics = {'train_loss': float(rng.normal())}
          if step % 1000 == 0:
            metrics['eval_success'] = score(rng, step, top)
            metrics['eval_return'] = 50 * metrics['eval_success']
          rows.append(row(step, **metrics))
        path = root / task / method / str(seed)
        write_run(path, rows, f'metaworld_{task}')


STEPS = (1000, 2000, 3000)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def evaluated(step, episodes=4, **changes):
  """A line of evaluations.jsonl that goes with `row(step)`."""
  rng = np.random.default_rng(step)
  counters = {**row(step), 'agent_step': 0, 'episode': 0, **changes}
  return {
    **counters,
    'seconds': step / 3,
    'first_seed': 1_000_000,
    'success': rng.integers(0, 2, episodes).tolist(),
    'return': rng.uniform(0, 1000, episodes).round(4).tolist(),
    'length': [100] * episodes,
  }


def add_evaluations(path, steps=STEPS, episodes=4):
  """Writes evaluations.jsonl and the same means into metrics.jsonl."""
  rows, metrics = [evaluated(step, episodes) for step in steps], []
  for found in rows:
    means = {f'eval/{k}': np.mean(found[k]) for k in ('success', 'return')}
    metrics.append({**row(found['gradient_step']), **means, 'time': 1.0})
  for name, content in (('metrics', metrics), ('evaluations', rows)):
    text = ''.join(json.dumps(line) + '\n' for line in content)
    (path / f'{name}.jsonl').write_text(text)
  return path
