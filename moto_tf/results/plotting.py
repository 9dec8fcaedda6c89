"""Figures of learning curves, with their numbers as JSON and as a table."""

import io
import json
from collections.abc import Iterable
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
  PlotError,
  aggregate_all,
  find_runs,
  rank,
)

# Okabe and Ito, "Color Universal Design", without yellow; told apart with any
# colour vision.
COLORS = '#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000'.split()
DASHES = ('-', '--', '-.', ':')
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


def figure(panels: dict, metric: str, xaxis: str = 'env_step') -> Figure:
  """Draw one metric, one panel per task and one line per method.

  Args:
    panels: Summaries as panels[task][method].
    metric: Name of the values.
    xaxis: Name of the counter they are drawn over.
  """
  methods = sorted({m for panel in panels.values() for m in panel}, key=rank)
  others = [method for method in methods if method not in METHODS]
  colors = {method: i for i, method in enumerate((*METHODS, *others))}
  columns = min(len(panels), 5 if len(panels) > 8 else 4)
  columns = 3 if len(panels) in (5, 6) else columns
  rows = -(-len(panels) // columns)
  with matplotlib.rc_context(STYLE):
    fig = new_figure(max(7, 3.4 * columns + 0.6), 2.9 * rows + 1.1)
    axes = fig.subplots(rows, columns, squeeze=False)
    lines = {}
    for ax, (task, panel) in zip(axes.flat, panels.items()):
      for method in filter(panel.get, methods):
        lines[method] = _draw(ax, panel[method], colors[method])
      _decorate(ax, panel, task, metric)
    for ax in axes.flat[len(panels) :]:
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
) -> list[Path]:
  """Write <metric>.png for every metric, results.json and table.md.

  Returns:
    The files that were written.

  Raises:
    PlotError: Nothing to draw.
    FileError: The output directory cannot be written.
  """
  outdir = Path(outdir)
  if smooth < 1:
    raise PlotError(f'--smooth is {smooth}, expected 1 (off) or more.')
  runs = find_runs(indirs, tasks, methods)
  results = aggregate_all(runs, metrics, xaxis, smooth)
  for metric in metrics:
    if metric not in results:
      warn(f'no run has values of {metric} over {xaxis}, not drawn.')
  content = {'xaxis': xaxis, 'smooth': smooth, 'intervals': INTERVALS}
  content['results'] = results
  text = json.dumps(content, indent=1, allow_nan=False) + '\n'
  paths = [files.write_atomic(outdir / 'results.json', text.encode())]
  for metric, panels in results.items():
    path = outdir / f'{metric.replace("/", "_")}.png'
    paths.append(save_figure(figure(panels, metric, xaxis), path))
  text = table(results, xaxis)
  paths.append(files.write_atomic(outdir / 'table.md', text.encode()))
  return paths


def table(results: dict, xaxis: str = 'env_step') -> str:
  """Markdown of results[metric][task][method], a table per metric."""
  parts = [
    'Mean over the seeds, and in brackets its 95% bootstrap interval (minimum '
    'to maximum with two seeds). The final value is the last one that all '
    'seeds have, the best one the highest of each seed, the mean one over '
    f'{LABELS.get(xaxis, xaxis).lower()}; minutes are of wall-clock time.'
  ]
  for metric, panels in results.items():
    form = '.2f' if metric.endswith('/success') else '.4g'
    heads = ('task', 'method', 'seeds', *COLUMNS.values())
    rows = [heads, ['---', '---', *['---:'] * (len(heads) - 2)]]
    for task, panel in panels.items():
      for method, found in panel.items():
        forms = {name: form for name in COLUMNS} | {'minutes': '.0f'}
        cells = [_cell(found[name], forms[name]) for name in COLUMNS]
        rows.append([task, method, str(len(found['seeds'])), *cells])
    lines = [f'| {" | ".join(row)} |' for row in rows]
    parts.append(f'## {LABELS.get(metric, metric)}\n\n' + '\n'.join(lines))
  return '\n\n'.join(parts) + '\n'


def _cell(summary, form):
  """Mean and interval, as far as there are any."""
  if summary is None:
    return '-'
  text = format(summary['mean'], form)
  if summary['low'] is not None:
    text += f' [{summary["low"]:{form}}, {summary["high"]:{form}}]'
  return text


def _draw(ax, result, index):
  """Line, interval and offline result of a method; returns the line."""
  x, low, high = (result[key] for key in ('grid', 'low', 'high'))
  color = COLORS[index % len(COLORS)]
  style = {
    'linestyle': DASHES[index // len(COLORS) % len(DASHES)],
    'marker': 'o' if len(x) == 1 else None,
  }
  (line,) = ax.plot(x, result['mean'], color=color, lw=1.8, **style)
  if low is not None:
    ax.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
  if result['offline'] is not None:
    place = (result['online_start'], result['offline']['mean'])
    ax.plot(*place, 'D', color=color, mec='white', ms=7, zorder=5)
  return line


def _decorate(ax, panel, task, metric):
  """Title, axes and the line between offline and online training."""
  ax.set_title(task.split('_', 1)[-1], fontsize=11)
  if metric.endswith('/success'):
    ax.set_ylim(-0.04, 1.04)
  ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
  ax.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
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
    labels.append(INTERVALS[kind])
  # In inches: about 0.07 per letter, 0.7 for the handle, 0.2 per row.
  most = int(fig.get_figwidth() / (0.07 * max(map(len, labels)) + 0.7))
  rows = -(-len(labels) // max(1, most))
  columns = -(-len(labels) // rows)
  fig.set_figheight(fig.get_figheight() + 0.2 * (rows - 1))
  style = {'frameon': False, 'fontsize': 9.5, 'ncols': columns}
  fig.legend(handles, labels, loc='outside upper center', **style)
