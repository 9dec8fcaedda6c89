"""Evaluates a trained policy and writes the numbers and a video.

python scripts/evaluate.py --logdir ~/logdir/drawer/moto/0 --episodes 50
"""

import argparse
import functools
from pathlib import Path

import moto_tf
from moto_tf import envs, images
from moto_tf.commands import positive
from moto_tf.envs.driver import Driver
from moto_tf.train import evaluation


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__.split('\n')[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('--logdir', type=Path, required=True, help='log directory of the run')
  add('--episodes', type=positive, default=50, help='episodes to roll out')
  add('--seed', type=int, default=evaluation.EVAL_SEED, help='first seed')
  add('--envs', type=positive, default=2, help='parallel environments')
  add('--checkpoint', type=Path, help='file; default: the newest')
  add('--videos', type=int, default=6, help='episodes in the video; 0: none')
  add('--outdir', type=Path, help='default: LOGDIR/evaluation')
  args = parser.parse_args()
  with moto_tf.explain_errors():
    evaluate(args)


def evaluate(args: argparse.Namespace) -> None:
  """Rolls out, prints the summary, writes JSON and GIF."""
  logdir = args.logdir.expanduser()
  agent, config, meta = evaluation.load_agent(logdir, args.checkpoint)
  make_env = functools.partial(envs.make_env, config.task, config.env)
  driver = Driver(make_env, min(args.envs, args.episodes), config.env_workers)
  try:
    summary, rollouts = evaluation.evaluate(
      agent,
      driver,
      args.episodes,
      args.seed,
      evaluation.progress(args.episodes),
    )
  finally:
    driver.close()
  step = meta['counters']['gradient_step']
  outdir = (args.outdir or logdir / 'evaluation').expanduser()
  result = {
    'task': config.task,
    'logdir': str(logdir),
    'seed': args.seed,
    **meta['counters'],
    **summary,
  }
  path = evaluation.write_json(outdir / f'evaluation-{step:08d}.json', result)
  print(
    f'\nsuccess {summary["success"]:.2f} '
    f'[{summary["success_low"]:.2f}, {summary["success_high"]:.2f}]  '
    f'return {summary["return"]:.1f} '
    f'[{summary["return_low"]:.1f}, {summary["return_high"]:.1f}]  '
    f'(95% intervals, {args.episodes} episodes, gradient step {step})'
  )
  if logged := evaluation.logged(rollouts[0]):
    print('  '.join(f'{name} {summary[name]:.2f}' for name in logged))
  print(f'Numbers: {path}')
  for key in agent.obs_space:
    if args.videos and len(agent.obs_space[key].shape) == 3:
      video = images.side_by_side([e[key] for e in rollouts[: args.videos]], 3)
      gif = outdir / f'evaluation-{step:08d}-{key}.gif'
      gif.write_bytes(images.encode_gif(video))
      print(f'Video: {gif}')


if __name__ == '__main__':
  main()
