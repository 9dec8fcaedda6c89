"""Trains an agent: offline pre-training, then online fine-tuning.

  python -m moto_tf train --configs metaworld small short
  python -m moto_tf train --help

The same command continues a run that was stopped. --print-config shows all
settings and what set them; --dry-run checks data, spaces, disk, memory and
time, and stops.
"""

import sys

import moto_tf
from moto_tf import cluster
from moto_tf.commands import printing
from moto_tf.signals import interruptible

DRY_RUN = '--dry-run'
FLAGS = {
  DRY_RUN: 'Check data, spaces, disk, memory and time of the run, and stop.'
}


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  argv = sys.argv[1:] if argv is None else argv
  config = moto_tf.parse(argv, flags=FLAGS)
  advice = 'The same command continues from the last checkpoint.'
  with interruptible(advice), moto_tf.explain_errors():
    if DRY_RUN in argv:
      from moto_tf.training.preview import preview

      print(preview(config))
      return
    try:
      logdir = moto_tf.train(config)
    except moto_tf.Stopped as stop:
      print('Saved. The same command continues the run.', flush=True)
      sys.exit(128 + stop.number)
    if cluster.find(config).number == 0:
      print(f'Done. Logs, checkpoints and videos are in {logdir}.')


if __name__ == '__main__':
  main()
