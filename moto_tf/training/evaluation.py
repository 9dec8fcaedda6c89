"""Evaluation of a policy, by rolling it out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from moto_tf import files, images, memory, rules
from moto_tf.data.episodes import episode_return
from moto_tf.envs.driver import Driver
from moto_tf.errors import MotoError, warn
from moto_tf.progress import Progress
from moto_tf.training import rundir

# Evaluation episodes are the same for every run, method and seed.
EVAL_SEED = 1_000_000


class EvaluationError(MotoError, RuntimeError):
  """A policy cannot be evaluated; the message says why."""


def evaluate(
  agent,
  driver: Driver,
  episodes: int,
  seed: int = EVAL_SEED,
  show: Callable[[dict], None] | None = None,
) -> tuple[dict, list[dict]]:
  """Rolls the policy out by `eval_action`; episode i has the seed `seed` + i.

  Args:
    driver: Driver of the environments.
    show: called with each finished episode.

  Returns:
    Summary (see `summarise`, and the number of episodes `lost`), and the
    episodes; those that the environment cannot finish are named and left out.

  Raises:
    EvaluationError: that is all of them.
    WorkerError: several were lost one after the other.
  """
  policy = lambda obs, state, lanes: agent.policy(obs, state, lanes, 'eval')
  seeds = [seed + i for i in range(episodes)]
  lose = lambda seed, problem: warn(
    f'the evaluation episode of seed {seed} is lost and left out. {problem}'
  )
  found = driver.run(policy, seeds, show, on_lost=lose)
  kept = {s: e for s, e in zip(seeds, found, strict=True) if e is not None}
  if not kept:
    raise EvaluationError(
      f'there is no evaluation: the episodes of all {episodes} seeds from '
      f'{seed} on were lost.'
    )
  rollouts = list(kept.values())
  summary = summarise(rollouts, list(kept))
  return {**summary, 'lost': episodes - len(kept)}, rollouts


def shown(progress: Progress) -> Callable[[dict], None]:
  """A `show` for `evaluate` that counts episodes and successes."""
  finished = []

  def show(episode):
    finished.append(bool(episode['success'].any()))
    done = len(finished)
    progress.show(done, f'success {sum(finished)}/{done}')

  return show


def roll_out(
  agent,
  config,
  episodes: int,
  seed: int = EVAL_SEED,
  count: int = 2,
  make_env: Callable | None = None,
) -> tuple[dict, list[dict]]:
  """Evaluates an agent in environments of its own, with progress.

  Args:
    config: of its run.
    episodes, seed: as of `evaluate`.
    count: environments at a time.
    make_env: makes one environment; by default that of the run's task.

  Returns:
    As `evaluate`.
  """
  memory.check_rollouts(config, episodes)
  make_env = make_env or rundir.env_maker(config)
  driver = Driver(
    make_env,
    min(count, episodes),
    config.env_workers,
    config.env_timeout,
  )
  bar = Progress('evaluation', episodes)
  try:
    return evaluate(agent, driver, episodes, seed, shown(bar))
  finally:
    bar.close()
    driver.close()


def evaluate_run(
  logdir: Path | str,
  episodes: int = 50,
  seed: int = EVAL_SEED,
  count: int = 2,
  checkpoint: Path | str | None = None,
  videos: int = 6,
  outdir: Path | str | None = None,
  make_env: Callable | None = None,
  force: bool = False,
) -> tuple[dict, list[Path]]:
  """Evaluates a run and writes the numbers and a video.

  Args:
    logdir: of the run.
    episodes, seed, count, make_env: as of `roll_out`.
    checkpoint: file; by default the newest.
    videos: episodes in the video; 0: none.
    outdir: LOGDIR/evaluation by default.
    force: replaces an evaluation of the same gradient step.

  Returns:
    What is in the JSON file, and the files: that one, then the videos.

  Raises:
    FileError: there is one already, or none can be written; this is found
      before anything is rolled out.
    CheckpointError: there is none, it is damaged, or of another run.
  """
  from moto_tf.policy import load_agent

  logdir = rules.expand(logdir)
  agent, config, meta = load_agent(logdir, checkpoint)
  facts = {
    'task': config.task,
    'method': config.name,
    'logdir': str(logdir),
    'checkpoint': meta['checkpoint'],
    'seed': seed,
    **meta['counters'],
  }
  outdir = rules.expand(outdir or logdir / 'evaluation')
  return write_evaluation(
    agent, config, facts, outdir, episodes, count, videos, make_env, force
  )


def write_evaluation(
  agent,
  config,
  facts: dict,
  outdir: Path,
  episodes: int,
  count: int,
  videos: int,
  make_env: Callable | None,
  force: bool,
) -> tuple[dict, list[Path]]:
  """Rolls an agent out and writes the numbers and a video.

  Args:
    facts: what it is, for the JSON file; with gradient_step and seed, the
      first one.
    outdir: of the files.
    episodes, count, videos, make_env, force: as of `evaluate_run`.

  Returns, and raises: as `evaluate_run`.
  """
  step, seed = facts['gradient_step'], facts['seed']
  path = outdir / f'evaluation-{step:08d}.json'
  files.reserve(path, force)
  summary, rollouts = roll_out(agent, config, episodes, seed, count, make_env)
  result = {**facts, **summary}
  paths = [files.write_json(path, result)]
  for key, space in agent.obs_space.items():
    if videos and len(space.shape) == 3:
      video = images.side_by_side([e[key] for e in rollouts[:videos]], 3)
      gif = outdir / f'evaluation-{step:08d}-{key}.gif'
      paths.append(files.write_atomic(gif, images.encode_gif(video)))
  return result, paths


def summarise(rollouts: list[dict], seeds: list[int]) -> dict:
  """Success and return with 95% intervals, and every episode's numbers.

  Success: Wilson score interval. Return: normal interval of the mean, cut at 0
  where no reward is negative.
  """
  rows = [episode_metrics(e) for e in rollouts]
  columns = {k: np.array([row[k] for row in rows]) for k in rows[0]}
  returns = columns['return']
  count = len(rollouts)
  half = 1.96 * returns.std(ddof=1) / np.sqrt(count) if count > 1 else 0.0
  # Where no reward is negative, as in Meta-World and the kitchen, no return is.
  least = 0.0 if all((e['reward'] >= 0).all() for e in rollouts) else -np.inf
  low, high = wilson(int(columns['success'].sum()), count)
  return {
    'episodes': count,
    **{k: float(v.mean()) for k, v in columns.items()},
    'success_low': low,
    'success_high': high,
    'return_low': float(max(least, returns.mean() - half)),
    'return_high': float(returns.mean() + half),
    'rollouts': [
      {'seed': s, **row} for s, row in zip(seeds, rows, strict=True)
    ],
  }


def episode_metrics(episode: dict) -> dict:
  """Success, return, length, and the largest value of each log_ observation."""
  found = {
    'success': bool(episode['success'].any()),
    'return': float(episode_return(episode)),
    'length': len(episode['reward']) - 1,
  }
  return found | {
    name: float(episode[f'log_{name}'].max()) for name in logged(episode)
  }


def logged(episode: dict) -> list[str]:
  """Names of the log_ observations of an episode, without the prefix."""
  keys = [key for key in episode if key.startswith('log_')]
  return [key.removeprefix('log_') for key in keys]


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
  """Wilson score interval of a proportion."""
  share = hits / count
  center = (share + z * z / (2 * count)) / (1 + z * z / count)
  half = np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
  half *= z / (1 + z * z / count)
  return float(max(0, center - half)), float(min(1, center + half))
