"""Trains in an environment of one's own, then evaluates the policy.

  python examples/own_environment.py [DIRECTORY]

A point in a square has to reach a goal within 20 steps. This is registered as
the suite `point` with the task `point_reach`, and with a simple controller as
its expert. Training starts on 20 episodes of the expert; then the policy
collects 30 episodes itself. All of it takes about two minutes on one core.
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np

import moto_tf
from moto_tf.data import record
from moto_tf.envs import Demonstrator, Env
from moto_tf.envs.gym import wrap_gym


class Reach(gymnasium.Env):
  """Observes (point, goal), each [2]; the action moves the point."""

  observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
  action_space = gymnasium.spaces.Box(-0.2, 0.2, (2,), np.float32)

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    self._point, self._goal = self.np_random.uniform(-1, 1, (2, 2))
    return self._observe(), {}

  def step(self, action):
    self._point = np.clip(self._point + action, -1, 1)
    near = bool(np.linalg.norm(self._point - self._goal) < 0.2)
    return self._observe(), float(near), False, False, {'success': near}

  def _observe(self):
    return np.concatenate([self._point, self._goal]).astype(np.float32)


def make(name: str, config) -> Env:
  """The environment of a task of this suite; config is its `env` part."""
  return wrap_gym(Reach(), config)


def expert(obs: dict) -> np.ndarray:
  """Action to the goal, in [-1, 1]; wrap_gym scales it to the bounds."""
  return np.clip(5 * (obs['state'][2:] - obs['state'][:2]), -1, 1)


def demonstrator(name: str, order: str = '') -> Demonstrator:
  """The expert's episodes that reach the goal, with noisy actions."""
  return Demonstrator(lambda seed: expert, lambda e: e['success'].any())


moto_tf.register_suite('point', make, demonstrator=demonstrator)


def main(directory: str = '~/logdir/examples/point_reach') -> None:
  root = Path(directory).expanduser()
  config = moto_tf.make_config(
    *('small', 'short', 'proprio'),
    {'env.time_limit': 20, 'env.action_repeat': 1, 'envs': 1},
    {'offline_steps': 300, 'online_steps': 300, 'updates_per_episode': 10},
    task='point_reach',
    offline_data=root / 'demos',
    logdir=root / 'moto' / '0',
  )
  recording = record.Recording(config.task, config.env, noise=0.3)
  record.collect(recording, root / 'demos', 20)
  moto_tf.train(config)
  result, _ = moto_tf.evaluate_run(config.logdir, episodes=20, force=True)
  print(f'Success in 20 episodes: {result["success"]:.2f}')


if __name__ == '__main__':
  main(*sys.argv[1:])
