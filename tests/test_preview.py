"""--dry-run: says what a run would do and need, and touches nothing."""

import collections
import dataclasses
import re
import shutil

import pytest
from test_old_logdirs import LOGDIRS

from moto_tf.agents import make_agent
from moto_tf.config import Config
from moto_tf.data.replay import ReplayError
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError
from moto_tf.training import forecast as forecasts
from moto_tf.training import preview as module
from moto_tf.training.forecast import Measured, forecast
from moto_tf.training.preview import PreviewError, preview


def settings(logdir, **overrides):
  return make_config(
    *('gym', 'debug', 'proprio'),
    {
      'logdir': str(logdir),
      'eager': False,
      'env.time_limit': 10,
      'offline_steps': 0,
      'online_steps': 100,
      'updates_per_episode': 5,
      'prefill_episodes': 3,
      **overrides,
    },
  )


def lines(config):
  pairs = (line.split(None, 1) for line in preview(config).splitlines())
  return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def test_a_new_run(tmp_path, capsys):
  logdir = tmp_path / 'moto' / '0'
  found = lines(settings(logdir, checkpoint_milestones=30))
  assert found['method'].startswith('MOTO on gym_Pendulum')
  assert found['observations'] == 'state (3,) float32; 1 actions'
  # 3 random episodes and 20 more, of ten transitions each, after one that was
  # read for the preview.
  assert '23 episodes' in found['disk'] and '240 transitions' in found['memory']
  # Of 100 gradient steps the 30th, 60th and 90th.
  saved = re.search(r'\S+ MiB', found['variables'])[0]
  assert f'3 checkpoints, 3 milestones of {saved} and' in found['disk']
  assert 'per gradient step' in found['speed'] and 'about' in found['time']
  assert 'a random episode stands for the data' in capsys.readouterr().out
  assert not tmp_path.joinpath('moto').exists()


def test_the_last_steps_are_timed(tmp_path, monkeypatch):
  """In which all of a run learns, see moto.model_start."""
  seen = []

  def make(*args):
    agent = make_agent(*args)
    train = agent.train
    agent.train = lambda batch, step: seen.append(step) or train(batch, step)
    return agent

  monkeypatch.setattr(forecasts, 'make_agent', make)
  forecasts.measure(settings(tmp_path / '0', eager=True), None)
  assert seen == list(range(100 - len(seen), 100)) and len(seen) > 1


def measured(**values):
  """All of them 1 but for those that are given."""
  fields = [field.name for field in dataclasses.fields(Measured)]
  return Measured(**{**dict.fromkeys(fields, 1), **values})


def test_episodes_to_come_take_memory(tmp_path):
  """On top of what was in use, as far as the replay holds them."""
  found = measured(peak=7, record=100, length=10, held=40)

  def ahead(done=None, **changes):
    config = settings(tmp_path / '0', prefill_episodes=0, **changes)
    return forecast(found, config, done or {})

  # An episode for five of 100 steps, and no random ones before.
  whole = ahead()
  assert (whole.episodes, whole.transitions) == (20, 40 + 20 * 10)
  assert whole.memory == 7 + 20 * 10 * 100
  half = ahead({'gradient_step': 60, 'episode': 12, 'agent_step': 120})
  assert (half.episodes, half.transitions) == (8, 40 + 20 * 10)
  # What was collected is not in memory while this is measured.
  assert half.memory == whole.memory
  full = ahead(**{'replay.capacity': 90})
  assert (full.memory, full.transitions) == (7 + (90 - 40) * 100, 90)
  assert ahead(**{'replay.capacity': 30}).memory == 7


@pytest.mark.parametrize(
  'envs, episodes, cores, share',
  [
    (4, 4, 1, 1),
    (4, 4, 2, 2),
    (4, 4, 8, 4),
    (1, 4, 8, 1),
    (8, 4, 8, 4),
    (3, 4, 8, 3),
  ],
)
def test_evaluations_share_the_cores(tmp_path, envs, episodes, cores, share):
  """As many at a time as there are environments, cores and episodes."""
  found = measured(length=10, action=0.5, episode=3.0, cores=cores)
  config = settings(
    tmp_path / '0', envs=envs, eval_episodes=episodes, eval_every=50
  )
  seconds = forecast(found, config, {}).seconds
  # Two on the way and at both ends of training; actions take as long as the
  # environment.
  assert seconds['evaluations'] == 4 * episodes * (3 + 10 * 0.5) / share
  assert seconds['starting environments'] == min(envs, episodes)


def test_milestones_take_disk(tmp_path):
  found = measured(arrays=7)
  logdir = tmp_path / 'moto' / '0'
  none, some = (
    forecast(found, settings(logdir, checkpoint_milestones=every), {})
    for every in (0, 30)
  )
  assert (none.milestones, some.milestones) == (0, 3)
  assert some.disk - none.disk == 3 * 7
  # After 60 steps the third is left.
  left = forecast(
    found, settings(logdir, checkpoint_milestones=30), {'gradient_step': 60}
  )
  assert left.milestones == 1


def test_a_run_that_goes_on(tmp_path):
  logdir = tmp_path / 'moto' / '0'
  shutil.copytree(LOGDIRS / 'pendulum' / 'moto' / '0', logdir)
  before = {p: p.stat().st_mtime_ns for p in logdir.rglob('*')}
  config = Config.load(logdir / 'config.yaml')
  config = config.update(logdir=str(logdir), online_steps=110)
  found = lines(config)
  assert found['log'].endswith('to be continued')
  # Of 2 random and 22 online episodes, 4 of 10 transitions each are there.
  assert '20 episodes' in found['disk'] and '250 transitions' in found['memory']
  assert {p: p.stat().st_mtime_ns for p in logdir.rglob('*')} == before
  with pytest.raises(ConfigError, match='seed was 0'):
    preview(config.update(seed=1))


def test_what_would_fail_fails(tmp_path, monkeypatch):
  logdir = tmp_path / 'moto' / '0'
  with pytest.raises(ReplayError, match='no directory'):
    preview(settings(logdir, heldout_data=str(tmp_path / 'none')))
  with pytest.raises(ConfigError, match='moto_tf collect'):
    preview(settings(logdir, offline_data='auto'))
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(module.shutil, 'disk_usage', lambda path: usage(10, 9, 1))
  with pytest.raises(PreviewError, match='Make room'):
    preview(settings(logdir))
