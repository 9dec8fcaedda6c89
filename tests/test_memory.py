"""Settings beyond the machine's memory are refused before anything is built."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import ACT, SPACES, make_agent, tiny_config

import moto_tf
from moto_tf import memory
from moto_tf.agents import make_agent as make
from moto_tf.agents import sizes
from moto_tf.commands import train
from moto_tf.presets import load_configs, make_config
from moto_tf.rules import ConfigError
from moto_tf.training import evaluation


@pytest.fixture
def small_machine(monkeypatch):
  monkeypatch.setattr(memory, 'machine', lambda: 8 * memory.GIB)


def test_this_machine():
  assert 2**29 < memory.machine() < 2**44
  # A GPU adds what settings may need, not what processes of the host may.
  host, exists = memory.host(), Path.exists
  gpu = lambda path: str(path) == '/dev/nvidia0' or exists(path)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Path, 'exists', gpu)
    assert memory.machine() == host + memory.GPU and memory.host() == host


def test_presets_fit_a_small_machine(small_machine):
  configs = load_configs()
  for name in configs.presets:
    memory.check(configs.make(name))


@pytest.mark.parametrize(
  'key, value',
  [
    ('rssm.deter', 10**12),
    ('replay.batch', 10**8),
    ('replay.prefetch', 10**6),
    ('env.image_size', 100_000),
    ('env.time_limit', 10**9),
    ('eval_episodes', 10**7),
    ('horizon', 10**7),
    ('encoder.cnn_depth', 10**6),
    ('moto.start_states', 0),
  ],
)
def test_what_would_fit_is_said(small_machine, key, value):
  more = {'replay.batch': 10**5} if key == 'moto.start_states' else {}
  config = make_config({key: value, **more})
  with pytest.raises(ConfigError, match='8.0 GiB of memory') as error:
    memory.check(config)
  key = 'replay.batch' if more else key
  found = re.search(rf'--{key} (\d+)', str(error.value))
  need = lambda value: sum(
    memory.estimate(config.replace({key: value})).values()
  )
  assert need(int(found[1])) <= memory.machine() < need(int(found[1]) + 1)


def test_several_that_are_too_large_and_lists(small_machine):
  with pytest.raises(ConfigError, match='Lower replay.batch, rssm.deter toget'):
    memory.check(make_config({'rssm.deter': 10**9, 'replay.batch': 10**9}))
  layers = {'actor.layers': [10**6, 10**6]}
  with pytest.raises(ConfigError, match='--actor.layers 400,400,400,400 would'):
    memory.check(make_config(layers))


def test_the_estimate_is_near(agent):
  """Below what is there, but not by much."""
  for made in (agent, make_agent(tiny_config(rssm__deter=200))):
    variables = made.variables()
    trained = [v for k, v in variables.items() if '_opt/mean/' in k]
    size = lambda x: sum(int(np.prod(v.shape)) for v in x) * sizes.NUMBER
    real = size(variables.values()) + size(trained)
    assert 0.5 * real < sizes.weights(made._config) < 1.05 * real


def test_nothing_is_written_before(tmp_path):
  argv = ['--logdir', str(tmp_path / 'run'), '--rssm.deter', '1e12']
  with pytest.raises(SystemExit, match='settings need about .* would fit'):
    train.main(argv)
  with pytest.raises(SystemExit, match='settings need about .* would fit'):
    train.main([*argv, '--dry-run'])
  assert not list(tmp_path.iterdir())


def test_agents_and_rollouts(small_machine):
  """A config.yaml that was changed, and more episodes than can be held."""
  with pytest.raises(ConfigError, match='GiB for weights'):
    make(tiny_config(rssm__deter=10**9), SPACES, ACT)
  with pytest.raises(ConfigError, match='GiB for 1,000,000 episodes'):
    evaluation.roll_out(None, moto_tf.make_config('metaworld'), 10**6)


def test_latent_buffers_of_agents_that_act_alone():
  """Collectors hold them, too; a checkpoint copies those of the learner."""
  three = {'collect': 'async', 'collectors': 3}
  one, two = (
    memory.estimate(
      make_config('metaworld', 'lompo', {**three, 'latent.capacity': size})
    )
    for size in (10**4, 10**5)
  )
  more = {key: two[key] - value for key, value in one.items()}
  assert more['collectors'] == 3 / 2 * more['latent buffers'] > 10**8


def test_start_states_of_methods_that_draw_none():
  """DreamerV2 imagines from every state of a batch."""

  def of_a_step(*names):
    """Bytes of one imagined step, of one prior."""
    one, two = (
      sizes.gradient_step(
        make_config('metaworld', *names, {'rssm.ensemble': 1, 'horizon': x})
      )
      for x in (2, 3)
    )
    return two - one

  records = 16 * 50
  assert of_a_step('moto') == of_a_step('dreamerv2_paper')
  assert of_a_step('dreamerv2') * 128 == of_a_step('moto') * records


def test_interval_of_returns_that_cannot_be_negative():
  """Cut at 0 where no reward is negative, as Wilson's is for success."""
  episode = lambda *reward: {
    'reward': np.float32(reward), 'success': np.array([False])
  }  # fmt: skip
  rollouts = [episode(0, 0), episode(0, 0), episode(0, 5)]
  found = evaluation.summarise(rollouts, [0, 1, 2])
  assert found['return_low'] == 0 < found['return'] < found['return_high']
  rollouts[0] = episode(0, -1)
  assert evaluation.summarise(rollouts, [0, 1, 2])['return_low'] < 0
