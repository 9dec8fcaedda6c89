"""Export runs as small JSON files that can be committed and plotted.

  python -m moto_tf export --indir ~/logdir --outdir results

Every run becomes <outdir>/<task>/<method>/<seed>.json: its settings, commands,
version of the code, all evaluations and some curves. The command plot reads
these files like log directories.
"""

import moto_tf
from moto_tf.commands import make_parser, printing, whole_path
from moto_tf.results import export as results
from moto_tf.signals import interruptible


@printing()
def main(argv: list[str] | None = None) -> None:
  """Run the command line; see the top of this file."""
  parser = make_parser(__doc__)
  add = parser.add_argument
  add(
    '--indir', nargs='+', type=whole_path, required=True, help='where runs lie'
  )
  add('--outdir', type=whole_path, default='results', help='where the files go')
  add('--tasks', default='', help='regular expression over the tasks')
  add('--methods', default='', help='regular expression over the methods')
  add(
    '--force',
    action='store_true',
    help='overwrite runs with more steps or other settings',
  )
  args = vars(parser.parse_args(argv))
  with interruptible(), moto_tf.explain_errors():
    for path, content in results.export_all(args.pop('indir'), **args).items():
      value, step = results.success(content)
      value = 'unknown' if value is None else f'{value:.2f}'
      print(f'Wrote {path}: success {value} at gradient step {step}.')


if __name__ == '__main__':
  main()
