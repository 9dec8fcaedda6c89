"""Disagreement, penalty and success over training, from metrics.jsonl."""

from pathlib import Path

import numpy as np

from moto_tf.results import curves

METRICS = (
  'train/imag_disagreement',
  'train/imag_penalty',
  'train/imag_reward_raw',
  'episode/success',
  'eval/success',
)


def training_curves(logdir: Path) -> dict | None:
  """Disagreement, penalty, reward and success over gradient steps.

  Returns:
    `curves` by metric as (x [N], y [N]), `online_start` (the last step of
    pre-training, or None), and `phases` with the mean of the last tenth of
    each phase. None, with a warning, without rows.
  """
  run = curves.load_run(logdir)
  if run is None:
    return None
  offline = [r['gradient_step'] for r in run.rows if r['phase'] == 'offline']
  found = {m: curves.curve(run, m, 'gradient_step') for m in METRICS}
  found = {m: xy for m, xy in found.items() if len(xy[0])}
  start = max(offline, default=None)
  phases = {}
  for metric, (x, y) in found.items():
    before = x <= (-np.inf if start is None else start)
    for name, part in (('offline', y[before]), ('online', y[~before])):
      if len(part):
        last = part[-max(1, len(part) // 10) :]
        phases.setdefault(metric, {})[name] = float(last.mean())
  return {'curves': found, 'online_start': start, 'phases': phases}
