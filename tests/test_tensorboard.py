"""Event files: what TensorBoard reads from them, also of continued runs."""

import io
import math
import re
import resource

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_metadata
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util

from moto_tf.files import FileError
from moto_tf.training import tensorboard
from moto_tf.training.logger import Logger

HPARAMS = {
  'task': 'metaworld_door-open',
  'method': 'moto',
  'seed': 3,
  'alpha': 10.0,
  'k': [4, 4],
  'jit': True,
}


def write(logger, step, phase='online', env_step=None, **metrics):
  """A row whose metrics are of group eval."""
  logger.add(metrics, 'eval')
  return logger.write(
    {
      'gradient_step': step,
      'env_step': 20 * step if env_step is None else env_step,
      'agent_step': 10 * step,
      'episode': step // 20,
      'phase': phase,
    }
  )


def read_events(logdir):
  """What TensorBoard sees: values by tag, as a list of (step, value)."""
  events = plugin_event_accumulator.EventAccumulator(
    str(logdir), size_guidance={'tensors': 0}
  )
  events.Reload()
  values = {}
  for tag in events.Tags()['tensors']:
    values[tag] = [
      (event.step, tensor_util.make_ndarray(event.tensor_proto))
      for event in events.Tensors(tag)
    ]
  return values, events


def by_env_step(logdir):
  """Points of the second event file, as tag to list of (step, value)."""
  values, _ = read_events(logdir / 'env_steps')
  return {
    tag.removesuffix('_by_env_step'): [(s, float(v)) for s, v in points]
    for tag, points in values.items()
    if tag.endswith('_by_env_step')
  }


def test_scalars_texts_and_videos(tmp_path):
  text = 'task: metaworld_door-open\nseed: 3\n'
  video = np.zeros((6, 16, 24, 3), np.uint8)
  for index in range(6):
    video[index, :, 4 * index : 4 * index + 4] = 255
  logger = Logger(tmp_path, text, HPARAMS)
  for step in (10, 20):
    logger.add({'train/loss': step / 4})
    logger.video('openloop/image', video)
    write(logger, step, **{'return': math.nan})
  logger.close()
  logger = Logger(tmp_path, text, HPARAMS, resume_step=20)
  logger.text('note', 'hello')
  write(logger, 30)
  logger.close()
  values, _ = read_events(tmp_path)
  assert values['train/loss'] == [(10, 2.5), (20, 5.0)]
  assert [int(x) for _, x in values['counters/env_step']] == [200, 400, 600]
  assert math.isnan(values['eval/return'][0][1])
  # A continued run does not repeat its configuration.
  ((step, config),) = values['config']
  config = config.item().decode()
  assert step == 10 and text in config and config.startswith('```yaml\n')
  assert '| method | moto |' in values['about'][0][1].item().decode()
  assert values['note'][0][1] == b'hello'
  assert [step for step, _ in values['openloop/image']] == [10, 20]
  width, height, gif = values['openloop/image'][0][1]
  assert (width, height) == (b'24', b'16')
  path = tmp_path / 'videos' / 'openloop_image-00000010.gif'
  assert path.read_bytes() == gif
  with Image.open(io.BytesIO(gif)) as image:
    assert image.n_frames == 6 and image.size == (24, 16)
    image.seek(5)
    pixels = np.asarray(image.convert('RGB'))
  np.testing.assert_array_equal(pixels, video[5])


def test_rows_beyond_the_checkpoint_are_forgotten(tmp_path):
  logger = Logger(tmp_path, hparams=HPARAMS)
  for step in (10, 20, 30, 40):
    write(logger, step, success=step / 100)
  logger.close()
  logger = Logger(tmp_path, hparams=HPARAMS, resume_step=20)
  write(logger, 30, success=0.5)
  logger.close()
  values, _ = read_events(tmp_path)
  points = [(s, round(float(v), 6)) for s, v in values['eval/success']]
  assert points == [(10, 0.1), (20, 0.2), (30, 0.5)]
  points = [(s, round(v, 6)) for s, v in by_env_step(tmp_path)['eval/success']]
  assert points == [(200, 0.1), (400, 0.2), (600, 0.5)]


def test_a_new_run_forgets_everything(tmp_path):
  for step in (1, 2, 3):
    logger = Logger(tmp_path)
    write(logger, step, success=1.0)
    logger.close()
  values, _ = read_events(tmp_path)
  assert [step for step, _ in values['eval/success']] == [3]
  assert by_env_step(tmp_path) == {'eval/success': [(60, 1.0)]}


@pytest.mark.parametrize('resumed', [False, True])
def test_one_point_per_env_step(tmp_path, resumed):
  """Of the offline phase the end remains, before and after a restart."""
  logger = Logger(tmp_path)
  write(logger, 10, 'offline', 0, success=0.0)
  write(logger, 20, 'offline', 0, **{'return': 7.0})
  write(logger, 30, 'offline', 0, success=0.25)
  if resumed:
    logger.close()
    logger = Logger(tmp_path, resume_step=30)
  write(logger, 40, env_step=200)  # Nothing of interest.
  write(logger, 50, env_step=200, success=0.5)
  write(logger, 60, env_step=400, success=0.75)
  logger.close()
  assert by_env_step(tmp_path) == {
    'eval/success': [(0, 0.25), (200, 0.5), (400, 0.75)],
    'eval/return': [(0, 7.0)],
  }


def test_runs_of_before_get_points_by_env_step(tmp_path):
  """Their metrics.jsonl has all of them; there is no second event file."""
  logger = Logger(tmp_path)
  write(logger, 10, success=1.0)
  logger.close()
  (path,) = (tmp_path / 'env_steps').iterdir()
  path.unlink()
  logger = Logger(tmp_path, resume_step=10)
  write(logger, 20, success=0.0)
  logger.close()
  assert by_env_step(tmp_path) == {'eval/success': [(200, 1.0), (400, 0.0)]}


def test_hparams(tmp_path):
  """A session beside evaluations alone, with a name that is its own."""
  logger = Logger(tmp_path, hparams=HPARAMS, total=20)
  write(logger, 10, success=0.5)
  _, events = read_events(tmp_path / 'env_steps')
  assert metadata.SESSION_END_INFO_TAG not in events.Tags()['tensors']
  write(logger, 20, success=0.5)
  logger.close()
  _, events = read_events(tmp_path / 'env_steps')
  content = lambda tag: events.SummaryMetadata(tag).plugin_data.content
  start = metadata.parse_session_start_info_plugin_data(
    content(metadata.SESSION_START_INFO_TAG)
  )
  assert start.group_name == (
    'moto 3 metaworld_door-open alpha=10.0 k=[4, 4] jit=True'
  )
  assert set(start.hparams) == set(HPARAMS)
  assert start.hparams['alpha'].number_value == 10
  assert start.hparams['jit'].bool_value is True
  assert start.hparams['k'].string_value == '[4, 4]'
  end = metadata.parse_session_end_info_plugin_data(
    content(metadata.SESSION_END_INFO_TAG)
  )
  assert end.status == 1  # Success.
  # Metrics beside a session become columns of the HParams page.
  tags = {t for t in events.Tags()['tensors'] if not t.startswith('_hparams_')}
  assert tags == {'eval/success_by_env_step'}
  values, _ = read_events(tmp_path)
  assert metadata.SESSION_START_INFO_TAG not in values


def test_hparams_of_a_run_that_goes_on(tmp_path):
  """With other settings and more steps: those of now, and no end yet."""
  logger = Logger(tmp_path, hparams=HPARAMS, total=20)
  write(logger, 10, success=0.25)
  write(logger, 20, success=0.5)
  logger.close()
  changed = {**HPARAMS, 'alpha': 1.0}
  logger = Logger(tmp_path, hparams=changed, resume_step=20, total=40)
  write(logger, 30, success=0.75)
  logger.close()
  values, events = read_events(tmp_path / 'env_steps')
  tag = metadata.SESSION_START_INFO_TAG
  content = events.SummaryMetadata(tag).plugin_data.content
  start = metadata.parse_session_start_info_plugin_data(content)
  assert start.hparams['alpha'].number_value == 1
  assert metadata.SESSION_END_INFO_TAG not in events.Tags()['tensors']
  assert len(values['eval/success_by_env_step']) == 3


def test_layout(tmp_path):
  """The charts are read back, and each tag is a regular expression."""
  logger = Logger(tmp_path)
  write(logger, 10)
  logger.close()
  values, _ = read_events(tmp_path)
  ((_, content),) = values[custom_metadata.CONFIG_SUMMARY_TAG]
  layout = layout_pb2.Layout.FromString(content.item())
  charts = {c.title: [x.title for x in c.chart] for c in layout.category}
  assert charts == {k: list(v) for k, v in tensorboard.LAYOUT.items()}
  tags = [
    tag
    for category in layout.category
    for chart in category.chart
    for tag in chart.multiline.tag
  ]
  matched = lambda name: any(re.match(tag, name) for tag in tags)
  assert matched('eval/success') and matched('heldout/image_loss')
  assert not matched('eval/success_of_a_kind')


def test_a_clock_that_was_set_back(tmp_path, monkeypatch):
  """Files are numbered on, since TensorBoard reads them by their names."""
  now = 2_000_000_000
  for start, clock in enumerate((now, now - 86400, now - 86400, now + 5)):
    monkeypatch.setattr(tensorboard.time, 'time', lambda x=clock: x)
    logger = Logger(tmp_path, resume_step=10 * start if start else None)
    write(logger, 10 * start + 10, success=start / 10)
    logger.close()
  values, _ = read_events(tmp_path)
  points = [(s, round(float(v), 6)) for s, v in values['eval/success']]
  assert points == [(10, 0.0), (20, 0.1), (30, 0.2), (40, 0.3)]
  names = [path.name for path in tmp_path.glob('events.*')]
  numbers = sorted(int(name.split('.')[3]) for name in names)
  assert numbers == [now, now + 1, now + 2, now + 5]
  assert len(by_env_step(tmp_path)['eval/success']) == 4


def test_full_disk(tmp_path):
  logger = Logger(tmp_path)
  logger.text('long', 50_000 * 'x')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
  try:
    with pytest.raises(FileError, match='File too large') as error:
      write(logger, 1)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert f'Cannot write {tmp_path}/events.' in str(error.value)
  # Nothing is left for closing to fail on, and to hide this error by.
  logger.close()
