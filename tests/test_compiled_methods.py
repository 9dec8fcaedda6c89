"""The paper's other methods with XLA: as in eager steps."""

import numpy as np
import pytest
from agent_helpers import train
from helpers import make_agent
from latent_helpers import latent_config
from model_free_naive import make_data, make_free

pytestmark = pytest.mark.usefixtures('graphs')


def check(agent, steps, expected, first):
  """Metrics and weights of `agent` are those of the eager `expected`.

  Args:
    steps: metrics of both, by step.
    first: weights that both had at first.
  """
  for one, other in zip(*steps, strict=True):
    assert list(one) == list(other)
    for name, value in other.items():
      assert one[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
  arrays, wanted = agent.save(), expected.save()
  for key, value in wanted.items():
    np.testing.assert_allclose(arrays[key], value, 1e-2, 1e-3, err_msg=key)
  actor = [key for key in wanted if key.startswith('actor/')]
  assert any(np.any(wanted[key] != first[key]) for key in actor)
  for name, function in agent.functions.items():
    assert function.experimental_get_tracing_count() <= 1, name


@pytest.mark.parametrize('method', ['bc', 'sac', 'cql', 'iql'])
def test_model_free_methods(method):
  eager, config = make_free(method)
  agent, _ = make_free(method, eager=False, jit=True)
  first, data = eager.save(), make_data(config)
  expected = [eager.train(data, step) for step in range(3)]
  found = [agent.train(data, step) for step in range(3)]
  check(agent, (found, expected), eager, first)


def test_latent_method():
  """Model alone, then behavior alone: LOMPO's does a part of COMBO's."""
  config = latent_config('combo')
  eager = make_agent(config)
  agent = make_agent(config.update({'eager': False, 'jit': True}))
  first, expected = eager.save(), train(eager, config, 8)
  found = train(agent, config, 8)
  assert 'critic_loss' not in found[3] and 'critic_loss' in found[4]
  check(agent, (found, expected), eager, first)
