"""Trains offline on episodes of one's own, then evaluates the policy.

  python examples/own_data.py [DIRECTORY]

Episodes of any origin can be used once they are written in DreamerV2's layout:
record i of an episode holds an observation, the action that led to it and the
reward received with it; record 0 is the reset, with zero action and reward.
Here a simple controller plays in the environment of own_environment.py. All of
it takes about two minutes on one core.
"""

import sys
from pathlib import Path

import numpy as np
from own_environment import Reach

import moto_tf
from moto_tf.data.episodes import save_episode

STEPS = 20


def play(seed: int) -> dict[str, np.ndarray]:
  """An episode of a noisy controller, arrays [STEPS + 1, ...]."""
  env, rng = Reach(), np.random.default_rng(seed)
  state, _ = env.reset(seed=seed)
  rows = [(state, np.zeros(2), 0.0, False)]
  for _ in range(STEPS):
    # Actions are stored in [-1, 1], whatever the bounds of the environment.
    action = np.clip(5 * (state[2:] - state[:2]), -1, 1)
    action = np.clip(action + 0.3 * rng.normal(size=2), -1, 1)
    state, reward, _, _, info = env.step(0.2 * action)
    rows.append((state, action, reward, info['success']))
  states, actions, rewards, successes = zip(*rows, strict=True)
  index = np.arange(STEPS + 1)
  return {
    'state': np.array(states),
    'action': np.array(actions),
    'reward': np.array(rewards),
    'is_first': index == 0,
    'is_last': index == STEPS,
    'is_terminal': np.zeros(STEPS + 1, bool),  # It ends by its time limit.
    'success': np.maximum.accumulate(successes),
  }


def main(directory: str = '~/logdir/examples/point_reach') -> None:
  root = Path(directory).expanduser()
  for seed in range(200):
    save_episode(root / 'own', f'{seed:03d}', play(seed))
  config = moto_tf.make_config(
    *('small', 'short', 'proprio'),
    {'env.time_limit': STEPS, 'env.action_repeat': 1, 'envs': 1},
    {'offline_steps': 600, 'online_steps': 0},
    task='point_reach',
    variant='offline',
    offline_data=root / 'own',
    logdir=root / 'offline' / '0',
  )
  moto_tf.train(config)
  result, _ = moto_tf.evaluate_run(config.logdir, episodes=20, force=True)
  print(f'Success in 20 episodes: {result["success"]:.2f}')


if __name__ == '__main__':
  main(*sys.argv[1:])
