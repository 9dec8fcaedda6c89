"""The setting env_timeout reaches every environment that a run steps in.

What becomes of one that hangs is in tests/envs/test_failures.py.
"""

import os

import pytest
from test_collectors import Point, configure

from moto_tf.envs.driver import Driver
from moto_tf.training import collectors, evaluation, session
from moto_tf.training.algorithm import algorithm_1
from moto_tf.training.run import Run

SECONDS = 7.5

pytestmark = pytest.mark.usefixtures('toy')


@pytest.fixture
def drivers(monkeypatch):
  """What the drivers of a run were made with, from here on."""
  found = []

  class Noted(Driver):
    def __init__(
      self, make_env, count=1, workers='process', timeout=None, check=None
    ):
      found.append({'count': count, 'workers': workers, 'timeout': timeout})
      super().__init__(make_env, count, workers, timeout, check)

  for module in (session, evaluation, collectors):
    monkeypatch.setattr(module, 'Driver', Noted)
  return found


def test_of_training_and_its_evaluations(tmp_path, drivers):
  config = configure(tmp_path, collect='turns', env_timeout=SECONDS, envs=2)
  with Run(config.update(eval_episodes=3), Point) as run:
    algorithm_1(run)
    agent = run.agent
  assert [x['count'] for x in drivers] == [1, 2]
  evaluation.roll_out(agent, config, 2, make_env=Point)
  assert len(drivers) == 3
  assert all((x['timeout'], x['workers']) == (SECONDS, 'none') for x in drivers)


def test_of_collectors(tmp_path, drivers, monkeypatch):
  # It hides GPUs from its process, which here is that of the tests.
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
  config = configure(tmp_path, env_timeout=SECONDS)
  collectors.Player(config, Point, os.getppid())
  assert drivers == [{'count': 1, 'workers': 'none', 'timeout': SECONDS}]
