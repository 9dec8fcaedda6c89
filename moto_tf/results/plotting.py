"""Figures of learning curves, with their numbers as JSON and as a table."""

import dataclasses
import io
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from moto_tf import files
from moto_tf.agents import METHODS
from moto_tf.errors import warn
from moto_tf.results.curves import (
  INTERVALS,
  LoadedRun,
  PlotError,
  aggregate_all,
  find_runs,
  interval_label,
  rank,
)
from moto_tf.results.mixture import warn_of_mixtures
from moto_tf.results.statistics import unequal_budgets

# Okabe and Ito, "Color Universal Design", without yellow; told apart with any
# colour vision.
COLORS = '#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000'.split()
DASHES = ('-', '--', '-.', ':')
# Without that of the results of offline training.
MARKERS = 'o s ^ v P X * < >'.split()
MARKS = 8  # On a line.
LABELS = {
  'eval/success': 'Success rate (evaluation)',
  'eval/return': 'Return (evaluation)',
  'episode/success': 'Success rate (training)',
  'episode/return': 'Return (training)',
  'env_step': 'Environment steps',
  'agent_step': 'Agent steps',
  'gradient_step': 'Gradient steps',
  'episode': 'Episodes',
  'time': 'Seconds',
}
# Summaries of `aggregate`.
COLUMNS = {
  'offline': 'after offline training',
  'final': 'final',
  'best': 'best',
  'area': 'mean of the curve',
  'minutes': 'minutes',
}


STYLE = {
  'font.size': 10,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.color': '#DDDDDD',
  'grid.linewidth': 0.6,
}


def new_figure(width: float, height: float) -> Figure:
  """An empty figure without pyplot, sizes in inches; draw within STYLE."""
  fig = Figure((width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  return fig


def save_figure(fig: Figure, path: Path) -> Path:
  """Writes a figure as PNG, whole or not at all."""
  stream = io.BytesIO()
  fig.savefig(stream, format='png', dpi=160)
  return files.write_atomic(path, stream.getvalue())


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a figure shows, in this order, whether or not it was run.

  Attributes:
    tasks: a panel each.
    methods: names of runs' methods.
  """

  tasks: Sequence[str]
  methods: Sequence[str]


def look(method: str, methods: Iterable[str]) -> dict:
  """Colour, dashes and marker of a method among others, for `Axes.plot`.

  Those of known methods are always the same; no two of a figure are equal in
  all three, so they can be told apart without colour.
  """
  others = sorted({x for x in methods if x not in METHODS})
  index = [*METHODS, *others].index(method)
  return {
    'color': COLORS[index % len(COLORS)],
    'linestyle': DASHES[index % len(DASHES)],
    'marker': MARKERS[index % len(MARKERS)],
  }


def figure(
  panels: dict,
  metric: str,
  xaxis: str = 'env_step',
  layout: Layout | None = None,
) -> Figure:
  """Draw one metric, one panel per task and one line per method.

  Args:
    panels: Summaries as panels[task][method].
    metric: Name of the values.
    xaxis: Name of the counter they are drawn over.
    layout: Tasks and methods to show; what of them was not run is said to be
      empty. By default those of the panels.
  """
  tasks = list(dict.fromkeys([*(layout.tasks if layout else ()), *panels]))
  wanted = list(layout.methods) if layout else []
  methods = {m for panel in panels.values() for m in panel}
  methods = sorted(methods, key=rank)
  columns = min(len(tasks), 5 if len(tasks) > 8 else 4)
  columns = 3 if len(tasks) in (5, 6) else columns
  rows = -(-len(tasks) // columns)
  with matplotlib.rc_context(STYLE):
    fig = new_figure(max(7, 3.4 * columns + 0.6), 2.9 * rows + 1.1)
    axes = fig.subplots(rows, columns, squeeze=False)
    lines = {}
    for ax, task in zip(axes.flat, tasks):
      panel = panels.get(task, {})
      for method in filter(panel.get, methods):
        style = look(method, {*methods, *wanted})
        lines[method] = _draw(ax, panel[method], style)
      _decorate(ax, panel, task, metric)
      _say_empty(ax, panel, wanted)
    for ax in axes.flat[len(tasks) :]:
      ax.set_axis_off()
    fig.supxlabel(LABELS.get(xaxis, xaxis), fontsize=11)
    fig.supylabel(LABELS.get(metric, metric), fontsize=11)
    _legend(fig, panels, {m: lines[m] for m in methods})
  return fig


def plot(
  indirs: Iterable[Path | str],
  outdir: Path | str,
  metrics: Iterable[str] = ('eval/success', 'eval/return'),
  tasks: str = '',
  methods: str = '',
  xaxis: str = 'env_step',
  smooth: int = 1,
  until: float = math.inf,
  layout: Layout | None = None,
  statistics: bool = False,
) -> list[Path]:
  """Write <metric>.png for every metric, results.json and table.md.

  Args:
    indirs, tasks, methods: as of `find_runs`.
    outdir: where the files go.
    metrics: a figure each.
    xaxis, smooth: as of `aggregate`.
    until: where on that axis longer runs are cut, to compare equal budgets.
    layout: as of `figure`; runs beyond it are left out.
    statistics: also compare the methods over tasks, in <metric>_statistics.png,
      statistics.json and the table; for rates of success.

  Returns:
    The files that were written.

  Raises:
    PlotError: Nothing to draw.
    FileError: The output directory cannot be written.
  """
  outdir = Path(outdir)
  if smooth < 1:
    raise PlotError(f'--smooth is {smooth}, expected 1 (off) or more.')
  if not until >= 0:
    raise PlotError(f'--until is {until}, expected a point on the axis.')
  runs = find_runs(indirs, tasks, methods)
  warn_of_mixtures(runs)
  if layout:
    runs = [
      x for x in runs if x.task in layout.tasks and x.method in layout.methods
    ]
    if not runs:
      raise PlotError(
        f'None of the runs is of {", ".join(layout.tasks)} and of '
        f'{", ".join(layout.methods)}.'
      )
  runs = [_cut(run, xaxis, until) for run in runs]
  results = aggregate_all(runs, metrics, xaxis, smooth)
  for metric in metrics:
    if metric not in results:
      warn(f'no run has values of {metric} over {xaxis}, not drawn.')
  unit = LABELS.get(xaxis, xaxis).lower()
  for remark in unequal_budgets(next(iter(results.values())), unit):
    warn(f'{remark} --until X cuts all there.')
  labels = {k: v.format('2 to 4') for k, v in INTERVALS.items()}
  content = {'xaxis': xaxis, 'smooth': smooth, 'intervals': labels}
  if until < math.inf:
    content['until'] = until
  content['results'] = results
  text = json.dumps(content, indent=1, allow_nan=False) + '\n'
  paths = [files.write_atomic(outdir / 'results.json', text.encode())]
  for metric, panels in results.items():
    path = outdir / f'{metric.replace("/", "_")}.png'
    paths.append(save_figure(figure(panels, metric, xaxis, layout), path))
  text = table(results, xaxis, layout)
  if statistics:
    text += _add_statistics(results, outdir, paths)
  paths.append(files.write_atomic(outdir / 'table.md', text.encode()))
  return paths


def _cut(run: LoadedRun, xaxis: str, until: float) -> LoadedRun:
  """The run as it was at this point, if it went further."""
  late = lambda x: isinstance(x, int | float) and x > until
  rows = [row for row in run.rows if not late(row.get(xaxis))]
  if len(rows) == len(run.rows):
    return run
  times = (row['time'] for row in reversed(rows) if row.get('time') is not None)
  return dataclasses.replace(run, rows=rows, seconds=next(times, None))


def _add_statistics(results, outdir, paths):
  """Writes figures and numbers of comparisons; returns their tables."""
  from moto_tf.results import comparison

  found, text = {}, ''
  for metric, panels in results.items():
    if not metric.endswith('/success'):
      continue  # Returns of several tasks have no common scale.
    found[metric] = comparison.compare(panels)
    path = outdir / f'{metric.replace("/", "_")}_statistics.png'
    paths.append(save_figure(comparison.figure(found[metric]), path))
    text += f'\n## {LABELS.get(metric, metric)} over tasks\n\n'
    text += comparison.table(found[metric])
  if not found:
    raise PlotError(
      'Methods are compared over tasks by success, such as eval/success; '
      f'--metrics has only {", ".join(results)}.'
    )
  paths.append(files.write_json(outdir / 'statistics.json', found))
  return text


def table(
  results: dict, xaxis: str = 'env_step', layout: Layout | None = None
) -> str:
  """Markdown of results[metric][task][method], a table per metric.

  Args:
    results: of `aggregate_all`.
    xaxis: what the curves are over.
    layout: tasks and methods that have a row, also where they were not run.
  """
  parts = [
    'Mean over the seeds, and in brackets the range of all seeds below five of '
    'them, else the 95% t interval. The final value is the last one that all '
    'seeds have, the best one the highest of each seed, the mean one over '
    f'{LABELS.get(xaxis, xaxis).lower()}; minutes are of wall-clock time.'
  ]
  for metric, panels in results.items():
    form = '.2f' if metric.endswith('/success') else '.4g'
    heads = ('task', 'method', 'seeds', *COLUMNS.values())
    rows = [heads, ['---', '---', *['---:'] * (len(heads) - 2)]]
    wanted = {x: layout.methods for x in layout.tasks} if layout else panels
    for task, names in wanted.items():
      panel = panels.get(task, {})
      for method in names:
        found = panel.get(method)
        if found is None:
          rows.append([task, method, '0', 'not run', *['-'] * 4])
          continue
        forms = {name: form for name in COLUMNS} | {'minutes': '.0f'}
        cells = [_cell(found[name], forms[name]) for name in COLUMNS]
        rows.append([task, method, str(len(found['seeds'])), *cells])
    lines = [f'| {" | ".join(row)} |' for row in rows]
    parts.append(f'## {LABELS.get(metric, metric)}\n\n' + '\n'.join(lines))
    parts += _remarks(panels, xaxis)
  return '\n\n'.join(parts) + '\n'


def _remarks(panels, xaxis):
  """Sentences on what of a table is not of equal budgets."""
  found = [x for panel in panels.values() for x in panel.values()]
  cuts = [x['cut'] for x in found if 'cut' in x]
  return cuts + unequal_budgets(panels, LABELS.get(xaxis, xaxis).lower())


def _cell(summary, form):
  """Mean and interval, as far as there are any."""
  if summary is None:
    return '-'
  text = format(summary['mean'], form)
  if summary['low'] is not None:
    text += f' [{summary["low"]:{form}}, {summary["high"]:{form}}]'
  return text


def _draw(ax, result, style):
  """Line, band, seeds and offline result of a method; returns the line."""
  x, low, high = (result[key] for key in ('grid', 'low', 'high'))
  color = style['color']
  marks = {'markevery': max(1, len(x) // MARKS), 'ms': 4.5, 'mew': 0}
  (line,) = ax.plot(x, result['mean'], lw=1.8, **style, **marks)
  if low is not None:
    ax.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
  for seed in result['each'] or ():
    ax.plot(x, seed, color=color, ls=style['linestyle'], lw=0.6, alpha=0.7)
  if result['offline'] is not None:
    place = (result['online_start'], result['offline']['mean'])
    ax.plot(*place, 'D', color=color, mec='white', ms=7, zorder=5)
  return line


def _say_empty(ax, panel, wanted):
  """Names above a panel what of a layout has no runs in it."""
  missing = [x for x in wanted if x not in panel]
  style = {'transform': ax.transAxes, 'ha': 'center', 'color': '#555555'}
  if not panel:
    ax.text(0.5, 0.5, 'not run', va='center', fontsize=11, **style)
    ax.set(xticks=[], yticks=[])
  elif missing:
    text = textwrap.fill(f'not run: {", ".join(missing)}', 60)
    ax.text(0.5, 1.01, text, va='bottom', fontsize=6.5, **style)
    ax.set_title(ax.get_title(), pad=8 + 8 * len(text.splitlines()))


def _decorate(ax, panel, task, metric):
  """Title, axes and the line between offline and online training."""
  ax.set_title(task.split('_', 1)[-1], fontsize=11)
  if metric.endswith('/success'):
    ax.set_ylim(-0.04, 1.04)
  ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
  ax.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
  if not panel:
    return
  starts = {result['online_start'] for result in panel.values()} - {None}
  x = [x for result in panel.values() for x in result['grid']] + list(starts)
  width = max(x) - min(x) or 1
  ax.set_xlim(min(x) - 0.08 * width, max(x) + 0.04 * width)
  mark_online(ax, starts)


def mark_online(ax: Axes, starts: Iterable[float]) -> None:
  """Lines where online training begins."""
  starts = list(starts)
  for start in starts:
    ax.axvline(start, color='#777777', lw=1, ls=(0, (4, 2)), zorder=1)
  if starts:
    style = {'rotation': 90, 'ha': 'right', 'va': 'top', 'fontsize': 7.5}
    # Beside the markers that lie on the line.
    style |= {'xytext': (-4, 0), 'textcoords': 'offset points'}
    style['xycoords'] = ax.get_xaxis_transform()
    ax.annotate('online starts', (min(starts), 0.98), **style)


def _legend(fig, panels, lines):
  """Methods with their seeds, and what the marker and the band mean."""
  results = [(k, v) for panel in panels.values() for k, v in panel.items()]
  handles, labels = list(lines.values()), []
  for method in lines:
    counts = {len(found['seeds']) for name, found in results if name == method}
    count = '-'.join(str(x) for x in sorted({min(counts), max(counts)}))
    name = METHODS[method].label if method in METHODS else method
    labels.append(f'{name} ({count} seed{"s" * (count != "1")})')
  if any(found['offline'] for _, found in results):
    style = {'color': '#777777', 'marker': 'D', 'ls': 'none'}
    handles.append(matplotlib.lines.Line2D([], [], **style))
    labels.append('after offline training')
  for kind in sorted({found['interval'] for _, found in results} - {None}):
    handles.append(matplotlib.patches.Patch(color='#777777', alpha=0.3))
    counts = [len(x['seeds']) for _, x in results if x['interval'] == kind]
    labels.append(interval_label(kind, counts))
  # In inches: about 0.07 per letter, 0.7 for the handle, 0.2 per row.
  most = int(fig.get_figwidth() / (0.07 * max(map(len, labels)) + 0.7))
  rows = -(-len(labels) // max(1, most))
  columns = -(-len(labels) // rows)
  fig.set_figheight(fig.get_figheight() + 0.2 * (rows - 1))
  style = {'frameon': False, 'fontsize': 9.5, 'ncols': columns}
  fig.legend(handles, labels, loc='outside upper center', **style)
