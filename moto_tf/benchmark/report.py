"""Results of the benchmark as Markdown tables, and two of them compared."""

from collections.abc import Iterator
from pathlib import Path

from moto_tf.benchmark import BenchmarkError
from moto_tf.benchmark.run import FORMAT
from moto_tf.bounded import read_json

TITLES = {
  'peak': 'Product of two 2048 x 2048 float32 matrices',
  'first': 'First gradient step, from the start of the process',
  'step': 'Steady gradient step',
  'policy': 'One action for one observation',
  'replay': 'Replay',
  'replay_large': 'Replay of more episodes than it may hold',
  'simulator': 'Simulator',
}
# End of a figure's name -> how its unit is shown, and what is better.
UNITS = {
  'gflop_per_second': ('GFLOP/s', 'higher'),
  'per_second': ('per s', 'higher'),
  'per_gradient_step': ('per gradient step', 'higher'),
  'share_of_peak': ('share of peak', 'higher'),
  'seconds': ('s', 'lower'),
  'ms': ('ms', 'lower'),
  'mib': ('MiB', 'lower'),
  'gib': ('GiB', 'lower'),
  'gflop': ('GFLOP', 'lower'),
}


def load(path: Path) -> dict:
  """Reads results that an earlier benchmark wrote.

  Raises:
    BenchmarkError: the file cannot be read or holds something else.
  """
  advice = 'Give a file that the command benchmark has written.'
  try:
    result = read_json(path)
  except OSError as error:
    reason = error.strerror or error
    raise BenchmarkError(f'Cannot read {path}: {reason}. {advice}') from None
  except ValueError as error:
    raise BenchmarkError(f'{path}: no valid JSON ({error}). {advice}') from None
  if not isinstance(result, dict) or 'runs' not in result:
    raise BenchmarkError(f'{path} holds no results of a benchmark. {advice}')
  if result.get('format') != FORMAT:
    raise BenchmarkError(
      f'{path} has format {result.get("format")} of another version of '
      f'moto_tf, this one reads format {FORMAT}. Measure again.'
    )
  return result


def check_comparable(old: dict, names: list[str]) -> None:
  """Raises BenchmarkError if none of the names is in an earlier result."""
  if not set(names) & set(old['runs']):
    raise BenchmarkError(
      f'The earlier results are of {", ".join(map(repr, old["runs"]))} and '
      f'not of {" or ".join(map(repr, names))}. Choose with --configs.'
    )


def tables(result: dict) -> str:
  """All figures as Markdown, one column per configuration."""
  machine, runs = result['machine'], result['runs']
  versions = ', '.join(f'{k} {v}' for k, v in machine['versions'].items())
  lines = [
    f'{machine["processor"]}, {machine["cores"]} cores, {machine["system"]}; '
    f'{versions}; {result["date"]}.'
  ]
  for name, run in runs.items():
    facts = {**run['environment'], **run['overrides']}
    text = ', '.join(f'{k} {_show(v)}' for k, v in facts.items())
    lines += ['', f'`{name}`: {text}.'] if facts else []
  if 'gpu' in result:
    return '\n'.join([*lines[:1], *_gpu(result)])
  for part, title in TITLES.items():
    groups = {
      name: run['figures'][part]
      for name, run in runs.items()
      if part in run['figures']
    }
    if groups:
      flat = {name: dict(_top(group)) for name, group in groups.items()}
      keys = dict.fromkeys(key for values in flat.values() for key in values)
      rows = [
        [_label(k), *(_show(v.get(k)) for v in flat.values())] for k in keys
      ]
      lines += ['', f'### {title}']
      lines += ['', *_table(['', *flat], rows)] if rows else []
      for name, group in groups.items():
        lines += _details(name, group)
  return '\n'.join(lines)


def _gpu(result):
  """The GPU and its modes, one row each."""
  gpu = result['gpu']
  facts = {k: v for k, v in gpu.items() if k != 'products'}
  text = ', '.join(f'{k} {_show(v)}' for k, v in facts.items())
  lines = [
    '',
    f'{text}.',
    '',
    *_table(
      ['product of two matrices', 'TFLOP/s'],
      [
        [name.removesuffix('_gflop_per_second'), _show(speed / 1e3)]
        for name, speed in gpu['products'].items()
      ],
    ),
  ]
  head = {
    's per step': ('step', 'median_seconds'),
    'records per s': ('step', 'records_per_second'),
    'TFLOP/s': ('step', 'gflop_per_second'),
    'kernels per step': ('step', 'kernels_per_step'),
    'ms in kernels': ('step', 'sum_of_ops_seconds'),
    'GPU memory, GiB': ('step', 'gpu_peak_memory_gib'),
    'first step after, s': ('first', 'total_seconds'),
    'ms per action': ('policy', 'eval_median_ms'),
  }
  scale = {'TFLOP/s': 1e-3, 'ms in kernels': 1e3}
  rows = []
  for name, run in result['runs'].items():
    values = [
      run['figures'].get(part, {}).get(key) for part, key in head.values()
    ]
    cells = [
      None if v is None else v * scale.get(title, 1)
      for title, v in zip(head, values, strict=True)
    ]
    rows.append([name, *map(_show, cells)])
  return [*lines, '', *_table(['', *head], rows)]


def compare(old: dict, new: dict) -> str:
  """Ratios new / old of the figures that both results have, as Markdown.

  Times and rates are also compared as if both machines multiplied matrices
  equally fast, since the speed of a machine drifts.
  """
  lines = [
    f'Compared with {old["date"]}. Ratios are new / old; "better" says which '
    'direction is. "At equal peak" scales times and rates by the matrix '
    'products of each run.'
  ]
  if old['machine'] != new['machine']:
    lines += ['', 'The machines or versions differ.']
  for name in [name for name in new['runs'] if name in old['runs']]:
    before, now = old['runs'][name], new['runs'][name]
    head = [name, 'old', 'new', 'new / old', 'at equal peak', 'better']
    lines += [
      *_changes(before, now),
      '',
      *_table(head, _ratios(before['figures'], now['figures'])),
    ]
  return '\n'.join(lines)


def numbers(figures: dict, prefix: str = '') -> Iterator[tuple[str, float]]:
  """Yields the numbers of nested figures by dotted name."""
  for key, value in figures.items():
    if isinstance(value, dict):
      yield from numbers(value, f'{prefix}{key}.')
    elif isinstance(value, int | float):
      yield prefix + key, value


def _ratios(old, new):
  """Rows of the comparison."""
  drift = None
  if 'peak' in old and 'peak' in new:
    key = 'gflop_per_second'
    drift = new['peak'][key] / old['peak'][key]
  rows, before = [], dict(numbers(old))
  for key, now in numbers(new):
    unit = _unit(key)
    if not unit or not before.get(key):
      continue
    ratio, equal = now / before[key], None
    if drift and unit in ('seconds', 'ms'):
      equal = ratio * drift
    elif drift and unit.endswith('per_second') and not key.startswith('peak.'):
      equal = ratio / drift
    cells = [_show(x) for x in (before[key], now, ratio, equal)]
    rows.append([_label(key), *cells, UNITS[unit][1]])
  return rows


def _changes(before, now):
  """What else differs between two runs of one name."""
  lines = []
  for group in ('settings', 'environment'):
    a, b = before[group], now[group]
    lines += [
      f'- {key}: {_show(a.get(key))} before, {_show(b.get(key))} now'
      for key in dict.fromkeys([*a, *b])
      if a.get(key) != b.get(key)
    ]
  return ['', *lines] if lines else []


def _top(group):
  """Figures that are not part of a table of their own."""
  own = ('scopes', 'op_types')
  return numbers({k: v for k, v in group.items() if k not in own})


def _details(name, group):
  """Tables of scopes and op types of one configuration, and remarks."""
  lines = []
  for key in ('scopes', 'op_types'):
    if rows := group.get(key):
      head = list(dict.fromkeys(k for row in rows.values() for k in row))
      cells = [
        [what, *(_show(row.get(k)) for k in head)] for what, row in rows.items()
      ]
      lines += ['', *_table([name, *map(_label, head)], cells)]
  for text in group.get('remarks', ()):
    lines += ['', f'`{name}`: {text}']
  return lines


def _table(head, rows):
  line = lambda cells: f'| {" | ".join(cells)} |'
  rule = ['---', *['---:'] * (len(head) - 1)]
  return [line(head), line(rule), *map(line, rows)]


def _unit(key):
  """The end of a figure's name that is its unit, '' for plain numbers."""
  name = key.split('.')[-1]
  return next((u for u in UNITS if name == u or name.endswith(f'_{u}')), '')


def _label(key):
  *groups, name = key.split('.')
  if unit := _unit(name):
    name = f'{name.removesuffix(unit)} {UNITS[unit][0]}'
  return ' '.join(' '.join([*groups, name]).replace('_', ' ').split())


def _show(value):
  if value is None:
    return '-'
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'
  if isinstance(value, list | tuple):
    return ' '.join(map(str, value)) or 'none'
  return f'{value:,}' if type(value) is int else str(value)
