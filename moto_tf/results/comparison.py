"""Methods over all tasks: interquartile mean, profiles, improvement."""

from collections.abc import Iterable, Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from moto_tf.agents import METHODS
from moto_tf.results import statistics
from moto_tf.results.curves import PlotError, interval_label, rank
from moto_tf.results.plotting import STYLE, look, new_figure

THRESHOLDS = np.linspace(0, 1, 101)
QUARTERS = 4
PAIRS = 10  # Drawn; the table has all.
AVERAGES = {
  'iqm': statistics.interquartile_mean,
  'mean': lambda values: np.mean(values, -1),
}
NAMES = {'iqm': 'interquartile mean (IQM)', 'mean': 'mean'}


def compare(panels: Mapping) -> dict:
  """Statistics of final success over the tasks that all methods have.

  Args:
    panels: summaries of `curves.aggregate` as panels[task][method].

  Returns:
    As JSON: `tasks`; `average`, which is iqm or mean (see `average_of`); by
    method `methods` with seeds (of each task), average, profile over
    `thresholds`, each with low, high and kind of its band, and `each`, the
    average of each seed that all tasks have, where these are few; by pair of
    methods `improvement`, with the tasks that these two have.

  Raises:
    PlotError: no task has runs of all methods.
  """
  methods = sorted({m for panel in panels.values() for m in panel}, key=rank)
  tasks, scores = statistics.shared_scores(panels, methods)
  if not tasks:
    raise PlotError(
      f'No task has runs of all of {", ".join(methods)}, so there is nothing '
      'to compare over. Choose methods with --methods.'
    )
  name = average_of(scores.values())
  average = AVERAGES[name]
  found = {'tasks': tasks, 'average': name, 'thresholds': THRESHOLDS.tolist()}
  found['methods'] = {}
  for method, values in scores.items():
    every = np.concatenate([[*x.values()] for x in values])
    above = lambda x: statistics.profile(x, THRESHOLDS)
    found['methods'][method] = {
      'seeds': [len(x) for x in values],
      'average': _banded(values, every, average),
      'profile': _banded(values, every, above),
      'each': _each(values, average),
    }
  found['improvement'] = [
    _pair(panels, first, second)
    for i, first in enumerate(methods)
    for second in methods[i + 1 :]
    if any({first, second} <= panel.keys() for panel in panels.values())
  ]
  return found


def average_of(scores: Iterable[list[dict[int, float]]]) -> str:
  """The average of final success that can have a band: `iqm` or `mean`.

  The band of few seeds is the range of the averages of single seeds. One with
  fewer than QUARTERS tasks has no quarters to cut: its interquartile mean would
  be the mean, and that of all runs could lie outside the range.

  Args:
    scores: of each method, those of each task by seed.
  """
  scores = list(scores)
  few = any(len(x) < statistics.FEW for values in scores for x in values)
  return 'mean' if few and len(scores[0]) < QUARTERS else 'iqm'


def _banded(values, every, statistic):
  low, high, kind = statistics.band(values, statistic)
  plain = lambda x: None if x is None else np.asarray(x).tolist()
  value = plain(statistic(every))
  return {'value': value, 'low': plain(low), 'high': plain(high), 'kind': kind}


def _each(values, average):
  if min(map(len, values)) >= statistics.FEW:
    return None
  each = statistics.of_each_seed(values)
  return [float(average(x)) for x in each]


def _pair(panels, first, second):
  tasks, scores = statistics.shared_scores(panels, [first, second])
  pair = [
    [np.array([*x.values()]) for x in scores[name]] for name in (first, second)
  ]
  low, high = statistics.improvement_interval(*pair)
  value = statistics.improvement(*pair)
  return {
    'first': first,
    'second': second,
    'tasks': tasks,
    'value': value,
    'low': low,
    'high': high,
  }


def figure(found: dict) -> Figure:
  """Draws what `compare` returns: three panels, readable without colour.

  Names and markers of the first panel are those of the lines in the second. Of
  more than PAIRS pairs, the third has those of the first method.
  """
  methods, pairs = found['methods'], found['improvement']
  if len(pairs) > PAIRS:
    pairs = [x for x in pairs if x['first'] == next(iter(methods))]
  rows = max(len(methods), len(pairs), 6)
  with matplotlib.rc_context(STYLE):
    fig = new_figure(13, min(1.6 + 0.32 * rows, 12))
    left, middle, right = fig.subplots(1, 3)
    for i, (name, entry) in enumerate(methods.items()):
      style, average = look(name, methods), entry['average']
      if average['low'] is not None:
        ends = [average['low'], average['high']]
        left.plot(ends, [i, i], color=style['color'], lw=5)
      for value in entry['each'] or ():
        left.plot(value, i, '|', color='black', ms=12)
      marker = {'color': style['color'], 'marker': style['marker']}
      left.plot(average['value'], i, mec='black', ms=8, **marker)
      step = {'markevery': (3 * i, 20), 'ms': 5, 'lw': 1.6, **style}
      curve = entry['profile']
      middle.plot(found['thresholds'], curve['value'], **step)
      if curve['low'] is not None:
        ends = curve['low'], curve['high']
        fill = {'color': style['color'], 'alpha': 0.12, 'lw': 0}
        middle.fill_between(found['thresholds'], *ends, **fill)
    left.set_yticks(range(len(methods)), [label(x) for x in methods])
    left.invert_yaxis()
    text = f'{NAMES[found["average"]]} of final success'
    left.set(xlim=(-0.03, 1.03), xlabel=text)
    middle.set(xlabel='success', ylabel='share of runs above')
    names = [f'{label(x["first"])} > {label(x["second"])}' for x in pairs]
    for i, pair in enumerate(pairs):
      if pair['low'] is not None:
        right.plot([pair['low'], pair['high']], [i, i], color='#777777', lw=5)
      right.plot(pair['value'], i, 'o', color='black')
    right.axvline(0.5, color='#777777', lw=1, ls=(0, (4, 2)))
    right.set_yticks(range(len(pairs)), names, fontsize=8)
    right.invert_yaxis()
    right.set(xlim=(-0.03, 1.03), xlabel='probability of improvement')
    kinds = {}
    for entry in methods.values():
      kinds.setdefault(entry['average']['kind'], []).append(_count(entry))
    bands = ', '.join(interval_label(k, n) for k, n in kinds.items() if k)
    tasks = f'{len(found["tasks"])} task{"s" * (len(found["tasks"]) != 1)}'
    title = f'{tasks} that all methods have; bands: {bands or "none, one seed"}'
    fig.suptitle(title, fontsize=10)
  return fig


def _count(entry):
  """Seeds that the band of a method is of."""
  return min(entry['seeds']) if entry['each'] is None else len(entry['each'])


def label(method: str) -> str:
  """A method's name in figures."""
  return METHODS[method].label if method in METHODS else method


def table(found: dict) -> str:
  """Markdown of what `compare` returns."""
  average = found['average']
  lines = [
    f'Over {", ".join(found["tasks"])}, which all methods have: the '
    f'{NAMES[average]} of final success over tasks and seeds.',
    '',
    f'| method | seeds | {average.replace("iqm", "IQM")} | band | of |',
    '| --- | ---: | ---: | ---: | --- |',
  ]
  for name, entry in found['methods'].items():
    average, seeds = entry['average'], entry['seeds']
    ends = '-'
    if average['low'] is not None:
      ends = f'[{average["low"]:.2f}, {average["high"]:.2f}]'
    kind = 'no two seeds of all tasks' if max(seeds) > 1 else 'one seed'
    if average['kind']:
      kind = interval_label(average['kind'], [_count(entry)])
    count = '-'.join(str(x) for x in sorted({min(seeds), max(seeds)}))
    value = f'{average["value"]:.2f}'
    lines.append(f'| {name} | {count} | {value} | {ends} | {kind} |')
  if found['improvement']:
    lines += [
      '',
      'Probability that a run of the first is better than one of the second, '
      'the mean over the tasks that both have.',
      '',
      '| first | second | tasks | probability | 95% bootstrap interval |',
      '| --- | --- | ---: | ---: | ---: |',
    ]
  for x in found['improvement']:
    ends = '-'
    if x['low'] is not None:
      ends = f'[{x["low"]:.2f}, {x["high"]:.2f}]'
    cells = x['first'], x['second'], str(len(x['tasks'])), f'{x["value"]:.2f}'
    lines.append(f'| {" | ".join(cells)} | {ends} |')
  return '\n'.join(lines) + '\n'
