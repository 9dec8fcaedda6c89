"""Checks the critics, the reward head and the penalty of a trained agent.

  python scripts/diagnose.py --logdir ~/logdir/drawer/moto/0

Writes to LOGDIR/diagnosis: q_calibration.png, values against the returns of
real episodes; reward.png, predicted against real rewards of the policy's and of
recorded episodes; penalty.png, disagreement under actions on and off the data;
disagreement.png, over training; diagnosis.json, all their numbers.
"""

import argparse
import functools
from pathlib import Path

import moto_tf
from moto_tf import envs
from moto_tf.commands import positive
from moto_tf.envs.driver import Driver
from moto_tf.studies import critics, figures, penalty, reward, training
from moto_tf.studies.common import encode_all, find_data, load_data
from moto_tf.train import evaluation


def main(argv: list[str] | None = None):
  """Run the command line; see the top of this file."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--logdir', type=Path, required=True, help='log directory of the run')
  add(
    '--episodes',
    type=positive,
    default=20,
    help='episodes to roll out (default: 20)',
  )
  add('--envs', type=positive, default=2, help='parallel (default: 2)')
  add('--checkpoint', type=Path, help='file; default: the newest')
  add(
    '--data',
    type=Path,
    help='recorded episodes to use, such as held-out ones; default: the '
    "run's offline_data",
  )
  add('--outdir', type=Path, help='default: LOGDIR/diagnosis')
  args = parser.parse_args(argv)
  with moto_tf.explain_errors():
    diagnose(args)


def diagnose(args: argparse.Namespace) -> None:
  """Measures, prints, and writes numbers and figures."""
  logdir = args.logdir.expanduser()
  outdir = (args.outdir or logdir / 'diagnosis').expanduser()
  agent, config, meta = evaluation.load_agent(logdir, args.checkpoint, False)
  # Before the rollouts take their time: a frequent mistake.
  data = find_data(config, logdir, args.data)
  recorded = load_data(agent, data) if data else []
  if data is None:
    print(
      'No recorded episodes to look at: the run has no offline_data. Name some '
      f'by --data, such as {logdir / "episodes"}.'
    )
  recorded_posts = encode_all(agent, recorded)
  result = {
    'task': config.task,
    'logdir': str(logdir),
    'data': str(data) if data else None,
    **meta['counters'],
    'critics': None,
    'reward': {},
    'penalty': None,
    'training': None,
  }
  drawn = {}
  if config.rssm.ensemble == 1:
    print(
      'No penalty.png: the ensemble has one member, which cannot disagree '
      'with itself.'
    )
  elif recorded:
    result['penalty'] = penalty.measure_penalty(
      agent, config, recorded, recorded_posts
    )
    print(f'Imagined from {data}:')
    print(penalty.penalty_table(result['penalty']))
    drawn['penalty'] = figures.penalty(result['penalty'])
  curves = training.training_curves(logdir)
  if curves and 'train/imag_disagreement' in curves['curves']:
    result['training'] = curves['phases']
    drawn['disagreement'] = figures.training(curves)
  else:
    print(
      f'No disagreement.png: {logdir / "metrics.jsonl"} has no values of '
      'train/imag_disagreement.'
    )
  rollouts = roll_out(agent, config, args)
  posts = encode_all(agent, rollouts)
  numbers, points = critics.calibrate(agent, config, rollouts, posts)
  result['critics'] = numbers
  text = critics.describe_calibration(numbers)
  print(f'\nPredicted against real values: {text}')
  drawn['q_calibration'] = figures.calibration(points, numbers, text)
  groups = {'policy': (rollouts, posts)}
  if recorded:
    groups['recorded'] = (recorded, recorded_posts)
  measured = {k: reward.measure_reward(agent, *v) for k, v in groups.items()}
  print(f'\nReward by the model. {reward.LEGEND}')
  for name, (numbers, _) in measured.items():
    result['reward'][name] = numbers
    print(f'{name.capitalize()} episodes:\n{reward.reward_table(numbers)}')
  drawn['reward'] = figures.reward(measured)
  print(f'Numbers: {evaluation.write_json(outdir / "diagnosis.json", result)}')
  for name, figure in drawn.items():
    path = outdir / f'{name}.png'
    figure.savefig(path, dpi=160)
    print(f'Figure: {path}')


def roll_out(agent, config, args: argparse.Namespace) -> list[dict]:
  """Episodes of the evaluation policy, those of scripts/evaluate.py."""
  make_env = functools.partial(envs.make_env, config.task, config.env)
  driver = Driver(make_env, min(args.envs, args.episodes), config.env_workers)
  try:
    show = evaluation.progress(args.episodes)
    return evaluation.evaluate(agent, driver, args.episodes, show=show)[1]
  finally:
    driver.close()


if __name__ == '__main__':
  main()
