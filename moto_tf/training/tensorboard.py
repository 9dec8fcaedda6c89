"""Event files for TensorBoard.

Events are written here and not by tf.summary, which reports no error when the
disk is full and leaves a file that TensorBoard stops reading.
"""

import io
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from moto_tf.files import writing

# Directory of the second event file, which TensorBoard shows as a run.
ENV_STEPS = 'env_steps'
# What the second event file holds, and with it the HParams page as columns.
# Its names are its own: TensorBoard draws what has the same name into one
# chart, and two units would share an axis. Columns come in alphabetical order,
# so that episodes have a name after 'eval'.
BY_ENV_STEP = {
  'eval/success': 'eval/success_by_env_step',
  'eval/return': 'eval/return_by_env_step',
  'episode/success': 'online/success_by_env_step',
  'episode/return': 'online/return_by_env_step',
}
# Charts of the Custom Scalars page: category, title and metrics.
LAYOUT = {
  'Success and return': {
    'success in evaluation': ('eval/success',),
    'success in evaluation by env step': ('eval/success_by_env_step',),
    'success while collecting': ('episode/success',),
    'success while collecting by env step': ('online/success_by_env_step',),
    'return in evaluation': ('eval/return',),
    'return in evaluation by env step': ('eval/return_by_env_step',),
  },
  'Expected and real': {
    'predicted and real value in evaluation': (
      'eval/value_(predicted|real)',
      'eval/overestimation',
    ),
  },
  'Reward against penalty': {
    'imagined reward and penalty': (
      'train/imag_reward_raw',
      'train/imag_penalty',
    ),
    'reward the policy is trained on': ('train/imag_reward',),
    'disagreement of the ensemble': ('train/imag_disagreement',),
    'penalty of recorded and opposite actions': (
      '(report|heldout)/penalty_(recorded|negated)',
    ),
  },
  'Model losses': {
    'images': ('(train|report|heldout)/image_loss',),
    'vectors': ('(train|report|heldout)/vector_loss',),
    'reward': ('(train|report|heldout)/reward_loss',),
    'KL divergence': ('(train|report|heldout)/kl',),
  },
  'Critics': {
    'imagined value': ('train/imag_value', 'train/critic_value'),
    'Q and target, imagined': ('train/critic_model_(q|target)',),
    'Q and target, real transitions': ('train/critic_data_(q|target)',),
    'loss': ('train/critic_loss',),
  },
  'Speed': {
    'gradient steps per second': ('time/steps_per_second',),
    'seconds in gradient steps since the last row': ('time/train_seconds',),
    'seconds in all else since the last row': (
      'time/data_wait_seconds',
      'time/episode_.*_seconds',
    ),
  },
}


class TensorBoard:
  """Event files of one process, created by the first write.

  The first holds everything by gradient step. The second, in the directory
  `env_steps`, holds success and return by env step, one point for each, and
  the settings, since the HParams page shows what lies beside them.
  """

  def __init__(
    self,
    logdir: Path,
    resume_step: int | None,
    rows: Iterable[Mapping] = (),
    hparams: Mapping | None = None,
  ):
    """Prepares to write.

    Args:
      logdir: directory of the run.
      resume_step: gradient step of the checkpoint the run continues from;
        what was written beyond it is forgotten. None is a new run.
      rows: what metrics.jsonl holds up to that step.
      hparams: settings for the HParams page; they also name the run there.
    """
    self._main = _EventFile(logdir)
    self._by_env_step = _EventFile(logdir / ENV_STEPS)
    self._resume_step = resume_step
    self._rows = list(rows)
    self._hparams = hparams
    self._point = None, {}

  def write(
    self,
    row: Mapping,
    scalars: Mapping[str, float],
    gifs: Mapping[str, tuple[bytes, tuple]],
    texts: Mapping[str, str],
    ended: bool,
  ) -> None:
    """Writes one row.

    Args:
      row: as in metrics.jsonl, with gradient_step and env_step.
      scalars: by tag.
      gifs: by tag, with their shape [T, H, W, C].
      texts: Markdown by tag.
      ended: the run is complete.

    Raises:
      FileError: the disk is full or the directory is gone.
    """
    if not self._main.is_open:
      self._start()
    self._main.write(row['gradient_step'], _summary(scalars, gifs, texts))
    self._write_by_env_step(row)
    if ended and self._hparams:
      self._by_env_step.write(row['env_step'], _session_end())
    self._main.flush()
    self._by_env_step.flush()

  def _start(self):
    """Forgets what earlier files hold beyond the checkpoint.

    The few points by env step are written anew, since several rows may share
    an env step.
    """
    new = self._resume_step is None
    self._main.forget(0 if new else self._resume_step + 1)
    self._main.write(0, _layout())
    self._by_env_step.replace_others()
    if self._hparams:
      self._by_env_step.write(0, _hparams(self._hparams))
    for row in self._rows:
      self._write_by_env_step(row)
    self._rows = []

  def _write_by_env_step(self, row):
    """One point per env step: what comes later at the same one replaces it.

    So of the offline phase, all of it at env step 0, the end remains.
    """
    values = {
      tag: row[name]
      for name, tag in BY_ENV_STEP.items()
      if row.get(name) is not None
    }
    if not values:
      return
    step, before = self._point
    if step == row['env_step']:
      values = before | values
      self._by_env_step.forget(step)
    self._point = row['env_step'], values
    self._by_env_step.write(row['env_step'], _summary(values))


class _EventFile:
  """File of events in a directory of its own, created when first flushed.

  TensorBoard reads the files of a directory in the order of their names, which
  begin with the time. They are numbered on from those of earlier sessions, in
  case the clock was set back.
  """

  def __init__(self, directory):
    pattern = re.compile(r'events\.out\.tfevents\.(\d{1,12})\..*')
    names = os.listdir(directory) if directory.is_dir() else []
    numbers = [int(m[1]) for name in names if (m := pattern.fullmatch(name))]
    number = max([int(time.time()), *(x + 1 for x in numbers)])
    name = f'{number:010}.{socket.gethostname()}.{os.getpid()}'
    self._path = directory / f'events.out.tfevents.{name}'
    self._records, self._waiting = None, io.BytesIO()

  @property
  def is_open(self):
    return self._records is not None

  def write(self, step, summary):
    self._event(step=step, summary=summary)

  def forget(self, step):
    """Has TensorBoard drop what the directory holds at a step and beyond."""
    from tensorboard.compat.proto import event_pb2

    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._event(step=step, session_log=start)

  def replace_others(self):
    """Removes the files of earlier sessions, whose content comes again.

    Of settings and of the end of a run, TensorBoard would keep the first.
    """
    with writing(self._path):
      for path in self._path.parent.glob('events.out.tfevents.*'):
        path.unlink()

  def flush(self):
    """Writes what is waiting. A failure leaves nothing for later."""
    data = self._waiting.getvalue()
    self._waiting.seek(0)
    self._waiting.truncate()
    if data:
      with writing(self._path):
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open('ab', buffering=0) as file:
          while data:
            data = data[file.write(data) :]

  def _event(self, **content):
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    if self._records is None:
      self._records = RecordWriter(self._waiting)
      self._event(file_version='brain.Event:2')
    event = event_pb2.Event(wall_time=time.time(), **content)
    self._records.write(event.SerializeToString())


def _summary(scalars, gifs=None, texts=None):
  from tensorboard.compat.proto import summary_pb2
  from tensorboard.plugins.scalar.summary_v2 import scalar_pb
  from tensorboard.plugins.text.summary_v2 import text_pb

  summary = summary_pb2.Summary()
  for name, value in scalars.items():
    summary.MergeFrom(scalar_pb(name, value))
  for name, text in (texts or {}).items():
    summary.MergeFrom(text_pb(name, text))
  for name, (gif, (_, height, width, _)) in (gifs or {}).items():
    image = summary.value.add(tag=name).image
    image.height, image.width, image.colorspace = height, width, 3
    image.encoded_image_string = gif
  return summary


def _layout():
  """Charts of the Custom Scalars page; each tag is a regular expression."""
  from tensorboard.compat.proto import summary_pb2
  from tensorboard.plugins.custom_scalar import layout_pb2, metadata
  from tensorboard.util import tensor_util

  layout = layout_pb2.Layout()
  for title, charts in LAYOUT.items():
    category = layout.category.add(title=title)
    for name, tags in charts.items():
      tags = [f'^{tag}$' for tag in tags]
      multiline = layout_pb2.MultilineChartContent(tag=tags)
      category.chart.add(title=name, multiline=multiline)
  value = summary_pb2.Summary.Value(
    tag=metadata.CONFIG_SUMMARY_TAG,
    metadata=metadata.create_summary_metadata(),
    tensor=tensor_util.make_tensor_proto(layout.SerializeToString()),
  )
  return summary_pb2.Summary(value=[value])


def _session_end():
  """Status of a complete run on the HParams page."""
  from tensorboard.compat.proto import summary_pb2
  from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

  end = plugin_data_pb2.SessionEndInfo(
    status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time()
  )
  content = plugin_data_pb2.HParamsPluginData(session_end_info=end)
  value = summary_pb2.Summary.Value(
    tag=metadata.SESSION_END_INFO_TAG,
    metadata=metadata.create_summary_metadata(content),
    tensor=metadata.NULL_TENSOR,
  )
  return summary_pb2.Summary(value=[value])


def _hparams(settings):
  """Start of a session, named by its settings.

  TensorBoard averages sessions of the same name, so the name tells all that
  differs: 'moto 0 metaworld_drawer-open moto.alpha=1.0'. It shows the first
  letters only.
  """
  from tensorboard.plugins.hparams import api

  named = ('method', 'seed', 'task')
  words = [str(settings[key]) for key in named if key in settings]
  words += [f'{k}={v}' for k, v in settings.items() if k not in named]
  plain = bool | int | float | str
  values = {
    key: value if isinstance(value, plain) else str(value)
    for key, value in settings.items()
  }
  return api.hparams_pb(values, trial_id=' '.join(words))
