"""Terminal, metrics.jsonl and TensorBoard."""

import collections
import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from moto_tf import images
from moto_tf.errors import warn
from moto_tf.files import write_atomic, writing
from moto_tf.training import rows, when
from moto_tf.training.tensorboard import TensorBoard

# Losses of the terminal line: label and metric.
LOSSES = {
  'model': 'train/model_loss',
  'kl': 'train/kl',
  'actor': 'train/actor_loss',
  'critic': 'train/critic_loss',
}
EPISODES = 10


class Logger:
  """Collects metrics and writes them, one row per call of `write`.

  A row is a terminal line, a JSON line of `metrics.jsonl` and a set of
  TensorBoard summaries. Videos also become files
  `videos/<name>-<gradient step>.gif`. docs/metrics.md explains the metrics.

  Attributes:
    count: rows of `metrics.jsonl`.
  """

  def __init__(
    self,
    logdir: Path | str,
    config_text: str = '',
    hparams: Mapping | None = None,
    resume_step: int | None = None,
    total: int = 0,
    count: int | None = None,
  ):
    """Open the logs of a run.

    Args:
      logdir: Directory of the run, created if missing.
      config_text: Configuration, shown in TensorBoard.
      hparams: Settings that tell this run from others, for TensorBoard's
        HParams page: task, method, seed, and what else differs.
      resume_step: Gradient step of the checkpoint this run continues from.
        Rows beyond it are dropped, since they come again. None is a new run:
        an older metrics.jsonl is moved aside.
      total: Gradient steps of the whole run, for the time left (0: unknown).
      count: Rows when that checkpoint was written, if that is known.

    Raises:
      FileError: The directory cannot be written.
    """
    self._logdir = Path(logdir)
    self._path = self._logdir / 'metrics.jsonl'
    self._total = total
    self._values = collections.defaultdict(list)
    self._videos = {}
    self._texts = {}
    self._rate = when.Rate()
    self._recent = collections.deque(maxlen=EPISODES)
    self._eval = None
    with writing(self._logdir):
      self._logdir.mkdir(parents=True, exist_ok=True)
    kept = rows.rewind(self._path, resume_step, count)
    self.count = len(kept)
    for row in kept:
      self._observe(row)
    self._start = time.time() - (kept and kept[-1].get('time') or 0)
    self._board = TensorBoard(self._logdir, resume_step, kept, hparams)
    if resume_step is None:
      if hparams:
        lines = [f'| {key} | {value} |' for key, value in hparams.items()]
        self.text('about', '\n'.join(['| setting | value |', '|-|-|', *lines]))
      if config_text:
        self.text('config', f'```yaml\n{config_text.strip()}\n```')

  def add(self, metrics: Mapping, prefix: str = '') -> None:
    """Collect scalars, or arrays for their mean, until the next `write`.

    Args:
      metrics: Values by name. Several values of a name are averaged.
      prefix: Group that is put before the names, as in 'train' or 'eval'.

    Raises:
      ValueError: A name has no group, as in 'train/kl_loss'.
    """
    for name, value in metrics.items():
      name = f'{prefix}/{name}' if prefix else name
      if '/' not in name:
        raise ValueError(
          f"Metric '{name}' has no group: name it 'train/{name}' or pass a "
          'prefix.'
        )
      if isinstance(value, np.ndarray):
        value = value.mean() if value.size else math.nan
      self._values[name].append(value)
      if name == 'episode/success':
        self._observe({name: float(value)})

  def video(self, name: str, video: np.ndarray) -> None:
    """Keep a video [T, H, W, C], uint8, for the next `write`."""
    self._videos[name] = (images.encode_gif(video), video.shape)

  def text(self, name: str, text: str) -> None:
    """Keep a Markdown text for the next `write`, for TensorBoard only."""
    self._texts[name] = text

  def collected(self) -> dict[str, float]:
    """Means of the scalars that the next `write` writes."""
    return {
      name: float(np.mean([np.mean(np.asarray(x, float)) for x in several]))
      for name, several in self._values.items()
    }

  def write(self, counters: Mapping) -> dict:
    """Write what was collected as one row and start the next.

    Args:
      counters: gradient_step, env_step, agent_step, episode and phase
        ('offline' or 'online').

    Returns:
      The row, where values that are not finite are None.

    Raises:
      FileError: The disk is full or the directory is gone.
    """
    step = int(counters['gradient_step'])
    self._rate.update(step)
    values = self.collected()
    if self._rate.per_second() is not None:
      values['time/steps_per_second'] = self._rate.per_second()
    row = {
      **{k: v if k == 'phase' else int(v) for k, v in counters.items()},
      'time': self.seconds,
      **{k: v if math.isfinite(v) else None for k, v in values.items()},
    }
    broken = [f'{k} ({values[k]})' for k in values if row[k] is None]
    if broken:
      warn(
        f'not finite at gradient step {step}: {", ".join(broken)}; written as '
        'null.'
      )
    rows.append(self._path, row)
    self.count += 1
    self._write_videos(step)
    rest = row.keys() - values.keys() - {'gradient_step', 'phase'}
    scalars = {f'counters/{k}': row[k] for k in sorted(rest)} | values
    ended = 0 < self._total <= step
    self._board.write(row, scalars, self._videos, self._texts, ended)
    self._values.clear()
    self._videos, self._texts = {}, {}
    self._observe({'eval/success': row.get('eval/success')})
    print(self._line(row), flush=True)
    return row

  @property
  def seconds(self) -> float:
    """Seconds of the run; a continued run counts on from its last row."""
    return round(time.time() - self._start, 3)

  def pause(self) -> contextlib.AbstractContextManager:
    """Context whose time does not count as training, as in evaluation."""
    return self._rate.pause()

  def close(self) -> None:
    """Drop what was not written."""
    self._values.clear()
    self._videos, self._texts = {}, {}

  def _observe(self, row):
    """Remember the successes that the terminal line shows."""
    if row.get('episode/success') is not None:
      self._recent.append(row['episode/success'])
    if row.get('eval/success') is not None:
      self._eval = row['eval/success']

  def _write_videos(self, step):
    for name, (gif, _) in self._videos.items():
      name = f'{name.replace("/", "_")}-{step:08d}.gif'
      path = self._logdir / 'videos' / name
      write_atomic(path, gif)

  def _line(self, row):
    """One aligned line of the terminal."""
    online = row.get('phase') == 'online'
    success = np.mean(self._recent) if online and self._recent else self._eval
    total = str(self._total or '')
    step = f'{row["gradient_step"]:{len(total) or 7}}'
    parts = [f'{row.get("phase", ""):7}']
    parts.append(f'grad {step}/{total}' if total else f'grad {step}')
    parts.append(f'env {row.get("env_step", 0):9,}')
    parts.append(f'ep {row.get("episode", 0):5}')
    parts.append('success ' + _number(success, '4.2f', 4))
    for label, name in LOSSES.items():
      parts.append(f'{label} ' + _number(row.get(name), '.4g', 8))
    parts.append(_number(self._rate.per_second(), '.1f', 6) + ' step/s')
    left = self._rate.left(self._total)
    if left is not None:
      parts.append(f'left {_clock(left)}')
    if online and row.get('eval/success') is not None:
      parts.append(f'eval {row["eval/success"]:.2f}')
    return '  '.join(parts)


def _number(value, form, width):
  return ('-' if value is None else format(value, form)).rjust(width)


def _clock(seconds):
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'
