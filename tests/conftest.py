"""Settings that must be in place before TensorFlow and MuJoCo load."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('MUJOCO_GL', 'egl')

import pytest  # noqa: E402


@pytest.fixture(scope='module')
def agent():
  """Weights are random throughout and the target critics differ."""
  from helpers import make_agent, randomize, tiny_config

  agent = make_agent(tiny_config())
  randomize(agent)
  return agent


@pytest.fixture(scope='module')
def learned(agent):
  """Posterior states and preprocessed data with an episode start inside."""
  from helpers import make_batch, tiny_config
  from moto_naive import posterior

  return posterior(agent, make_batch(tiny_config(), firsts=((0, 3), (1, 2))))
