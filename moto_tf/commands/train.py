"""Trains MOTO or DreamerV2: offline pre-training, then online fine-tuning.

  python scripts/train.py --configs metaworld --logdir ~/logdir/drawer/moto/0
  python scripts/train.py --help

The same command continues a run that was stopped.
"""

import sys

import moto_tf


def train(run: 'moto_tf.Run') -> None:
  """Algorithm 1 of the paper. What a stopped run has done is skipped."""
  run.prefill()
  # Offline pre-training (lines 1 to 8).
  for _ in run.offline_steps():
    batch = run.sample()
    run.update(batch)
  # Online fine-tuning (lines 9 to 20).
  for episode in run.online_episodes():
    run.collect_episode(episode)
    for _ in run.updates(episode):
      batch = run.sample()
      run.update(batch)


def main() -> None:
  config = moto_tf.parse(sys.argv[1:])
  try:
    with moto_tf.explain_errors(), moto_tf.Run(config) as run:
      train(run)
      print(f'Done. Logs, checkpoints and videos are in {run.logdir}.')
  except KeyboardInterrupt:
    sys.exit('Stopped. The same command continues from the last checkpoint.')


if __name__ == '__main__':
  main()
