"""Kills a small run where it writes, continues it, and compares the end.

  python -m moto_tf soak --kills 50 --out results/soak.txt

Each run is killed several times by SIGKILL, before a write or in the middle of
one, and started again. At its end, its weights, rows, episodes, videos and
TensorBoard must be those of a run that was not killed, with nothing left over.
Further options are settings of configs.yaml, such as --method dreamerv2.
"""

import datetime
import sys

import moto_tf
from moto_tf import files
from moto_tf.commands import (
  make_parser,
  natural,
  positive,
  printing,
  settings,
  whole_path,
)
from moto_tf.signals import interruptible

SETTINGS = [
  *('--configs', 'gym', 'debug', '--task', 'soak_line', '--logdir', 'soak'),
  *('--encoder.mlp_keys', 'state', '--decoder.mlp_keys', 'state'),
  *('--encoder.cnn_kernels', '4,4', '--decoder.cnn_kernels', '5,8'),
  *('--env.image_size', '16', '--prefill_episodes', '1', '--envs', '1'),
  *('--offline_steps', '2', '--online_steps', '4', '--checkpoint_every', '2'),
  *('--checkpoint_milestones', '3'),
  *('--log_every', '1', '--eval_every', '0', '--report_every', '2'),
  *('--precision', 'float32'),
]


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add('--kills', type=positive, default=50, help='in total (50)')
  add('--moments', type=natural, default=0, help='seed of the moments (0)')
  add('--out', type=whole_path, help='file for a report')
  args, rest = parser.parse_known_args(argv)
  with interruptible(), moto_tf.explain_errors():
    config = settings.parse([*SETTINGS, *rest], parser.prog)
    from moto_tf.training import machine, records, soak

    if args.out:
      files.reserve(args.out, replace=True)
    begin = datetime.datetime.now(datetime.UTC)
    lines = soak.soak(config, args.kills, args.moments)
    facts = machine.describe()
    runs = len({line.partition(',')[0] for line in lines})
    report = [
      f'{len(lines)} kills by SIGKILL of {runs} runs; each ended equal, bit '
      'for bit, to one that was not killed, with nothing left over.',
      '',
      records.command(sys.argv),
      f'commit {records.commit()}, {begin.date()}',
      f'{facts["processor"]}, {facts["cores"]} cores, {facts["versions"]}',
      '',
      *lines,
    ]
    if args.out:
      files.write_atomic(args.out, ('\n'.join(report) + '\n').encode())
  print(report[0])


if __name__ == '__main__':
  main()
