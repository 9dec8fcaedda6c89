"""Algorithm 1 of the paper."""

from collections.abc import Callable
from pathlib import Path

from moto_tf import cluster
from moto_tf.config import Config
from moto_tf.training.helper import help_chief
from moto_tf.training.run import Run


def algorithm_1(run: Run) -> None:
  """Offline pre-training, then online fine-tuning.

  What a run that is continued has done already is skipped.
  """
  run.prefill()
  # Offline pre-training (lines 1 to 8).
  for _ in run.offline_steps():
    batch = run.sample()
    run.update(batch)
  # Online fine-tuning (lines 9 to 20).
  for episode in run.online_episodes():
    run.collect_episode(episode)
    for _ in run.updates(episode):
      batch = run.sample()
      run.update(batch)


def train(config: Config, make_env: Callable | None = None) -> Path:
  """Trains in `config.logdir`, continuing what it holds.

  Args:
    config: the configuration.
    make_env: makes one environment (see moto_tf.envs); by default that of
      `config.task`.

  In a process that TF_CONFIG says is not the first, helps that one instead.

  Returns:
    The log directory.

  Raises:
    Stopped: SIGTERM or Ctrl-C came; everything is saved.
    TrainingError: a loss is not finite; a finite checkpoint is saved.
    ReplicaError: another process was lost, or the first one failed.
  """
  processes = cluster.find(config)
  if processes.number:
    help_chief(config, processes)
    return config.path('logdir')
  with Run(config, make_env) as run:
    algorithm_1(run)
  return run.logdir
