"""Trains in an environment of one's own, then evaluates the policy.

  python examples/own_environment.py [LOGDIR]

The environment is a point in a square that has to reach a goal within 20
steps. It is registered as the suite `point`, whose one task is `point_reach`.
Learning starts online, from five random episodes.
"""

import sys

import gymnasium
import numpy as np

import moto_tf
from moto_tf.envs import Env, EnvError
from moto_tf.envs.gym import wrap_gym

STEPS = 20


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
    distance = np.linalg.norm(self._point - self._goal)
    info = {'success': bool(distance < 0.2)}
    return self._observe(), float(-distance), False, False, info

  def _observe(self):
    return np.concatenate([self._point, self._goal]).astype(np.float32)


def make(name: str, config) -> Env:
  """The environment of a task of this suite; config is its `env` part."""
  if name != 'reach':
    raise EnvError(f'There is no task {name!r}, only reach.')
  return wrap_gym(Reach(), config)


moto_tf.register_suite('point', make)


def success(config: moto_tf.Config, episodes: int = 20) -> float:
  """Share of episodes in which the trained policy reaches the goal."""
  policy = moto_tf.load_policy(config.logdir)
  env = moto_tf.make_env(config.task, config.env)
  reached = 0
  for seed in range(episodes):
    policy.reset()
    record = env.reset(seed)
    while not record['is_last']:
      record = env.step(policy(record))
    reached += bool(record['success'])
  return reached / episodes


def main(logdir: str = '~/logdir/examples/point_reach/moto/0') -> None:
  config = moto_tf.make_config(
    *('gym', 'small', 'short', 'proprio'),
    {'env.time_limit': STEPS, 'online_steps': 600, 'updates_per_episode': 10},
    env_workers='none',  # Nothing is rendered.
    task='point_reach',
    logdir=logdir,
  )
  moto_tf.train(config)
  print(f'Success in 20 new episodes: {success(config):.2f}')


if __name__ == '__main__':
  main(*sys.argv[1:])
