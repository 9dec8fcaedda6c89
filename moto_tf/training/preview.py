"""What a run would do and need, without starting it (--dry-run)."""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from moto_tf import memory
from moto_tf.agents import METHODS, make_agent
from moto_tf.config import Config
from moto_tf.data import episodes as episode_files
from moto_tf.envs.driver import Driver, random_policy
from moto_tf.errors import MotoError
from moto_tf.progress import duration
from moto_tf.training import machine, meta, rundir
from moto_tf.training.checkpoint import Checkpoints
from moto_tf.training.session import open_replay

STEPS = 3  # Gradient steps that are timed, after the first one.


class PreviewError(MotoError, RuntimeError):
  """The run would not get to its end; the message says why."""


def preview(config: Config) -> str:
  """Checks data, spaces, disk, memory and time of a run.

  Everything that could fail at its start is done for real: the environment
  plays a random episode, the data is read, the agent is built and takes a few
  gradient steps, which are thrown away. The log directory is not touched.

  Returns:
    Lines for the terminal.

  Raises:
    MotoError: what the run itself would end with.
  """
  memory.check(config)
  logdir = config.path('logdir')
  offline = rundir.find_offline(config)
  checkpoints = Checkpoints(
    logdir / 'checkpoints', config.checkpoint_keep, meta.check
  )
  loaded = checkpoints.load()
  if loaded:
    path = logdir / 'config.yaml'
    config = rundir.keep_added(path, config, loaded[1])
    rundir.check_changes(path, config, loaded[1])
  driver = Driver(rundir.env_maker(config), 1, config.env_workers)
  try:
    begin = time.perf_counter()
    (episode,) = driver.run(random_policy(driver.act_space), [0])
    episode_seconds = time.perf_counter() - begin
    # As if of a demonstration, so that what is timed clones.
    episode['success'][:] = True
    agent = make_agent(config, driver.obs_space, driver.act_space)
    if loaded:
      agent.load(loaded[0])
    with tempfile.TemporaryDirectory() as directory:
      path = episode_files.save_episode(Path(directory), 'random', episode)
      size = path.stat().st_size
      if heldout := config.path('heldout_data'):
        print('Held-out episodes:')
        open_replay(config, agent, driver, heldout, None, None, heldout=True)
      if not offline:
        print('No demonstrations; a random episode stands for the data.')
      config = config.update({'replay.offline_episodes': 0})
      data = offline or Path(directory)
      replay = open_replay(config, agent, driver, data, None, None)
  finally:
    driver.close()
  batch = replay.sample(0)
  agent.fit(replay.records)
  seconds = []
  for step in range(1 + STEPS):
    begin = time.perf_counter()
    agent.train(batch, step)
    seconds.append(time.perf_counter() - begin)
  done = loaded[1]['counters'] if loaded else {}
  plan = _plan(config, len(episode['reward']) - 1, done)
  arrays = sum(v.nbytes for v in agent.save().values())
  lines = [
    ('method', f'{METHODS[config.method].label} on {config.task}'),
    ('log directory', f'{logdir}{", to be continued" if loaded else ""}'),
    ('demonstrations', str(offline or 'none')),
    ('observations', _spaces(agent)),
    *_memory(agent, replay, arrays, plan, config),
    *_disk(logdir, arrays, size, plan, config),
    *_time(float(np.median(seconds[1:])), seconds[0], episode_seconds, plan),
  ]
  lines += [('', remark) for remark in agent.remarks]
  return '\n'.join(f'{name:<16}{text}' for name, text in lines)


def _plan(config, length, done):
  """Gradient steps, episodes and evaluations that are still to do."""
  total, begun = rundir.total_steps(config), done.get('gradient_step', 0)
  steps = max(0, total - begun)
  coming = range(begun + 1, total + 1)
  episodes = -(-config.online_steps // config.updates_per_episode)
  offline = rundir.offline_dir(config, config.path('logdir'))
  episodes += rundir.prefill_episodes(config, offline)
  evaluations = steps // config.eval_every if config.eval_every else 0
  return {
    'steps': steps,
    'length': length,
    'episodes': max(0, episodes - done.get('episode', 0)),
    'evaluations': evaluations + 2,
    'milestones': sum(rundir.is_milestone(config, step) for step in coming),
    'eval_episodes': config.eval_episodes,
    'envs': min(config.envs, config.eval_episodes),
    'collected': done.get('agent_step', 0),
  }


def _spaces(agent):
  spaces = {k: agent.obs_space[k] for k in agent.obs_keys}
  parts = [f'{k} {tuple(v.shape)} {v.dtype}' for k, v in spaces.items()]
  return f'{", ".join(parts)}; {agent.act_space.shape[0]} actions'


def _memory(agent, replay, arrays, plan, config):
  """Of the process now, and of the replay at its end."""
  held = replay.stats()['transitions'] + plan['collected']
  record = sum(
    int(np.prod(agent.obs_space[k].shape)) * agent.obs_space[k].dtype.itemsize
    for k in agent.obs_keys
  )
  added = plan['episodes'] * plan['length']
  most = min(config.replay.capacity, held + added)
  growth = max(0, most - held) * record / 2**30
  peak = machine.peak_memory_gib()
  parameters = sum(int(np.prod(v.shape)) for v in agent.variables().values())
  return [
    ('variables', f'{parameters:,} numbers, {arrays / 2**20:,.0f} MiB saved'),
    (
      'memory',
      f'{peak:.1f} GiB at its peak so far, about {peak + growth:.1f} GiB at '
      f'the end with {most:,} transitions',
    ),
  ]


def _disk(logdir, arrays, size, plan, config):
  place = next(p for p in (logdir, *logdir.absolute().parents) if p.exists())
  free = shutil.disk_usage(place).free
  kept = (config.checkpoint_keep + 1 + plan['milestones']) * arrays
  need = kept + plan['episodes'] * size
  text = (
    f'about {need / 2**30:.2f} GiB: {config.checkpoint_keep} checkpoints, '
    f'{plan["milestones"]:,} milestones of {arrays / 2**20:,.0f} MiB and '
    f'{plan["episodes"]:,} episodes; {free / 2**30:.1f} GiB are free'
  )
  if need > free:
    raise PreviewError(
      f'The run needs {text} in {place}. Make room, or choose another --logdir.'
    )
  return [('disk', text)]


def _time(step, first, episode, plan):
  evaluation = plan['eval_episodes'] / plan['envs'] * episode
  parts = {
    'gradient steps': plan['steps'] * step,
    'episodes': plan['episodes'] * episode,
    'evaluations': plan['evaluations'] * evaluation,
  }
  total = first + sum(parts.values())
  text = ', '.join(f'{name} {duration(x)}' for name, x in parts.items())
  return [
    (
      'speed',
      f'{step:.3f} s per gradient step ({STEPS} steps), the first one '
      f'{first:.0f} s; {episode:.1f} s per episode of {plan["length"]} agent '
      'steps, without the policy',
    ),
    ('time', f'about {duration(total)}: {text}'),
  ]
