"""Rows, terminal, continued runs, full disks; schedules."""

import json
import math
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from moto_tf.files import FileError
from moto_tf.training import rows as row_files
from moto_tf.training import when
from moto_tf.training.logger import Logger


def counters(step, phase='online'):
  return {
    'gradient_step': step,
    'env_step': 20 * step,
    'agent_step': 10 * step,
    'episode': step // 20,
    'phase': phase,
  }


def test_import_without_tensorflow():
  code = (
    'import sys, moto_tf.training.logger, moto_tf.training.when;'
    'sys.exit("tensorflow" in sys.modules)'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_row(tmp_path):
  import tensorflow as tf

  logger = Logger(tmp_path / 'a' / 'run', total=1000)
  logger.add({'train/x': 1.0, 'train/y': np.array([[1, 2], [3, 6]])})
  logger.add({'x': tf.constant(4, tf.bfloat16), 'z': np.float16(2)}, 'train')
  logger.add({'x': tf.constant(4.0), 'success': True}, 'train')
  row = logger.write(counters(50, 'offline'))
  assert row['train/x'] == 3.0 and row['train/y'] == 3.0
  assert row['train/z'] == 2.0 and row['train/success'] == 1.0
  assert {k: row[k] for k in counters(50)} == counters(50, 'offline')
  logger.add({'train/x': 5.0})
  assert logger.write(counters(100))['train/x'] == 5.0
  rows, remarks = row_files.read(tmp_path / 'a' / 'run' / 'metrics.jsonl')
  assert rows[0] == row and not remarks
  assert rows[1]['train/x'] == 5.0 and 'train/y' not in rows[1]
  assert rows[1]['time'] >= rows[0]['time'] >= 0
  assert rows[1]['time/steps_per_second'] > 0
  logger.close()


def test_name_without_group(tmp_path):
  with pytest.raises(ValueError, match="'loss' has no group"):
    Logger(tmp_path).add({'loss': 1.0})


def test_not_finite(tmp_path, capsys):
  logger = Logger(tmp_path)
  logger.add({'train/a': 1.0, 'train/b': np.inf, 'train/c': np.zeros(0)})
  logger.add({'train/a': math.nan, 'train/d': 1.0})
  logger.write(counters(7))
  logger.close()

  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  text = (tmp_path / 'metrics.jsonl').read_text()
  row = json.loads(text, parse_constant=refuse)
  assert [row[f'train/{k}'] for k in 'abcd'] == [None, None, None, 1.0]
  error = capsys.readouterr().err
  assert 'step 7' in error and 'train/a (nan)' in error
  assert 'train/b (inf)' in error and 'train/d' not in error


def test_terminal(tmp_path, capsys):
  logger = Logger(tmp_path, total=21000)
  losses = {'model_loss': 812.41, 'kl': 3.21, 'actor_loss': -1.2}
  logger.add(losses, 'train')
  logger.add({'eval/success': 0.25})
  logger.write(counters(1200, 'offline'))
  time.sleep(0.05)
  for index in range(20):
    logger.add({'episode/success': index >= 13})
  logger.add({**losses, 'critic_loss': 0.03}, 'train')
  logger.write(counters(1240))
  logger.close()
  first, second = capsys.readouterr().out.splitlines()
  words = re.sub(r' +', ' ', second)
  assert words.startswith(
    'online grad 1240/21000 env 24,800 ep 62 success 0.70 model 812.4 '
    'kl 3.21 actor -1.2 critic 0.03 '
  )
  assert re.search(r' step/s left \d+:\d\d:\d\d$', words)
  assert 'success 0.25' in first
  for word in ('grad', 'env', 'ep ', 'success', 'kl', 'critic', 'step/s'):
    assert first.index(word) == second.index(word)


def test_continue(tmp_path, capsys):
  path = tmp_path / 'metrics.jsonl'
  logger = Logger(tmp_path)
  for step in range(10, 60, 10):
    logger.add({'episode/success': step == 20, 'train/x': step})
    logger.write(counters(step))
  logger.close()
  before = path.read_text().splitlines()
  with path.open('a') as file:
    file.write('{"gradient_step": 60, "trai')
  logger = Logger(tmp_path, resume_step=30)
  out = capsys.readouterr()
  assert f'{path}: the last line is half written; dropped' in out.err
  assert '2 rows beyond step 30 dropped' in out.out
  assert path.read_text().splitlines() == before[:3]
  assert [x.name for x in tmp_path.glob('metrics*')] == ['metrics.jsonl']
  logger.add({'train/x': 40.5})
  row = logger.write(counters(40))
  logger.close()
  # The success of three earlier episodes is remembered, and the clock runs on.
  assert 'success 0.33' in capsys.readouterr().out
  assert row['time'] >= json.loads(before[2])['time']
  rows, _ = row_files.read(path)
  assert [x['gradient_step'] for x in rows] == [10, 20, 30, 40]


def test_damaged_line(tmp_path, capsys):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"gradient_step": 1}\n\0\0\n[3]\n{"gradient_step": 2}')
  Logger(tmp_path, resume_step=2)
  error = capsys.readouterr().err
  assert 'line 2 is not a row' in error and 'line 3 is not a row' in error
  assert path.read_text() == '{"gradient_step": 1}\n{"gradient_step": 2}\n'


def test_new_run_keeps_old_metrics(tmp_path, capsys):
  for step in (1, 2, 3):
    logger = Logger(tmp_path)
    logger.add({'train/x': 1.0})
    logger.write(counters(step))
    logger.close()
  assert 'now metrics-old-2.jsonl' in capsys.readouterr().out
  names = ('metrics-old-1.jsonl', 'metrics-old-2.jsonl', 'metrics.jsonl')
  steps = [
    row_files.read(tmp_path / name)[0][0]['gradient_step'] for name in names
  ]
  assert steps == [1, 2, 3]


def test_bad_video(tmp_path):
  with pytest.raises(ValueError, match=r'\(5, 8, 8\)'):
    Logger(tmp_path).video('x', np.zeros((5, 8, 8), np.uint8))


def test_unwritable(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(FileError, match='file/run: Not a directory'):
    Logger(tmp_path / 'file' / 'run')


def test_full_disk(tmp_path):
  logger = Logger(tmp_path)
  path = tmp_path / 'metrics.jsonl'
  path.unlink()
  path.symlink_to('/dev/full')
  logger.add({'train/x': 1.0})
  with pytest.raises(FileError, match='No space left on device') as error:
    logger.write(counters(1))
  assert str(path) in str(error.value) and 'GiB free' in str(error.value)


def test_lost_directory(tmp_path):
  logger = Logger(tmp_path / 'run')
  (tmp_path / 'run' / 'metrics.jsonl').unlink()
  (tmp_path / 'run').rmdir()
  with pytest.raises(FileError, match='No such file'):
    logger.write(counters(1))


@pytest.mark.parametrize('period', [1, 3, 10])
def test_every(period):
  once = when.Every(period)
  fired = [step for step in range(1, 61) if once(step)]
  assert fired == list(range(period, 61, period))
  # Stopped at any step and started again, the same steps fire.
  for stop in range(60):
    first, second = when.Every(period), when.Every(period, stop)
    again = [step for step in range(1, stop + 1) if first(step)]
    again += [step for step in range(stop + 1, 61) if second(step)]
    assert again == fired


def test_every_with_jumps():
  every = when.Every(10)
  assert [every(x) for x in (0, 9, 25, 29, 30, 30)] == [
    False,
    False,
    True,
    False,
    True,
    False,
  ]
  assert not any(map(when.Every(0), range(100)))
  with pytest.raises(ValueError, match='-1'):
    when.Every(-1)


def test_rate():
  now = [100.0]
  rate = when.Rate(window=2, clock=lambda: now[0])
  assert rate.per_second() is None and rate.left(10) is None
  rate.update(0)
  rate.update(0)
  assert rate.per_second() is None
  now[0] += 5
  rate.update(10)
  assert rate.per_second() == 2.0 and rate.left(30) == 10.0
  with rate.pause():
    now[0] += 1000
  now[0] += 5
  rate.update(20)
  assert rate.per_second() == 2.0
  # Old intervals leave the window.
  for step in (30, 40):
    now[0] += 1
    rate.update(step)
  assert rate.per_second() == 10.0
  assert rate.left(140) == 10.0 and rate.left(40) == 0.0
  assert rate.left(0) is None
