"""What is known of an exported policy, as JSON and as a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import moto_tf
from moto_tf import envs
from moto_tf.data import inspect
from moto_tf.deploy import lite
from moto_tf.errors import warn
from moto_tf.results import evaluations
from moto_tf.training import records, rows, rundir

EVALUATIONS = 3  # The last of training that are shown.
FILES = {
  'saved_model': 'TensorFlow',
  'policy.tflite': 'LiteRT, float32',
  'policy-int8.tflite': 'LiteRT, int8 weights',
  'moto_policy.py': 'acts, with NumPy and ai-edge-litert',
}


def make(logdir: Path, config: Any, meta: Mapping, interface: dict) -> dict:
  """All but sizes and the check, which come after the files.

  Args:
    logdir, config: of the run.
    meta: of the checkpoint, of policy.load_agent.
    interface: of formats.describe.

  Returns:
    What JSON can hold.
  """
  suite = envs.suite_of(config.task)
  sessions = records.read_sessions(logdir / 'sessions.json') or [{}]
  step = meta['counters']['gradient_step']
  return {
    'task': config.task,
    'method': config.name,
    'seed': config.seed,
    'checkpoint': meta['checkpoint'],
    'gradient_step': step,
    'trained_with_commit': sessions[-1].get('commit'),
    'exported_with_commit': records.commit(),
    'versions': {
      'moto_tf': moto_tf.__version__,
      'tensorflow': tf.__version__,
      'numpy': np.__version__,
    },
    'precision': config.precision,
    'action': {
      'size': meta['spaces']['action'][0],
      'low': -1.0,
      'high': 1.0,
      'meaning': (suite and suite.action) or 'as the environment defines it',
      'repeat': config.env.action_repeat,
      'chosen_by': config.eval_action,
      **_range(logdir, config, meta),
    },
    'environment': dict(config.env.flat),
    'interface': interface,
    'success': _measured(logdir, config, meta),
  }


def sizes(directory: Path) -> dict[str, int]:
  """Bytes of each format and of the runner."""
  found = {}
  for name in FILES:
    path = directory / name
    parts = [path, *path.rglob('*')] if path.is_dir() else [path]
    found[name] = sum(x.stat().st_size for x in parts if x.is_file())
  return found


def text(card: Mapping) -> str:
  """The card for people, in Markdown."""
  action, env = card['action'], card['environment']
  lines = [
    f'# {card["task"]}, {card["method"]}, seed {card["seed"]}',
    '',
    f'Gradient step {card["gradient_step"]} ({card["checkpoint"]}), trained '
    f'with commit {card["trained_with_commit"] or "unknown"}, exported with '
    f'{card["exported_with_commit"] or "unknown"}.',
    '',
    '## Observations',
    '',
  ]
  for key, part in card['interface']['observations'].items():
    shape = ' x '.join(map(str, part['shape']))
    unit = (
      'RGB, 0 to 255'
      if part['dtype'] == 'uint8'
      else "in the environment's units, standardised inside"
    )
    lines.append(f'- `{key}`: {shape} {part["dtype"]}, {unit}')
  if env['image']:
    hidden = 'hidden' if env['hide_goal'] else 'shown'
    lines.append(
      f'- camera `{env["camera"]}`, goal markers {hidden} where the '
      'environment has them'
    )
  lines += [
    '',
    '## Action',
    '',
    f'{action["size"]} numbers within [-1, 1]: {action["meaning"]}. Each is '
    f'held for {action["repeat"]} environment steps. It is the '
    f"{action['chosen_by']} of the policy's distribution."
    + (
      f' In the demonstrations -1 was {action["data_low"]}, and 1 '
      f'{action["data_high"]}.'
      if 'data_low' in action
      else ''
    ),
    '',
    '## Success',
    '',
    *_success(card['success']),
    '',
    '## Files',
    '',
    '| file | for | bytes |',
    '| --- | --- | ---: |',
    *(f'| {k} | {FILES[k]} | {v:,} |' for k, v in card['bytes'].items()),
    '',
    '## Difference from load_policy',
    '',
    f'On {card["check"]["observations"]}. A jump is a step in which a sampled '
    'latent, nearly a tie, fell otherwise.',
    '',
    '| format | steps | mean | largest | jumps | within bounds |',
    '| --- | ---: | ---: | ---: | ---: | --- |',
  ]
  for name, row in card['check']['formats'].items():
    passed = 'yes' if row['passed'] else '**no**'
    lines.append(
      f'| {name} | {row["steps"]} | {row["mean"]:.1e} | {row["largest"]:.1e} | '
      f'{row["jumps"]} | {passed} |'
    )
  if action['chosen_by'] == 'mean':
    lines += [
      '',
      'LiteRT has no erf; where the mean needs it, an approximation is off by '
      f'{lite.ERF_ERROR:g} at most.',
    ]
  return '\n'.join([*lines, ''])


def _range(logdir, config, meta):
  """What -1 and 1 were in imported demonstrations, where they were scaled."""
  ends = meta.get('action_range')
  if ends is None:  # Of a checkpoint from before these were kept.
    place = rundir.offline_dir(config, logdir)
    ends = inspect.action_range(place)
    if place and not place.is_dir():
      warn(
        f'{place} is gone, the offline_data of the run. If its actions were '
        'scaled when they were imported, the card does not say from what.'
      )
  return {f'data_{name}': end for name, end in ends.items()}


def _success(found):
  """Lines about success, of `make`."""
  rows = [
    f'- gradient step {row["gradient_step"]}, while training: '
    f'{row["success"]:.2f} of {row["episodes"]} episodes'
    for row in found['evaluations_while_training']
  ]
  if final := found['evaluate']:
    rows.append(
      f'- this checkpoint, by the command evaluate: {final["success"]:.2f} '
      f'[{final["success_low"]:.2f}, {final["success_high"]:.2f}] of '
      f'{final["episodes"]} episodes'
    )
  return rows or ['It was not evaluated.']


def _measured(logdir, config, meta):
  """Nothing for a checkpoint from elsewhere, or with other actions."""
  found = {'evaluations_while_training': [], 'evaluate': None}
  action = meta.get('settings', {}).get('eval_action', config.eval_action)
  if Path(meta['checkpoint']).is_absolute() or action != config.eval_action:
    return found
  step = meta['counters']['gradient_step']
  return {
    'evaluations_while_training': _while_training(logdir, step),
    'evaluate': _evaluation(logdir, meta, config),
  }


def _while_training(logdir, step):
  """The last evaluations up to a gradient step."""
  path = logdir / 'evaluations.jsonl'
  found = rows.read(path)[0] if path.exists() else []
  found = [row for row in found if row['gradient_step'] <= step]
  return [
    {
      'gradient_step': row['gradient_step'],
      'episodes': len(row['success']),
      'success': float(np.mean(row['success'])),
    }
    for row in found[-EVALUATIONS:]
    if row.get('success')
  ]


def _evaluation(logdir, meta, config):
  """What the command evaluate found of the checkpoint, None without."""
  names = (config.name, config.method)
  for found in evaluations.of_command(logdir, config.task, names):
    # Before 0.2 they did not name it.
    source = found.get('checkpoint', meta['checkpoint'])
    step = meta['counters']['gradient_step']
    if (source, found['gradient_step']) == (meta['checkpoint'], step):
      ends = {k: float(found[k]) for k in ('success_low', 'success_high')}
      success = float(np.mean([x['success'] for x in found['rollouts']]))
      return {'success': success, **ends, 'episodes': len(found['rollouts'])}
  return None
