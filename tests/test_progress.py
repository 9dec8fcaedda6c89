"""The display of progress, on a terminal and in a log file."""

import io

import pytest

from moto_tf import progress
from moto_tf.progress import Progress, duration


class Clock:
  now = 0.0

  def monotonic(self):
    return self.now


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(progress, 'time', clock)
  return clock


def test_a_log_file_gets_a_line_per_interval_and_at_the_end(clock):
  stream = io.StringIO()
  with Progress('hammer', 40, every=10, stream=stream) as shown:
    for done in range(1, 41):
      clock.now += 1
      shown.show(done, f'{done // 10} dropped')
  lines = stream.getvalue().splitlines()
  assert lines == [
    'hammer         10/40 episodes, 1 dropped, 1.0/s, 30 s left',
    'hammer         20/40 episodes, 2 dropped, 1.0/s, 20 s left',
    'hammer         30/40 episodes, 3 dropped, 1.0/s, 10 s left',
    'hammer         40/40 episodes, 4 dropped, 1.0/s, took 40 s',
  ]


def test_the_last_state_is_shown_when_it_stops_early(clock):
  stream = io.StringIO()
  shown = Progress('hammer', 40, every=10, stream=stream)
  clock.now = 4
  shown.show(2)
  assert stream.getvalue() == ''
  shown.close()
  shown.close()
  expected = 'hammer         2/40 episodes, 30.0/min, 76 s left\n'
  assert stream.getvalue() == expected


def test_what_was_there_before_does_not_count_for_the_speed(clock):
  stream = io.StringIO()
  shown = Progress('x', 100, done=90, unit='files', every=0, stream=stream)
  clock.now = 10
  shown.show(90)
  shown.show(95)
  lines = stream.getvalue().splitlines()
  assert lines[0].endswith('90/100 files, ? left')
  assert lines[1].endswith('95/100 files, 30.0/min, 10 s left')


def test_a_terminal_has_one_line(clock, monkeypatch):
  monkeypatch.setenv('COLUMNS', '60')
  stream = Terminal()
  with Progress('hammer', 3, stream=stream) as shown:
    shown.show(0, 'a long remark')
    clock.now = 0.05  # Too soon to be read.
    shown.show(1)
    clock.now = 10
    shown.show(2, 'x' * 80)
    shown.show(3)
  text = stream.getvalue()
  assert text.count('\n') == 1 and text.endswith('\n')
  states = text.rstrip('\n').split('\r')[1:]
  assert len(states) == 3 and max(map(len, states)) == 59
  assert states[0] == 'hammer         0/3 episodes, a long remark, ? left'
  # Spaces hide the rest of the longer line before.
  assert (
    states[2].rstrip() == 'hammer         3/3 episodes, 18.0/min, took 10 s'
  )
  assert len(states[2]) == 59


def test_short_work_shows_nothing(clock):
  stream = io.StringIO()
  with Progress('x', 2, delay=5, stream=stream) as shown:
    clock.now = 4
    shown.show(2)
  assert stream.getvalue() == ''
  with Progress('x', 2, delay=5, stream=stream) as shown:
    clock.now = 10
    shown.show(2)
  assert '2/2' in stream.getvalue()


def test_durations():
  assert [duration(x) for x in (0.4, 99, 100, 5940, 9000)] == [
    '0 s', '99 s', '2 min', '99 min', '2.5 h'
  ]  # fmt: skip
