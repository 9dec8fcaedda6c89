"""Runs of agents without a world model: killed, continued, used elsewhere."""

import json

import golden_runs
import numpy as np
import pytest
from run_helpers import kill_at

import moto_tf
from moto_tf.envs.gym import wrap_gym
from moto_tf.training.algorithm import algorithm_1


def settings(logdir):
  """From images and state, eager, so that nothing has to be traced."""
  return moto_tf.make_config(
    'gym',
    'debug',
    'sac',
    {
      **golden_runs.SMALL,
      'replay.batch': 3,
      'task': 'custom_reach',
      'logdir': str(logdir),
      'precision': 'float32',
      'env_workers': 'none',
      'envs': 1,
      'offline_steps': 0,
      'online_steps': 6,
      'updates_per_episode': 2,
      'prefill_episodes': 2,
      'log_every': 1,
      'eval_every': 3,
      'checkpoint_every': 3,
      'env.image_size': golden_runs.SIZE,
    },
  )


def open_run(logdir):
  config = settings(logdir)
  make_env = lambda: wrap_gym(golden_runs.Reach(), config.env)
  return moto_tf.Run(config, make_env=make_env)


def rows(logdir):
  lines = (logdir / 'metrics.jsonl').read_text().splitlines()
  keep = ('train/', 'episode/', 'eval/', 'env_step', 'gradient_step')
  return [
    {k: v for k, v in row.items() if k.startswith(keep)}
    for row in map(json.loads, lines)
  ]


def test_killed_and_continued(tmp_path):
  """Online without demonstrations; equal numbers, weights and episodes."""
  whole, killed = tmp_path / 'whole' / '0', tmp_path / 'killed' / '0'
  with open_run(whole) as run:
    algorithm_1(run)
    expected = run.agent.save()
  with open_run(killed) as run:
    kill_at(run, 4)
    with pytest.raises(KeyError):
      algorithm_1(run)
  with open_run(killed) as run:
    assert run.gradient_step == 3
    algorithm_1(run)
    found = run.agent.save()
  assert rows(killed) == rows(whole)
  assert rows(whole)[-1]['gradient_step'] == 6
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)
  # Elsewhere, without simulator and data; it remembers frames alone.
  policy = moto_tf.load_policy(whole)
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
  state = np.zeros(2, np.float32)
  observe = lambda i: policy({'image': image[i], 'state': state})
  first, second = observe(0), observe(1)
  policy.reset()
  np.testing.assert_array_equal(observe(0), first)
  np.testing.assert_array_equal(observe(1), second)
  policy.reset()
  assert (observe(1) != second).any()
