"""How long a run takes and what it needs, from a few steps of it."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from moto_tf import memory
from moto_tf.agents import make_agent
from moto_tf.config import Config
from moto_tf.data import episodes as episode_files
from moto_tf.envs.driver import Driver, random_policy
from moto_tf.training import machine, meta, rundir
from moto_tf.training.checkpoint import Checkpoints
from moto_tf.training.session import open_replay

STEPS = 3  # Gradient steps that are timed, after the first one.
ACTIONS = 5  # Likewise actions.


@dataclasses.dataclass(frozen=True)
class Measured:
  """What a few steps of a run took, in seconds, bytes and counts.

  Attributes:
    first, step: the first gradient step, and one of the later ones.
    report, save: an open-loop report, and a checkpoint.
    environment: the start of an environment.
    episode: a random episode of `length` agent steps.
    action: one action of the policy.
    arrays: bytes of a checkpoint.
    saved: bytes of an episode on disk.
    record: bytes of a transition in memory.
    held: transitions of the demonstrations.
    peak: bytes of memory so far.
    cores: that the process may use.
  """

  first: float
  step: float
  report: float
  save: float
  environment: float
  episode: float
  length: int
  action: float
  arrays: int
  saved: int
  record: int
  held: int
  peak: int
  cores: int


@dataclasses.dataclass(frozen=True)
class Forecast:
  """What is left of a run: seconds by part, bytes of disk and memory.

  Attributes:
    episodes: to collect.
    milestones: checkpoints that are kept for good.
    transitions: held in memory at the end.
  """

  seconds: dict[str, float]
  disk: int
  memory: int
  episodes: int
  milestones: int
  transitions: int


def measure(
  config: Config,
  offline: Path | None,
  loaded: tuple | None = None,
  use: Callable = lambda agent: None,
) -> Measured:
  """Does what a run does, for a moment; the log directory is not touched.

  The environment plays a random episode, the data is read, the agent is built
  and takes a few gradient steps, which are thrown away.

  Args:
    config: of the run.
    offline: directory of demonstrations; None: a random episode stands for
      them.
    loaded: a checkpoint to start from, of `Checkpoints.load`.
    use: called with the agent at the end.

  Raises:
    MotoError: what the run itself would end with.
  """
  begin = time.perf_counter()
  make_env = rundir.env_maker(config)
  driver = Driver(make_env, 1, config.env_workers, config.env_timeout)
  play = lambda i: driver.run(random_policy(driver.act_space), [i])
  try:
    (episode,) = play(0)
    environment = time.perf_counter() - begin
    (played,) = _seconds(play, 1)
    # As if of a demonstration, so that what is timed clones.
    episode['success'][:] = True
    agent = make_agent(config, driver.obs_space, driver.act_space)
    if loaded:
      agent.load(loaded[0])
    with tempfile.TemporaryDirectory() as directory:
      path = episode_files.save_episode(Path(directory), 'random', episode)
      saved = path.stat().st_size
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
  # The last ones, in which everything learns that is to learn at all.
  last = max(0, rundir.total_steps(config) - 1 - STEPS)
  train = lambda i: agent.train(batch, last + i)
  first, *steps = _seconds(train, 1 + STEPS)
  report = 0.0
  if config.report_every:
    report = _seconds(lambda i: agent.report([batch], 0), 2)[-1]
  actions = _seconds(lambda i: _act(agent, episode, i), 1 + ACTIONS)[1:]
  use(agent)
  arrays = agent.save()
  with tempfile.TemporaryDirectory() as directory:
    checkpoints = Checkpoints(Path(directory), 1)
    (save,) = _seconds(lambda i: checkpoints.save(i, arrays, {}), 1)
  return Measured(
    first=first,
    step=float(np.median(steps)),
    report=report,
    save=save,
    environment=max(0.0, environment - played),
    episode=played,
    length=len(episode['reward']) - 1,
    action=float(np.median(actions)),
    arrays=sum(v.nbytes for v in arrays.values()),
    saved=saved,
    record=_record_bytes(agent),
    held=replay.stats()['transitions'],
    peak=int(machine.peak_memory_gib() * memory.GIB),
    cores=len(machine.cores()),
  )


def forecast(found: Measured, config: Config, done: Mapping) -> Forecast:
  """What is left of a run.

  Args:
    found: of the same settings.
    config: of the run.
    done: counters of its checkpoint, {} for a new run.
  """
  total, begun = rundir.total_steps(config), done.get('gradient_step', 0)
  steps = max(0, total - begun)
  coming = range(begun + 1, total + 1)
  milestones = sum(rundir.is_milestone(config, step) for step in coming)
  episodes = -(-config.online_steps // config.updates_per_episode)
  offline = rundir.offline_dir(config, config.path('logdir'))
  episodes += rundir.prefill_episodes(config, offline)
  episodes = max(0, episodes - done.get('episode', 0))
  evaluations = steps // config.eval_every if config.eval_every else 0
  reports = steps // config.report_every if config.report_every else 0
  saves = steps // config.checkpoint_every
  lanes = memory.eval_environments(config)
  acting = found.length * found.action
  evaluation = config.eval_episodes * (found.episode + acting)
  evaluation /= min(lanes, found.cores)
  seconds = {
    'gradient steps': steps * found.step,
    'episodes': episodes * (found.episode + acting),
    'evaluations': (evaluations + 2) * evaluation,
    'reports': (reports + 2) * found.report,
    'checkpoints': (saves + 2) * found.save,
    'starting environments': lanes * found.environment,
  }
  held = found.held + done.get('agent_step', 0)
  most = min(config.replay.capacity, held + episodes * found.length)
  growth = max(0, most - found.held) * found.record
  kept = config.checkpoint_keep + 1 + milestones
  disk = kept * found.arrays + episodes * found.saved
  need = found.peak + growth
  return Forecast(seconds, disk, need, episodes, milestones, most)


def open_checkpoints(config: Config) -> Checkpoints:
  """Checkpoints of a run, which may be none."""
  return Checkpoints(
    config.path('logdir') / 'checkpoints', config.checkpoint_keep, meta.check
  )


def _seconds(call, count):
  found = []
  for i in range(count):
    begin = time.perf_counter()
    call(i)
    found.append(time.perf_counter() - begin)
  return found


def _act(agent, episode, step):
  obs = {k: episode[k][:1] for k in agent.obs_space}
  obs['is_first'] = np.ones(1, bool)
  agent.policy(obs, None, (np.zeros(1, int), np.array([step])), 'train')


def _record_bytes(agent):
  spaces = [agent.obs_space[k] for k in agent.obs_keys]
  return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in spaces)
