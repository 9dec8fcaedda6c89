"""Settings that must be in place before TensorFlow and MuJoCo load."""

import collections
import importlib
import os
import pathlib
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('MUJOCO_GL', 'egl')

import pytest  # noqa: E402

# So that their asserts say what differed, too.
pytest.register_assert_rewrite(
  *(path.stem for path in pathlib.Path(__file__).parent.rglob('*helpers.py'))
)

TALLY = pytest.StashKey[dict]()


def pytest_addoption(parser):
  parser.addoption(
    '--fuzz', type=int, default=40, help='examples of each fuzzing test'
  )


@pytest.fixture
def tally(request):
  """Counts of outcomes by kind, which are shown at the end."""
  return request.config.stash.setdefault(TALLY, {})


def pytest_sessionfinish(session):
  """Processes that test side by side hand their counts to the first one."""
  if hasattr(session.config, 'workeroutput'):
    counts = session.config.stash.get(TALLY, {})
    session.config.workeroutput['tally'] = {
      kind: dict(counter) for kind, counter in counts.items()
    }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
  """Adds the counts of a process that has ended."""
  tally = node.config.stash.setdefault(TALLY, {})
  for kind, counts in (
    getattr(node, 'workeroutput', {}).get('tally', {}).items()
  ):
    tally.setdefault(kind, collections.Counter()).update(counts)


def pytest_terminal_summary(terminalreporter, config):
  for kind, counts in config.stash.get(TALLY, {}).items():
    text = ', '.join(
      f'{counts[name]} {name}'
      for name in ('clear', 'valid', 'unclear', 'traceback', 'accepted')
    )
    terminalreporter.write_line(f'{kind}: {counts.total()} tried, {text}')


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


@pytest.fixture(scope='module')
def toy():
  """The toy method: its module, registered for one file alone.

  Files of one process share imported modules, so that another file may have
  imported it, and taken it from the methods, before.
  """
  from moto_tf.agents import METHODS

  sys.modules.pop('toy_method', None)
  yield importlib.import_module('toy_method')
  METHODS.remove('linear')


@pytest.fixture
def graphs():
  """Leaves tf.function on for the tests that follow."""
  import tensorflow as tf

  yield
  tf.config.run_functions_eagerly(False)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """Log directory of a run that was never interrupted."""
  from run_helpers import make_run, tiny

  from moto_tf.training.algorithm import algorithm_1 as train

  logdir = tmp_path_factory.mktemp('run') / 'moto' / '0'
  with make_run(tiny(logdir)) as run:
    train(run)
  return logdir


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
  """Episodes to be exported to datasets of LeRobot, and their record."""
  from lerobot_helpers import LENGTHS, make

  from moto_tf.data import episodes

  directory = tmp_path_factory.mktemp('demos')
  for i, length in enumerate(LENGTHS):
    episodes.save_episode(directory, f'{i:06d}', make(length, i))
  (directory / 'dataset.json').write_text(
    '{"task": "metaworld_drawer-open", "env": {"action_repeat": 2}}'
  )
  return directory


@pytest.fixture
def changed(demos, tmp_path):
  """Makes a dataset of its own of them, to be broken."""
  from moto_tf.data import lerobot

  return lambda images='png': lerobot.export(
    demos, tmp_path, f'me/{images}', images=images
  )
