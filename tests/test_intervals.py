"""Intervals of an evaluation: of its success, and of its return."""

import numpy as np
import pytest

from moto_tf.training import evaluation


@pytest.mark.parametrize(
  'hits, count, low, high',
  [
    # With z = 1.96: (share + z^2 / 2n +- z sqrt(...)) / (1 + z^2 / n).
    (5, 10, 0.2366, 0.7634),
    (0, 10, 0.0, 0.2775),
    (50, 50, 0.92865, 1.0),
    (1, 3, 0.0615, 0.7923),
  ],
)
def test_wilson_interval(hits, count, low, high):
  found = evaluation.wilson(hits, count)
  assert found == pytest.approx((low, high), abs=5e-5)
  assert 0 <= found[0] <= hits / count <= found[1] <= 1


def episode(reward, success=False):
  return {
    'reward': np.array([0, reward], np.float32),
    'success': np.array([False, success]),
  }


def test_intervals_of_an_evaluation():
  """1.5 +- 1.96 * 1.2910 / 2, by the deviation with N - 1."""
  rollouts = [episode(reward, reward > 1) for reward in range(4)]
  found = evaluation.summarise(rollouts, [5, 6, 7, 8])
  assert found['return'] == 1.5 and found['success'] == 0.5
  assert found['return_low'] == pytest.approx(0.2348, abs=5e-5)
  assert found['return_high'] == pytest.approx(2.7652, abs=5e-5)
  interval = found['success_low'], found['success_high']
  assert interval == pytest.approx((0.1500, 0.8500), abs=5e-5)


def test_one_episode_has_an_interval_of_success_alone():
  found = evaluation.summarise([episode(3, True)], [0])
  assert found['return_low'] == found['return'] == found['return_high'] == 3
  assert found['success_low'] == pytest.approx(0.2065, abs=5e-5)
  assert found['success_high'] == 1
