"""Writes kitchen data in the layouts of others, from arrays of our episodes."""

import h5py
import numpy as np

from moto_tf.envs.kitchen import tasks as kitchen


def write_minari(path, episodes):
  """The layout of D4RL/kitchen/*-v2; returns the folder of the dataset."""
  (path / 'data').mkdir(parents=True)
  with h5py.File(path / 'data' / 'main_data.hdf5', 'w') as file:
    for index, episode in enumerate(episodes):
      steps = len(episode['reward']) - 1
      group = file.create_group(f'episode_{index}')
      group.attrs['id'], group.attrs['total_steps'] = index, steps
      group['actions'] = episode['action'][1:].astype(np.float64)
      group['rewards'] = episode['reward'][1:].astype(np.float64)
      group['terminations'] = np.arange(steps) == steps - 1
      group['truncations'] = np.zeros(steps, bool)
      group['observations/observation'] = episode['state'].astype(np.float64)
      for target in kitchen.TASKS['mixed']:
        index, goal = kitchen.GOALS[target]
        positions = episode['qpos'][:, list(index)].astype(np.float64)
        group[f'observations/achieved_goal/{target}'] = positions
        goals = np.tile(goal, (steps + 1, 1))
        group[f'observations/desired_goal/{target}'] = goals
  return path


def write_d4rl(path, episodes, **changes):
  """The layout of D4RL's HDF5; the last action of an episode leads nowhere."""
  goal = np.zeros(30, np.float32)
  columns = {'observations': [], 'actions': [], 'rewards': [], 'terminals': []}
  for episode in episodes:
    records = len(episode['reward'])
    columns['observations'].append(
      np.concatenate([episode['qpos'], np.tile(goal, (records, 1))], -1)
    )
    actions = np.concatenate([episode['action'][1:], np.full((1, 9), 0.5)])
    columns['actions'].append(actions.astype(np.float32))
    columns['rewards'].append(episode['reward'])
    columns['terminals'].append(
      (np.arange(records) == records - 1).astype(np.float32)
    )
  columns = {k: np.concatenate(v) for k, v in columns.items()} | changes
  with h5py.File(path, 'w') as file:
    for key, value in columns.items():
      if value is not None:
        file.create_dataset(key, data=value, compression='gzip')
  return path


def write_mjl(path, episode, mocap=1, sensors=2, user=3, sizes=(30, 29, 9)):
  """A log of MuJoCo with a record every 2 ms, 40 for each step.

  Between the steps it holds other numbers, which must not be read.
  """
  state, qpos = episode['state'], episode['qpos']
  velocity = np.concatenate([state[:, 9:18], state[:, 39:]], -1)
  action = np.concatenate([episode['action'][1:], np.zeros((1, 9))])
  # What the controller of the teleoperation aimed at.
  control = qpos[:, :9] + action * 2 * 0.08
  rows = []
  extra = 7 * mocap + sensors + user
  for i in range(len(qpos)):
    values = [qpos[i], velocity[i], control[i], np.full(extra, 7.0)]
    values = np.concatenate(values)
    for j in range(40):
      row = values if j == 0 else np.full(len(values), 99.0)
      rows.append(np.concatenate([[1.5 + 0.002 * (40 * i + j)], row]))
  name = b'kitchen\0'
  header = np.array([*sizes, mocap, sensors, user, len(name)], '<i4')
  path.parent.mkdir(parents=True, exist_ok=True)
  data = header.tobytes() + name + np.array(rows, '<f4').tobytes()
  path.write_bytes(data)
  return path


def write_d5rl(path, episode, large=None, **changes):
  """DreamerV2's layout with rewards by object and several images."""
  records = len(episode['reward'])
  arrays = {
    'action': episode['action'],
    'proprio': episode['state'][:, :9],
    'image': episode['image'],
    'image_128': np.zeros((records, 128, 128, 3), np.uint8),
    'extra_image_camera_gripper_rgb': episode['image'][::-1],
    'init_qpos': episode['qpos'][0],
    'discount': np.ones(records, np.float32),
  }
  for name, (index, goal) in kitchen.GOALS.items():
    distance = np.linalg.norm(
      episode['qpos'][:, list(index)] - np.array(goal), axis=-1
    )
    arrays[f'reward {name}'] = (distance < 0.3).astype(np.float32)
  if large is not None:
    arrays['extra_image_camera_12_rgb'] = large
  arrays |= changes
  path.parent.mkdir(parents=True, exist_ok=True)
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return path
