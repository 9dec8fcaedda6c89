"""Terminal, metrics.jsonl and TensorBoard."""

import collections
import contextlib
import itertools
import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from moto_tf import images
from moto_tf.errors import MotoError
from moto_tf.train import when

# Losses of the terminal line: label and metric.
LOSSES = {
  'model': 'train/model_loss',
  'kl': 'train/kl',
  'actor': 'train/actor_loss',
  'critic': 'train/critic_loss',
}
EPISODES = 10


class LoggerError(MotoError, RuntimeError):
  """Logs cannot be written; the message names the path and a way out."""


class Logger:
  """Collects metrics and writes them, one row per call of `write`.

  A row is a terminal line, a JSON line of `metrics.jsonl` and a set of
  TensorBoard summaries over the gradient step. Videos also become files
  `videos/<name>-<gradient step>.gif`.
  """

  def __init__(
    self,
    logdir: Path | str,
    config_text: str = '',
    hparams: Mapping | None = None,
    resume_step: int | None = None,
    total: int = 0,
  ):
    """Open the logs of a run.

    Args:
      logdir: Directory of the run, created if missing.
      config_text: Configuration, shown in TensorBoard.
      hparams: Flat configuration for TensorBoard's HParams page.
      resume_step: Gradient step of the checkpoint this run continues from.
        Rows beyond it are dropped, since they come again. None is a new run:
        an older metrics.jsonl is moved aside.
      total: Gradient steps of the whole run, for the time left (0: unknown).

    Raises:
      LoggerError: The directory cannot be written.
    """
    self._logdir = Path(logdir)
    self._path = self._logdir / 'metrics.jsonl'
    self._total = total
    self._values = collections.defaultdict(list)
    self._videos = {}
    self._texts = {}
    self._hparams = None
    self._rate = when.Rate()
    self._recent = collections.deque(maxlen=EPISODES)
    self._eval = None
    with writing(self._logdir):
      self._logdir.mkdir(parents=True, exist_ok=True)
    rows = open_rows(self._path, resume_step)
    for row in rows:
      self._observe(row)
    self._start = time.time() - (rows[-1].get('time', 0) if rows else 0)
    self._board = TensorBoard(self._logdir, resume_step)
    if resume_step is None:
      self._hparams = hparams
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

  def write(self, counters: Mapping) -> dict:
    """Write what was collected as one row and start the next.

    Args:
      counters: gradient_step, env_step, agent_step, episode and phase
        ('offline' or 'online').

    Returns:
      The row, where values that are not finite are None.

    Raises:
      LoggerError: The disk is full or the directory is gone.
    """
    step = int(counters['gradient_step'])
    self._rate.update(step)
    values = {
      name: float(np.mean([np.mean(np.asarray(x, float)) for x in several]))
      for name, several in self._values.items()
    }
    if self._rate.per_second() is not None:
      values['time/steps_per_second'] = self._rate.per_second()
    row = {
      **{k: v if k == 'phase' else int(v) for k, v in counters.items()},
      'time': self.seconds,
      **{k: v if math.isfinite(v) else None for k, v in values.items()},
    }
    broken = [f'{k} ({values[k]})' for k in values if row[k] is None]
    if broken:
      print(
        f'Warning: not finite at gradient step {step}: {", ".join(broken)}; '
        'written as null.',
        file=sys.stderr,
        flush=True,
      )
    append_row(self._path, row)
    self._write_videos(step)
    rest = row.keys() - values.keys() - {'gradient_step', 'phase'}
    scalars = {f'counters/{k}': row[k] for k in sorted(rest)} | values
    gifs, texts, hparams = self._videos, self._texts, self._hparams
    self._board.write(step, scalars, gifs, texts, hparams)
    self._values.clear()
    self._videos, self._texts, self._hparams = {}, {}, None
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
    """Finish the TensorBoard file. What was not written is dropped."""
    self._board.close()

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
      with writing(path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gif)

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


class TensorBoard:
  """Event file of one process, opened at the first write.

  Events are written here and not by tf.summary, which reports no error when
  the disk is full and leaves a file that TensorBoard stops reading.
  """

  def __init__(self, logdir: Path, resume_step: int | None):
    self._logdir = logdir
    self._resume_step = resume_step
    name = f'{int(time.time())}.{socket.gethostname()}.{os.getpid()}'
    self._path = logdir / f'events.out.tfevents.{name}'
    self._file = None

  def write(
    self,
    step: int,
    scalars: Mapping[str, float],
    gifs: Mapping[str, tuple[bytes, tuple]],
    texts: Mapping[str, str],
    hparams: Mapping | None,
  ) -> None:
    """Write summaries at a step; GIFs come with their shape [T, H, W, C]."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    summary = summary_pb2.Summary()
    for name, value in scalars.items():
      summary.MergeFrom(scalar_pb(name, value))
    for name, text in texts.items():
      summary.MergeFrom(text_pb(name, text))
    for name, (gif, (_, height, width, _)) in gifs.items():
      image = summary.value.add(tag=name).image
      image.height, image.width, image.colorspace = height, width, 3
      image.encoded_image_string = gif
    if hparams:
      hparams = {key: _scalar(value) for key, value in hparams.items()}
      summary.MergeFrom(api.hparams_pb(hparams))
    with writing(self._path):
      if self._file is None:
        self._open()
      self._event(step=step, summary=summary)
      self._file.flush()

  def close(self) -> None:
    """Close the event file, if there is one."""
    if self._file is not None:
      self._file.close()

  def _open(self):
    """Open the file and forget what earlier ones hold beyond the step.

    A session start with a step is TensorBoard's sign for that.
    """
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    self._file = self._path.open('ab')
    self._records = RecordWriter(self._file)
    self._event(file_version='brain.Event:2')
    step = 0 if self._resume_step is None else self._resume_step + 1
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._event(step=step, session_log=start)

  def _event(self, **content):
    from tensorboard.compat.proto import event_pb2

    event = event_pb2.Event(wall_time=time.time(), **content)
    self._records.write(event.SerializeToString())


def open_rows(path: Path, resume_step: int | None) -> list[dict]:
  """Make a file of rows ready to be appended to; the rows that it holds.

  Args:
    path: File of JSON lines with a gradient_step, created if missing.
    resume_step: See `Logger`: rows beyond it are dropped, and without one an
      older file is moved aside.

  Raises:
    LoggerError: The file cannot be written.
  """
  with writing(path):
    if resume_step is None and path.exists() and path.stat().st_size:
      other = set_aside(path)
      print(
        f'{path} is of an earlier run without checkpoint: now {other.name}.'
      )
    rows = _rewind(path, resume_step)
    path.touch()
  return rows


def append_row(path: Path, row: Mapping) -> None:
  """Append a row as one line of JSON.

  Raises:
    LoggerError: The file cannot be written.
  """
  with writing(path), path.open('a') as file:
    file.write(json.dumps(row, allow_nan=False) + '\n')


def read_rows(path: Path) -> tuple[list[dict], list[str]]:
  """Rows of JSON lines, and a remark on each line that is not a row.

  Raises:
    OSError: The file cannot be read.
  """
  rows, remarks = [], []
  lines = path.read_text(errors='replace').splitlines()
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if isinstance(row, dict) and isinstance(row.get('gradient_step'), int):
      rows.append(row)
    elif number == len(lines):
      remarks.append(f'{path}: the last line is half written')
    else:
      remarks.append(f'{path}: line {number} is not a row')
  return rows, remarks


def _rewind(path, step):
  """Drop rows beyond a step from the file, all or nothing, and return it."""
  if step is None or not path.exists():
    return []
  rows, remarks = read_rows(path)
  for remark in remarks:
    print(f'Warning: {remark}; dropped.', file=sys.stderr, flush=True)
  kept = [row for row in rows if row['gradient_step'] <= step]
  if len(kept) < len(rows):
    print(f'{path}: {len(rows) - len(kept)} rows beyond step {step} dropped.')
  text = ''.join(json.dumps(row) + '\n' for row in kept)
  temporary = path.with_suffix('.tmp')
  with temporary.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
  return kept


def set_aside(path: Path) -> Path:
  """Rename a file to <name>-old-<number>, and return its new path."""
  for number in itertools.count(1):
    other = path.with_name(f'{path.stem}-old-{number}{path.suffix}')
    if not other.exists():
      return path.rename(other)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
  """Context that turns an OSError into a LoggerError with advice."""
  try:
    yield
  except OSError as error:
    raise LoggerError(_advice(path, error)) from error


def _advice(path, error):
  reason = error.strerror or error
  places = (path, *path.absolute().parents)
  free = shutil.disk_usage(next(p for p in places if p.is_dir())).free / 2**30
  return (
    f'Cannot write {path}: {reason} ({free:.1f} GiB free). Make room or make '
    'the directory writable, then start the same command again: the run '
    'continues from its last checkpoint.'
  )


def _scalar(value):
  return value if isinstance(value, bool | int | float | str) else str(value)


def _number(value, form, width):
  return ('-' if value is None else format(value, form)).rjust(width)


def _clock(seconds):
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'
