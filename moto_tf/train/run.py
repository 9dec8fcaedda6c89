"""A run: everything around Algorithm 1, which is in scripts/train.py.

Sets up environments, replay, agent, logs and checkpoints, continues what the
log directory holds, and offers the steps of the algorithm as methods.
"""

import contextlib
import functools
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from moto_tf import envs, images
from moto_tf.agents.model_based import Agent
from moto_tf.config import Config, ConfigError
from moto_tf.data.inspect import differences, read_record
from moto_tf.data.prefetch import Prefetcher
from moto_tf.data.replay import Replay
from moto_tf.envs.driver import Driver
from moto_tf.errors import MotoError
from moto_tf.results import export as results
from moto_tf.train import evaluation, rundir
from moto_tf.train.checkpoint import Checkpoints
from moto_tf.train.logger import Logger
from moto_tf.train.machine import peak_memory_gib
from moto_tf.train.when import Every


class TrainingError(MotoError, RuntimeError):
  """Training cannot go on; the message says why and what was saved."""


class Run:
  """One training run in `config.logdir`, a context manager.

  Example:
    with Run(config) as run:
      for _ in run.offline_steps():
        run.update(run.sample())

  Attributes:
    gradient_step, agent_step, env_step, episode: counters, saved and restored.
  """

  def __init__(self, config: Config, make_env: Callable | None = None):
    """Opens the run, continuing what `config.logdir` holds.

    Args:
      config: the configuration.
      make_env: makes one environment (see moto_tf.envs); by default that of
        `config.task`. Worker processes get it by cloudpickle.
    """
    self.config = config
    self.logdir = config.path('logdir')
    self.gradient_step = self.agent_step = self.env_step = self.episode = 0
    self.total = config.offline_steps + config.online_steps
    self._signal = None
    self._prefill = 0
    self._seconds = {}
    self._episode_seconds = {'env': 0.0, 'policy': 0.0}
    self._make_env = make_env or functools.partial(
      envs.make_env, config.task, config.env
    )
    self._checkpoints = Checkpoints(
      self.logdir / 'checkpoints', config.checkpoint_keep
    )
    with contextlib.ExitStack() as stack:
      offline = self._offline_dir()  # First: a frequent mistake.
      loaded = self._checkpoints.load()
      changes = {}
      if loaded:
        path = self.logdir / 'config.yaml'
        changes = rundir.check_changes(path, config, loaded[1])
      self._driver = Driver(self._make_env, 1, config.env_workers)
      stack.callback(self._driver.close)
      self._eval_driver = None
      spaces = self._driver.obs_space, self._driver.act_space
      self.agent = Agent(config, *spaces)
      self._spaces = evaluation.spaces_to_meta(*spaces)
      keep = self._restore(loaded) if loaded else []
      self.replay = self._open_replay(offline, self.logdir / 'episodes', keep)
      if not loaded and not offline:
        self._prefill = config.prefill_episodes
      self._heldout = None
      if heldout := config.path('heldout_data'):
        print('Held-out episodes:')
        self._heldout = self._open_replay(heldout, None, None)
      # Not before all of it has proved to fit.
      config.save(self.logdir / 'config.yaml')
      self._prefetcher = Prefetcher(self.replay, config.replay.prefetch)
      stack.callback(self._prefetcher.close)
      resumed = self.gradient_step if loaded else None
      hparams = {
        'task': config.task,
        'method': self.logdir.parent.name,
        'seed': config.seed,
      }
      self.logger = Logger(
        self.logdir, str(config), hparams, resumed, self.total
      )
      stack.callback(self.logger.close)
      self._records = results.Records(self.logdir, config, resumed, changes)
      self._stack = stack.pop_all()
    self._saved = self._logged = self._position() if loaded else None
    every = lambda period: Every(period, self.gradient_step)
    self._should_log = every(config.log_every)
    self._should_eval = every(config.eval_every)
    self._should_report = every(config.report_every)
    self._should_save = every(config.checkpoint_every)

  # The steps of Algorithm 1.

  def prefill(self) -> None:
    """Collects random episodes if there are no demonstrations to start on.

    What is there before the first gradient step sets the units of vectors.
    """
    while self.episode < self._prefill:
      self._collect(self._random_policy)
    if not self.gradient_step:
      keys = self.agent.model.standardize.keys
      self.agent.fit({k: self.replay.records(k) for k in keys})

  def offline_steps(self) -> Iterator[int]:
    """The gradient steps of pre-training that are still to do."""
    while self.gradient_step < self.config.offline_steps:
      yield self.gradient_step

  def online_episodes(self) -> Iterator[int]:
    """The online episodes that are not finished, by number from 0."""
    while self.gradient_step < self.total:
      done = self.gradient_step - self.config.offline_steps
      yield done // self.config.updates_per_episode

  def collect_episode(self, number: int) -> None:
    """Rolls the policy out for online episode `number`; D = D + tau.

    Does nothing if a run that was stopped between its updates has it already.
    """
    if self.episode <= self._prefill + number:
      self._collect(self.agent.policy)

  def updates(self, number: int) -> Iterator[int]:
    """The gradient steps that follow online episode `number`."""
    end = (number + 1) * self.config.updates_per_episode
    end = min(self.total, self.config.offline_steps + end)
    while self.gradient_step < end:
      yield self.gradient_step

  def sample(self) -> dict[str, np.ndarray]:
    """B ~ D, the batch of this gradient step."""
    return self._prefetcher.get(self.gradient_step)

  def update(self, batch: dict[str, np.ndarray]) -> None:
    """One gradient step on model, actor and critics, then what is due."""
    metrics = self.agent.train(batch, self.gradient_step)
    broken = [
      k for k, v in metrics.items() if 'loss' in k and not math.isfinite(v)
    ]
    self.logger.add(metrics, 'train')
    if broken:
      self._give_up(broken, metrics)
    # Before the counter moves: a report belongs to the phase of its step.
    phase = self.phase
    self.gradient_step += 1
    ends = self.gradient_step in (self.config.offline_steps, self.total)
    evaluate = self._should_eval(self.gradient_step) or ends
    report = self._should_report(self.gradient_step)
    report = report or (ends and self.config.report_every > 0)
    if evaluate or report:
      with self.logger.pause():
        if evaluate:
          self._evaluate(phase)
        if report:
          self._report(batch)
    save = self._should_save(self.gradient_step) or ends
    if self._should_log(self.gradient_step) or evaluate or report or save:
      self._log(phase)  # Before saving, so that no metric is lost.
    if save:
      self.save()
    self._leave_if_asked()

  @property
  def phase(self) -> str:
    offline = self.gradient_step < self.config.offline_steps
    return 'offline' if offline else 'online'

  def save(self) -> Path:
    """Writes a checkpoint of everything that continues the run."""
    meta = {
      'counters': self._counters(),
      'phase': self.phase,
      'episodes': self.replay.online_names(),
      'spaces': self._spaces,
      'prefill': self._prefill,
    }
    self._saved = self._position()
    return self._checkpoints.save(self.gradient_step, self.agent.save(), meta)

  def close(self) -> None:
    """Ends worker processes and threads and closes the logs."""
    self._stack.close()

  def __enter__(self) -> 'Run':
    self._handlers = {
      s: signal.signal(s, self._on_signal)
      for s in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def __exit__(self, *error) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self.close()

  # Set-up.

  def _offline_dir(self):
    """Directory of demonstrations, None without."""
    config = self.config
    path = rundir.offline_dir(config, self.logdir)
    if config.offline_data == 'auto' and not path.is_dir():
      raise ConfigError(
        f'offline_data is auto, and there is no directory {path}. Record '
        'demonstrations with: python scripts/collect.py '
        f'--task {config.task} --outdir {path}; or set --offline_data DIR; '
        "or learn online only with --offline_data '' --offline_steps 0 "
        '--prefill_episodes 5.'
      )
    if path is None and not config.prefill_episodes:
      raise ConfigError(
        'offline_data is empty: set --offline_data DIR, or start from random '
        'episodes with --prefill_episodes 5.'
      )
    return path

  def _open_replay(self, offline, online, keep):
    config = self.config
    recorded = read_record(offline) if offline else {}
    if recorded:
      # Whether images are rendered does not change the others.
      env = {k: v for k, v in config.env.items() if k != 'image'}
      other = differences(recorded, {'task': config.task, 'env': env})
      if other:
        print(f'Warning: in {offline}, {", ".join(other)}.', file=sys.stderr)
    return Replay(
      offline,
      online,
      {k: self._driver.obs_space[k] for k in self.agent.obs_keys},
      self._driver.act_space,
      **{k: v for k, v in config.replay.items() if k != 'prefetch'},
      seed=config.seed,
      bc_threshold=config.bc_threshold,
      keep=keep,
    )

  def _restore(self, loaded):
    arrays, meta, path = loaded
    self.agent.load(arrays)
    for key, value in meta['counters'].items():
      setattr(self, key, value)
    self._prefill = meta['prefill']
    print(f'Continuing from {path.name} at gradient step {self.gradient_step}.')
    return meta['episodes']

  # Episodes.

  def _collect(self, policy):
    """One episode into the replay, with counters and metrics."""
    self._leave_if_asked()
    seed = _episode_seed(self.config.seed, self.episode)
    (episode,) = self._driver.run(policy, [seed])
    for key, value in self._driver.seconds.items():
      self._episode_seconds[key] += value
    metrics = evaluation.episode_metrics(episode)
    length = metrics['length']
    self.replay.add(episode, f'{self.episode:06d}')
    self.episode += 1
    self.agent_step += length
    self.env_step += length * self._driver.action_repeat
    self.logger.add(metrics, 'episode')

  def _random_policy(self, obs, state, lanes):
    actions = [
      np.random.default_rng([int(s), int(t)]).uniform(
        -1, 1, self._driver.act_space.shape
      )
      for s, t in zip(*lanes, strict=True)
    ]
    return np.array(actions, np.float32), state

  def _evaluate(self, phase):
    if self._eval_driver is None:
      self._eval_driver = Driver(
        self._make_env, self.config.envs, self.config.env_workers
      )
      self._stack.callback(self._eval_driver.close)
    summary, rollouts = evaluation.evaluate(
      self.agent, self._eval_driver, self.config.eval_episodes
    )
    names = evaluation.episode_metrics(rollouts[0])
    self.logger.add({k: summary[k] for k in names}, 'eval')
    counters = {**self._counters(), 'phase': phase}
    self._records.evaluated(counters, self.logger.seconds, summary)
    for key in self.agent.model.decoder.cnn_keys:
      videos = [e[key] for e in rollouts[:6]]
      self.logger.video(f'policy/{key}', images.side_by_side(videos, 3))

  def _report(self, batch):
    """Losses, success prediction and videos of held-out data, if given."""
    name, batches = 'report', [batch]
    if self._heldout:
      name, batches = 'heldout', [self._heldout.sample(i) for i in range(4)]
    reports = [self.agent.report(b, i) for i, b in enumerate(batches)]
    total = {k: sum(m[k] for m, _ in reports) for k in reports[0][0]}
    hits, wrong, missed = (total.pop(f'reward_{k}') for k in ('tp', 'fp', 'fn'))
    metrics = {k: v / len(reports) for k, v in total.items()}
    metrics['reward_precision'] = hits / max(hits + wrong, 1)
    metrics['reward_recall'] = hits / max(hits + missed, 1)
    self.logger.add(metrics, name)
    for key, video in reports[0][1].items():
      self.logger.video(f'openloop/{key}', images.upscale(video, 2))

  # Logs and ends.

  def _counters(self):
    names = ('gradient_step', 'agent_step', 'env_step', 'episode')
    return {name: getattr(self, name) for name in names}

  def _position(self):
    return self.gradient_step, self.episode

  def _log(self, phase):
    """One row, with the seconds each part took since the last one."""
    total = {
      'data_wait': self._prefetcher.wait,
      'train': self.agent.seconds,
      **{f'episode_{k}': v for k, v in self._episode_seconds.items()},
    }
    seconds = {k: v - self._seconds.get(k, 0) for k, v in total.items()}
    self._seconds = total
    self.logger.add({f'{k}_seconds': v for k, v in seconds.items()}, 'time')
    self.logger.add(self.replay.stats(), 'replay')
    self.logger.add({'memory/peak_gib': peak_memory_gib()})
    self.logger.write({**self._counters(), 'phase': phase})
    self._logged = self._position()

  def _give_up(self, broken, metrics):
    """Stops on a non-finite loss, which no optimizer has applied."""
    self._log(self.phase)
    if not self._saved or self._saved[0] != self.gradient_step:
      self.save()
    values = ', '.join(f'{k} = {metrics[k]}' for k in broken)
    raise TrainingError(
      f'Not finite at gradient step {self.gradient_step + 1}: {values}. The '
      f'last good step is {self.gradient_step}; its checkpoint, with finite '
      f'weights, is in {self.logdir / "checkpoints"}. Try a lower learning '
      'rate, or --precision float32.'
    )

  def _on_signal(self, number, frame):
    del frame
    if self._signal is not None:
      raise KeyboardInterrupt
    self._signal = number
    name = signal.Signals(number).name
    # Not print, which may be interrupted in the middle of a print.
    text = f'{name}: stopping after this step; once more to stop at once.\n'
    os.write(2, text.encode())

  def _leave_if_asked(self):
    if self._signal is None:
      return
    if self._logged != self._position():
      self._log(self.phase)
    if self._saved != self._position():
      self.save()
    print('Saved. The same command continues the run.', flush=True)
    raise SystemExit(128 + self._signal)


def _episode_seed(seed, episode):
  """Seed of a collected episode, 2,000,000 to 2^31, apart from evaluation."""
  state = np.random.SeedSequence([seed, episode]).generate_state(1)
  return 2_000_000 + int(state[0]) % (2**31 - 2_000_000)
