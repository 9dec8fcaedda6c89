"""What a run holds open: how it starts, goes on, saves and stops."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path

from moto_tf import cluster, files, memory, rules
from moto_tf.agents import METHODS, make_agent
from moto_tf.config import Config, is_read
from moto_tf.data.cloning import Cloning
from moto_tf.data.inspect import differences, read_record
from moto_tf.data.prefetch import Prefetcher
from moto_tf.data.replay import Replay
from moto_tf.envs.driver import Driver
from moto_tf.errors import warn
from moto_tf.ownership import Owner
from moto_tf.policy import spaces_to_meta
from moto_tf.signals import StopRequest
from moto_tf.training import meta, rundir
from moto_tf.training.checkpoint import Checkpoints
from moto_tf.training.collectors import Collectors
from moto_tf.training.logger import Logger
from moto_tf.training.records import Records


class Stopped(KeyboardInterrupt):
  """A signal ended the run, and everything is saved.

  Attributes:
    number: of the signal.
  """

  def __init__(self, number: int):
    super().__init__(f'{signal.Signals(number).name}: saved.')
    self.number = number


@dataclasses.dataclass
class Counters:
  """What a run has done so far, by unit."""

  gradient_step: int = 0
  agent_step: int = 0
  env_step: int = 0
  episode: int = 0
  lost_episodes: int = 0

  def named(self) -> dict[str, int]:
    return dataclasses.asdict(self)


class Session:
  """Environment, agent, replay, logs and checkpoints of one run.

  Attributes:
    config, logdir, agent, replay, heldout (None without), driver, make_env,
    logger, records: what their names say.
    batches: Prefetcher of the replay.
    counters: saved and restored.
    stop: whether a signal asked the run to stop; loops ask it.
    unfinished: what follows the last gradient step, such as its evaluation, is
      not done yet.
    prefill: random episodes to start with.
    total: gradient steps of the whole run.
    logged: `position` of the last log row.
  """

  def __init__(self, config: Config, make_env: Callable | None = None):
    """Opens what `config.logdir` holds, or starts anew; see Run."""
    self.config = config
    self.logdir = config.path('logdir')
    self.counters = Counters()
    self.total = rundir.total_steps(config)
    self.prefill = 0
    self.make_env = make_env or rundir.env_maker(config)
    self.stop = StopRequest()
    self.unfinished = False
    self._collectors = None
    self._checkpoints = Checkpoints(
      self.logdir / 'checkpoints', config.checkpoint_keep, meta.check
    )
    memory.check(config)
    with contextlib.ExitStack() as stack:
      # First, so that other processes learn how anything else ends.
      crew = stack.enter_context(open_crew(config, self.stop))
      offline = rundir.find_offline(config)  # First: a frequent mistake.
      self._owner = stack.enter_context(Owner(self.logdir))
      files.sweep(self.logdir / name for name in rundir.PLACES)
      loaded = self._checkpoints.load()
      said, changes = {}, {}
      if loaded:
        path, said = self.logdir / 'config.yaml', loaded[1]
        config = rundir.keep_added(path, config, said)
        changes = rundir.check_changes(path, config, said)
        self.config = config = rundir.keep_name(path, config, said)
      self.driver = self.make_driver(1)
      stack.callback(self.driver.close)
      spaces = self.driver.obs_space, self.driver.act_space
      self._spaces = spaces_to_meta(*spaces)
      # Demonstrations may be gone when the policy goes to its robot.
      size = self.driver.act_space.shape[0]
      self._range = rundir.action_ends(config, offline, size, said)
      if crew:
        facts = {'settings': meta.settings(config), 'spaces': self._spaces}
        crew.tell({'do': 'make', **facts}, {})
      self.agent = make_agent(config, *spaces, crew)
      keep = self._restore(loaded) if loaded else []
      self.replay = open_replay(
        config,
        self.agent,
        self.driver,
        offline,
        self.logdir / 'episodes',
        keep,
      )
      if not loaded:
        self.prefill = rundir.prefill_episodes(config, offline)
      self.heldout = None
      if heldout := config.path('heldout_data'):
        print('Held-out episodes:')
        self.heldout = open_replay(
          config, self.agent, self.driver, heldout, None, None, heldout=True
        )
      # Not before all of it has proved to fit.
      config.save(self.logdir / 'config.yaml')
      self.batches = Prefetcher(self.replay, config.replay.prefetch)
      stack.callback(self.batches.close)
      resumed = self.counters.gradient_step if loaded else None
      count = said.get('rows', {}).get
      self.logger = Logger(
        self.logdir,
        str(config),
        rundir.hparams(config),
        # The row of an unfinished step comes again.
        resumed - 1 if self.unfinished else resumed,
        self.total,
        count('metrics'),
      )
      stack.callback(self.logger.close)
      if loaded:
        self.logger.add(said.get('unlogged', {}))
      self.records = Records(
        self.logdir,
        config,
        resumed,
        changes,
        count('evaluations'),
        self.unfinished,
      )
      self._stack = stack.pop_all()
    self._saved = self.logged = self.position if loaded else None
    print(f'Method: {METHODS[config.method].label}.')
    for remark in self.agent.remarks:
      print(f'  {remark}')

  @property
  def position(self) -> tuple[int, int]:
    """What changes with everything that is worth saving."""
    return self.counters.gradient_step, self.counters.episode

  @property
  def phase(self) -> str:
    return self.phase_at(self.counters.gradient_step)

  @property
  def waited(self) -> float:
    """Seconds that learning has waited for the collectors."""
    return self._collectors.wait if self._collectors else 0.0

  def phase_at(self, step: int) -> str:
    """The phase of the gradient step after `step` of them."""
    return 'offline' if step < self.config.offline_steps else 'online'

  def make_driver(self, count: int) -> Driver:
    """Environments of the run, which stop when it is asked to."""
    config = self.config
    return Driver(
      self.make_env,
      count,
      config.env_workers,
      config.env_timeout,
      self.stop.check,
    )

  def collectors(self) -> Collectors:
    """Those of the run, which are started when they are first wanted."""
    if self._collectors is None:
      self._collectors = Collectors(self.config, self.make_env, self.stop.check)
      self.close_with(self._collectors.close)
    return self._collectors

  def save(self) -> Path:
    """Writes a checkpoint of everything that continues the run."""
    self._owner.check()
    said = {
      'counters': self.counters.named(),
      'phase': self.phase,
      'episodes': self.replay.online_names(),
      'spaces': self._spaces,
      'action_range': self._range,
      'prefill': self.prefill,
      'settings': meta.settings(self.config),
      'rows': {
        'metrics': self.logger.count,
        'evaluations': self.records.count,
      },
      'unfinished': self.unfinished,
      'unlogged': self.logger.collected(),
    }
    self._saved = self.position
    step = self.counters.gradient_step
    milestone = rundir.is_milestone(self.config, step)
    return self._checkpoints.save(step, self.agent.save(), said, milestone)

  def save_if_new(self) -> None:
    """Saves unless there is a checkpoint of all this."""
    if self._saved != self.position:
      self.save()

  def save_if_new_step(self) -> None:
    """Saves unless there is a checkpoint of this gradient step."""
    if not self._saved or self._saved[0] != self.counters.gradient_step:
      self.save()

  def close_with(self, close: Callable[[], None]) -> None:
    """Has a function called by `close`."""
    self._stack.callback(close)

  def close(self, error: BaseException | None = None) -> None:
    """Ends worker processes and threads and closes the logs.

    Args:
      error: what the run ends with, which other processes of it learn.
    """
    self.stop.close()
    self._stack.__exit__(type(error) if error else None, error, None)

  def leave_if_asked(self, log: Callable[[str], None]) -> None:
    """Logs, saves and raises Stopped if a signal came.

    Args:
      log: writes a log row of a phase.
    """
    if self.stop.number is None:
      return
    # The row of a step whose evaluation was left comes with that.
    if self.logged != self.position and not self.unfinished:
      log(self.phase)
    self.save_if_new()
    raise Stopped(self.stop.number)

  def _restore(self, loaded):
    """Takes over a checkpoint; returns the names of its online episodes."""
    arrays, said, path = loaded
    self.agent.load(arrays)
    self.counters = Counters(**said['counters'])
    self.prefill = said['prefill']
    self.unfinished = said.get('unfinished', False)
    step = self.counters.gradient_step
    print(f'Continuing from {path.name} at gradient step {step}.')
    return said['episodes']


def open_crew(
  config: Config, stop: StopRequest
) -> contextlib.AbstractContextManager:
  """Context of the replicas of a run, None where there is one.

  Args:
    config: of the run.
    stop: asked where another process was asked.

  Raises:
    ConfigError: this process is not the chief.
  """
  processes = cluster.find(config)
  if processes.number:
    raise rules.ConfigError(
      f'{cluster.NAME} says that this is process {processes.number}, which '
      'only helps process 0; use moto_tf.train or the command train, or unset '
      'it.'
    )
  if config.replicas == 1:
    return contextlib.nullcontext()
  from moto_tf.nn.crew import Crew

  return Crew(config, processes, stop.ask)


def open_replay(
  config: Config,
  agent,
  driver: Driver,
  offline: Path | None,
  online: Path | None,
  keep: list[str] | None,
  heldout: bool = False,
) -> Replay:
  """The replay of a run; says where demonstrations are of other settings.

  Args:
    config, agent, driver: of the run.
    offline, online, keep: as of Replay.
    heldout: whether it is of episodes that are never trained on, all of which
      are used.
  """
  recorded = read_record(offline) if offline else {}
  if recorded:
    # Whether images are rendered does not change the others.
    env = {k: v for k, v in config.env.items() if k != 'image'}
    other = differences(recorded, {'task': config.task, 'env': env})
    if other:
      warn(f'in {offline}, {", ".join(other)}.')
  settings = {k: v for k, v in config.replay.items() if k != 'prefetch'}
  if heldout:
    settings['offline_episodes'] = 0
  replay = Replay(
    offline,
    online,
    {k: driver.obs_space[k] for k in agent.obs_keys},
    driver.act_space,
    **settings,
    seed=config.seed,
    cloning=_cloning(config, driver.obs_space),
    keep=keep,
  )
  if is_read(config.flat, 'bc_threshold') and not heldout and replay.uncloned:
    warn(f'in {offline}, {replay.uncloned}')
  return replay


def _cloning(config, obs_space):
  """What the settings bc_* have cloned."""
  targets, onward = (
    _target_keys(config, name, obs_space)
    for name in ('bc_targets', 'bc_onward')
  )
  return Cloning(config.bc_threshold, targets, config.bc_whole, *onward[:1])


def _target_keys(config, setting, obs_space):
  """Keys of the observations that `bc_targets` or `bc_onward` names."""
  if not is_read(config.flat, setting):
    return ()
  known = [key for key in obs_space if key.startswith('log_')]
  keys = []
  for name in rules.split_names(config[setting]):
    key = f'log_{name.replace(" ", "_")}'
    if key not in known:
      names = [x.removeprefix('log_').replace('_', ' ') for x in known]
      raise rules.ConfigError(
        f'{setting}: {config.task} does not say when {name!r} is in place, '
        f'only {", ".join(names) or "whether the task was achieved"}. Name '
        f"targets of the task, or set --{setting} ''."
      )
    keys.append(key)
  return tuple(keys)
