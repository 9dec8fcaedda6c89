"""The agent: precision, compilation, resuming, and other weights."""

import numpy as np
import pytest
import tensorflow as tf
from agent_helpers import make, train
from helpers import make_batch

from moto_tf.agents.base import MismatchError

pytestmark = pytest.mark.usefixtures('graphs')


def assert_near(one, other, rel, names):
  for name in names:
    assert one[name] == pytest.approx(other[name], rel=rel, abs=rel), name


def to_floats(metrics):
  return {k: float(v) for k, v in metrics.items()}


def losses(metrics):
  return [k for k in metrics if k.endswith('_loss')]


@pytest.fixture(scope='module')
def compiled():
  """A compiled MOTO agent, before and after the last two of five steps."""
  tf.config.run_functions_eagerly(False)
  agent, config = make(eager=False, slow_target_update=2)
  first, saved = train(agent, config, 3), agent.save()
  metrics = [*first, *train(agent, config, 2, first=3)]
  return agent, config, metrics, saved


def check_compiled(agent, metrics, expected):
  """Compared with eager steps, and traced once in all of them."""
  assert agent.functions['model'].experimental_get_tracing_count() == 1
  assert agent.functions['behavior'].experimental_get_tracing_count() == 1
  assert all(np.isfinite(v) for m in metrics for v in m.values())
  assert {type(v) for v in metrics[0].values()} == {float}
  for one, other in zip(metrics, expected, strict=True):
    assert list(one) == list(other)
    assert_near(one, other, 1e-3, one)
  assert agent.seconds > 0


def test_compiled_moto_traces_once_and_equals_eager_steps(compiled):
  agent, _, metrics, _ = compiled
  eager, config = make(slow_target_update=2)
  check_compiled(agent, metrics[:3], train(eager, config, 3))


def test_compiled_dreamer_traces_once_and_equals_eager_steps():
  agent, config = make('dreamer', eager=False)
  metrics = train(agent, config, 3)
  eager, config = make('dreamer')
  check_compiled(agent, metrics, train(eager, config, 3))


@pytest.mark.parametrize('behavior', ['moto', 'dreamer'])
def test_low_precision_stays_near_float32(behavior):
  """Losses of the first steps agree within 5 percent."""
  full, config = make(behavior)
  expected = train(full, config, 2)
  for precision, count in (('mixed_float16', 3), ('mixed_bfloat16', 0)):
    low, _ = make(behavior, precision=precision)
    # At this scale nothing overflows, so that no step is skipped.
    assert scale_losses(low, 64) == count
    metrics = train(low, config, 2)
    for one, other in zip(metrics, expected, strict=True):
      assert all(np.isfinite(v) for v in one.values())
      assert_near(one, other, 0.05, losses(other))
    assert {v.dtype for v in low.model.variables} == {tf.float32}


def scale_losses(agent, scale):
  """Sets the loss scales; returns how many there are."""
  arrays = agent.save()
  scales = [k for k in arrays if 'loss_scale/value' in k]
  agent.load({**arrays, **dict.fromkeys(scales, np.float32(scale))})
  return len(scales)


def test_float16_recovers_from_overflow():
  """Steps that overflow are skipped, until the scale is small enough."""
  agent, config = make(precision='mixed_float16')
  scale_losses(agent, 2.0**18)
  before = {k: v.numpy() for k, v in agent.model.named_variables().items()}
  metrics = train(agent, config, 1)
  assert metrics[0]['model_skipped'] == 1
  for key, var in agent.model.named_variables().items():
    np.testing.assert_array_equal(var, before[key])
  metrics = train(agent, config, 8, first=1)
  for name in ('model', 'actor', 'critic'):
    assert metrics[-1][f'{name}_skipped'] == 0
    assert metrics[-1][f'{name}_grad_norm'] > 0
    assert np.isfinite([m[f'{name}_loss'] for m in metrics]).all()
    assert metrics[-1][f'{name}_loss_scale'] < 2**18
  for key, var in agent.model.named_variables().items():
    assert np.any(var.numpy() != before[key])


SHORT = {'replay__batch': 2, 'replay__length': 3, 'horizon': 2}


def test_xla_gives_the_same_losses():
  plain, config = make(moto__start_states=4, **SHORT)
  agent, _ = make(moto__start_states=4, jit=True, eager=False, **SHORT)
  metrics = train(agent, config, 2)
  tf.config.run_functions_eagerly(True)
  expected = train(plain, config, 2)
  for one, other in zip(metrics, expected, strict=True):
    assert_near(one, other, 1e-3, one)
  assert agent.functions['model'].experimental_get_tracing_count() == 1


def test_xla_gives_the_same_losses_of_dreamer():
  """The behavior alone, for the time compiling takes."""
  plain, config = make('dreamer', **SHORT)
  agent, _ = make('dreamer', jit=True, eager=False, **SHORT)
  data = {k: tf.constant(v) for k, v in make_batch(config).items()}
  seed = tf.constant([1, 2])
  _, post, _ = agent.model.loss(agent.model.preprocess(data), seed)
  metrics = to_floats(agent.functions['behavior'](post, data, seed))
  tf.config.run_functions_eagerly(True)
  expected = to_floats(plain.functions['behavior'](post, data, seed))
  assert_near(metrics, expected, 1e-3, metrics)


def check_resume(other, config, saved, expected, final):
  """`other` has to go on from `saved` to these metrics and weights."""
  assert any(np.any(saved[k] != v) for k, v in other.save().items())
  other.load(saved)
  for key, value in other.save().items():
    np.testing.assert_array_equal(value, saved[key], err_msg=key)
    assert value.dtype == saved[key].dtype
  assert train(other, config, 2, first=3) == expected
  for key, value in other.save().items():
    np.testing.assert_array_equal(value, final[key], err_msg=key)


def test_a_loaded_agent_continues_bit_for_bit(compiled):
  agent, config, metrics, saved = compiled
  other, _ = make(eager=False, slow_target_update=2)
  train(other, config, 1, first=9)
  check_resume(other, config, saved, metrics[3:], agent.save())


def test_a_loaded_float16_dreamer_continues_bit_for_bit():
  settings = {'precision': 'mixed_float16', 'slow_target_update': 2}
  agent, config = make('dreamer', **settings)
  train(agent, config, 3)
  saved = agent.save()
  metrics = train(agent, config, 2, first=3)
  other, _ = make('dreamer', **settings)
  check_resume(other, config, saved, metrics, agent.save())


def test_everything_that_learning_changes_is_saved():
  agent, config = make(slow_target_update=1)
  before = agent.save()
  train(agent, config, 2)
  after = agent.save()
  assert list(before) == list(after)
  same = {k for k in after if np.array_equal(before[k], after[k])}
  assert same == {k for k in after if 'learning_rate' in k}
  groups = {k.split('/')[0] for k in after}
  assert groups == {
    *('model', 'actor', 'critics'),
    *('model_opt', 'actor_opt', 'critic_opt'),
  }


def test_loading_keeps_the_configured_learning_rate():
  """A run continued with another learning rate uses it."""
  agent, config = make()
  train(agent, config, 1)
  rates = {f'{k}_opt__lr': 1e-12 for k in ('model', 'actor', 'critic')}
  decay = {f'{k}_opt__wd': 0.0 for k in ('model', 'actor', 'critic')}
  other, config = make(**rates, **decay)
  other.load(agent.save())
  train(other, config, 1, first=1)
  for key, var in agent.model.named_variables('model/').items():
    np.testing.assert_allclose(other.variables()[key], var, atol=1e-8)


def test_a_checkpoint_serves_at_any_precision():
  """From a GPU in float16 to a CPU in float32 and back."""
  low, config = make(precision='mixed_float16')
  train(low, config, 1)
  saved = low.save()
  scale = [k for k in saved if 'loss_scale' in k]
  assert scale
  high, _ = make(seed=1)
  high.load(saved)
  for key, value in high.save().items():
    np.testing.assert_array_equal(value, saved[key], key)
  back, _ = make(seed=2, precision='mixed_float16')
  fresh = back.save()
  back.load(high.save())
  for key, value in back.save().items():
    wanted = fresh[key] if key in scale else saved[key]
    np.testing.assert_array_equal(value, wanted, key)


def test_a_policy_needs_no_critics_or_optimizers():
  agent, config = make()
  train(agent, config, 1)
  saved = agent.save()
  other, _ = make(seed=1)
  before = other.save()
  other.load(saved, policy_only=True)
  for key, value in other.save().items():
    acts = key.startswith(('model/encoder/', 'model/rssm/', 'actor/'))
    acts &= not key.startswith('model/rssm/prior/')
    wanted = saved[key] if acts else before[key]
    np.testing.assert_array_equal(value, wanted, key)


def test_loading_other_sizes_is_a_clear_error():
  agent, _ = make()
  before = agent.save()
  other, _ = make(rssm__deter=24, rssm__hidden=16)
  with pytest.raises(MismatchError) as error:
    agent.load(other.save())
  for part in ('model/rssm/gru_kernel float32[40, 72]', '48', 'config.yaml'):
    assert part in str(error.value), part
  for key, value in agent.save().items():
    np.testing.assert_array_equal(value, before[key])


def test_loading_another_behavior_is_a_clear_error():
  agent, _ = make(rssm__ensemble=1)
  other, _ = make('dreamer')
  with pytest.raises(MismatchError, match='arrays differ.*critics/online'):
    agent.load(other.save())
  arrays = {k: v for k, v in agent.save().items() if 'reward' not in k}
  with pytest.raises(MismatchError, match='arrays differ.*model/reward'):
    agent.load({**arrays, 'surplus': np.zeros(1)})


def test_layer_norm_without_biases_is_a_clear_error():
  """As checkpoints of 0.1 have it."""
  agent, _ = make(rssm__norm='layer', critic__norm='layer')
  old = {k: v for k, v in agent.save().items() if 'offset' not in k}
  old['model/rssm/gru_offset'] = agent.save()['model/rssm/gru_offset']
  with pytest.raises(MismatchError, match='critics/online/offset.*version'):
    agent.load(old)


def test_training_is_a_function_of_batch_step_and_seed():
  runs = []
  for seed in (0, 0, 1):
    agent, config = make(seed=seed)
    runs.append(train(agent, config, 2))
  assert runs[0] == runs[1]
  assert runs[0][0]['kl_loss'] != runs[2][0]['kl_loss']
  agent, config = make()
  batch = make_batch(config)
  results = []
  for step in (1, 1, 2):
    agent, _ = make()
    results.append(agent.train(batch, step))
  assert results[0] == results[1] != results[2]
