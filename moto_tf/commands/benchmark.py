"""Measures how fast moto_tf is on this machine.

  python -m moto_tf benchmark
  python -m moto_tf benchmark --configs metaworld small --parts peak step
  python -m moto_tf benchmark --out new.json --compare benchmark.json
  python -m moto_tf benchmark --gpu --out gpu.json

Without --configs two sizes are measured, the paper's (metaworld) and the one
for two CPU cores (metaworld small). Any key of configs.yaml may be set too,
such as --jit True; the command train lists them by --help. Everything runs in
fresh processes, one after the other: close other programs first. Progress goes
to stderr, Markdown tables go to stdout.
"""

import argparse
import sys
from pathlib import Path

import moto_tf
from moto_tf import benchmark, files, memory, rules
from moto_tf.benchmark import gpu, report, run
from moto_tf.commands import make_parser, positive, printing, whole_path
from moto_tf.commands.settings import parse
from moto_tf.presets import make_config
from moto_tf.signals import interruptible

DEFAULT = (['metaworld'], ['metaworld', 'small'])


@printing()
def main(argv: list[str] | None = None) -> None:
  """Runs the command line; see the top of this file."""
  parts = '\n'.join(f'  {k:<14}{v}' for k, v in benchmark.PARTS.items())
  parser = make_parser(__doc__, f'parts:\n{parts}')
  add = parser.add_argument
  add('--configs', nargs='+', metavar='NAME', help='presets of one composition')
  add(
    '--parts',
    nargs='+',
    metavar='PART',
    help='what to measure (all but replay_large; with --gpu: '
    f'{", ".join(gpu.PARTS)})',
  )
  add(
    '--repeats',
    type=positive,
    default=10,
    help='timed gradient steps (10)',
  )
  add(
    '--out',
    type=whole_path,
    default=Path('benchmark.json'),
    help='JSON file that is written, replacing an older one (benchmark.json)',
  )
  add(
    '--compare',
    type=whole_path,
    metavar='FILE',
    help='an earlier --out; ratios',
  )
  add(
    '--gpu',
    action='store_true',
    help='measure a GPU in every precision, with and without XLA',
  )
  args, rest = parser.parse_known_args(argv)
  args.parts = args.parts or (
    gpu.PARTS if args.gpu else benchmark.DEFAULT_PARTS
  )
  with interruptible(), moto_tf.explain_errors():
    cases = [
      make_case(names, rest, parser.prog)
      for names in ([args.configs] if args.configs else DEFAULT)
    ]
    if args.gpu:
      cases = [mode for case in cases for mode in gpu.cases(case)]
    measure(args, cases)


def make_case(names: list[str], rest: list[str], prog: str) -> run.Case:
  """The configuration of presets and overrides as train.py would read it.

  Raises:
    BenchmarkError: it is of several replicas.
  """
  made = parse(['--configs', *names, *rest], prog)
  if made.replicas > 1:
    raise benchmark.BenchmarkError(
      f'replicas: {made.replicas} cannot be measured: a benchmark is of one '
      'device. Leave it out; the log of a run has its rate.'
    )
  presets = make_config(*names).flat
  overrides = {k: v for k, v in made.flat.items() if v != presets[k]}
  # YAML files go by their names, since results hold no paths.
  return run.Case(' '.join(Path(n).name for n in names), made, overrides)


def measure(args: argparse.Namespace, cases: list[run.Case]) -> None:
  """Measures, writes the JSON file and prints the tables."""
  for part in args.parts:
    if part not in benchmark.PARTS:
      raise benchmark.BenchmarkError(
        f'There is no part {part!r}; parts are {", ".join(benchmark.PARTS)}.'
      )
  old, out = None, rules.expand(args.out)
  if args.compare:
    earlier = rules.expand(args.compare)
    old = report.load(earlier)
    report.check_comparable(old, [case.name for case in cases])
    if earlier.resolve() == out.resolve():
      raise benchmark.BenchmarkError(
        f'{out} holds the earlier results and would be replaced; name another '
        'file with --out.'
      )
  for case in cases:
    memory.check(case.config)
  files.reserve(out, replace=True)
  # Written after each case, so that an interruption loses only the last.
  for result in run.benchmark(cases, args.parts, args.repeats, args.gpu):
    files.write_json(out, result)
  print(report.tables(result))
  if old:
    print('\n' + report.compare(old, result))
  print(f'Numbers: {out}', file=sys.stderr)


if __name__ == '__main__':
  main()
