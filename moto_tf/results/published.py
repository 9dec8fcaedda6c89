"""Published policies: one small file each, with a card that says what it is.

A file is an npz without pickle: the variables that acting needs, matrices and
kernels in float16, and `card`, JSON as bytes. It is of others for whoever uses
it, so it is read within bounds and checked.
"""

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moto_tf import files, policy, rules
from moto_tf.agents import make_agent
from moto_tf.bounded import open_npz, parse_json
from moto_tf.config import PATHS, Config
from moto_tf.errors import MotoError, warn
from moto_tf.presets import load_configs
from moto_tf.renames import upgrade
from moto_tf.results import evaluations
from moto_tf.rules import cut, nearest
from moto_tf.training import evaluation, meta, rows
from moto_tf.training.records import ROOT, read_sessions

FORMAT = 1
CARD = 'card'
PLACE = ROOT / 'results' / 'policies'
LARGEST = 2**26  # Bytes of a file.
COMPARED = 10  # Episodes over which actions are compared.


class PublishError(MotoError, ValueError):
  """A policy cannot be published, found or read; the message says why."""


def publish(
  logdir: Path | str,
  name: str,
  checkpoint: Path | str | int | None = None,
  outdir: Path | str = PLACE,
  episodes: int = 50,
  seed: int = evaluation.EVAL_SEED,
  count: int = 2,
  make_env: Callable | None = None,
  force: bool = False,
) -> tuple[Path, dict]:
  """Writes the policy of a run to <outdir>/<name>.npz, and evaluates it.

  What is evaluated is the policy of the file, with its float16.

  Args:
    logdir, checkpoint: of the run, as of policy.load_agent.
    name: letters, digits, points, - and _.
    episodes, seed, count, make_env: as of evaluation.roll_out.
    force: replaces one of this name.

  Returns:
    The file and its card.

  Raises:
    PublishError: the name is none, or a weight is too large for float16.
    FileError: the file is there, or cannot be written.
  """
  if not re.fullmatch(r'[A-Za-z0-9][\w.-]{0,99}', name):
    raise PublishError(
      f'{cut(name)!r} cannot name a policy; use letters, digits, -, _ and '
      'points.'
    )
  path = rules.expand(outdir) / f'{name}.npz'
  files.reserve(path, force)
  logdir = rules.expand(logdir)
  agent, config, said = policy.load_agent(logdir, checkpoint)
  arrays = {
    k: shrink(k, v.numpy()) for k, v in agent.policy_variables().items()
  }
  small = make_agent(config, agent.obs_space, agent.act_space)
  small.load(grow(arrays), policy_only=True)
  summary, rollouts = evaluation.roll_out(
    small, config, episodes, seed, count, make_env
  )
  sessions = read_sessions(logdir / 'sessions.json') or [{}]
  step = said['counters']['gradient_step']
  foreign = Path(said['checkpoint']).is_absolute()
  card = {
    'format': FORMAT,
    'name': name,
    'task': config.task,
    'method': config.name,
    'seed': config.seed,
    'commit': sessions[-1].get('commit'),
    'checkpoint': Path(said['checkpoint']).name,
    'counters': said['counters'],
    'settings': {
      k: v for k, v in meta.settings(config).items() if k not in PATHS
    },
    'spaces': said['spaces'],
    'evaluation': {
      'first_seed': seed,
      **{k: v for k, v in summary.items() if k != 'rollouts'},
    },
    'before_float16': {
      **({} if foreign else evaluations.by_step(logdir).get(step, {})),
      **compare_actions(agent, small, rollouts[:COMPARED]),
    },
  }
  stream = io.BytesIO()
  text = json.dumps(card, allow_nan=False).encode()
  np.savez_compressed(stream, **arrays, **{CARD: np.frombuffer(text, np.uint8)})
  return files.write_atomic(path, stream.getvalue()), card


def shrink(name: str, value: np.ndarray) -> np.ndarray:
  """A variable as it is stored: matrices and kernels in float16.

  Raises:
    PublishError: a number is beyond float16.
  """
  if value.dtype.kind != 'f' or value.ndim < 2:
    return value
  with np.errstate(over='ignore'):
    small = value.astype(np.float16)
  if not np.isfinite(small).all():
    raise PublishError(
      f'{name} has numbers up to {np.abs(value).max():.3g}, which float16 '
      'cannot hold; its policy cannot be published.'
    )
  return small


def grow(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Stored variables in the float32 that agents have."""
  half = lambda x: x.dtype == np.float16
  return {k: v.astype(np.float32) if half(v) else v for k, v in arrays.items()}


def compare_actions(agent, other, episodes: list[dict]) -> dict[str, float]:
  """How far two agents act apart where the same observations come.

  Both go through the episodes with their own memory and the same noise, as in
  evaluation.

  Returns:
    Mean and largest difference of an entry of an action, on [-1, 1].
  """
  apart = []
  for number, episode in enumerate(episodes):
    states = [None, None]
    for t in range(len(episode['reward']) - 1):
      keys = (*agent.input_keys, 'is_first')
      obs = {key: episode[key][t : t + 1] for key in keys}
      lanes = np.array([number]), np.array([t])
      actions = []
      for i, acting in enumerate((agent, other)):
        action, states[i] = acting.policy(obs, states[i], lanes, 'eval')
        actions.append(np.asarray(action, np.float64))
      apart.append(np.abs(actions[0] - actions[1]))
  return {
    'mean_difference': float(np.mean(apart)),
    'largest_difference': float(np.max(apart)),
  }


def find(name: str, place: Path = PLACE) -> Path:
  """The file of a published policy.

  Args:
    name: of a file in `place` without .npz, or a path of one.

  Raises:
    PublishError: there is none.
  """
  path = rules.expand(name)
  if path.suffix == '.npz' and path.is_file():
    return path
  path = place / f'{name}.npz'
  if path.parent == place and path.is_file():
    return path
  known = sorted(p.stem for p in place.glob('*.npz'))
  there = f'There are {", ".join(known)}' if known else 'There are none'
  raise PublishError(
    f'There is no published policy {cut(str(name))!r}{nearest(name, known)} '
    f'{there} in {place}; a path of an .npz file will do, too.'
  )


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """Variables and card of a file that nobody may have made to do harm.

  Raises:
    PublishError: it is damaged or no such file.
  """
  try:
    if path.stat().st_size > LARGEST:
      raise ValueError(f'it has more than {LARGEST:,} bytes')
    with open_npz(path) as file:
      file.check_names()
      total = 0
      for name in file.names:
        shape, dtype = file.header(name)
        total += int(np.prod(shape, dtype=object)) * dtype.itemsize
      if total > 4 * LARGEST:
        raise ValueError(f'its arrays claim {total:,} bytes')
      arrays = {name: file.read(name) for name in file.names}
    card = parse_json(arrays.pop(CARD).tobytes().decode())
    for name, value in arrays.items():
      if not np.isfinite(value).all():
        raise ValueError(f'{name} is not finite')
    _check(card)
  except (PublishError, MemoryError):
    raise
  except Exception as error:  # A damaged file can fail anywhere in a parser.
    raise PublishError(
      f'{path} is no published policy: {cut(str(error), 300)}.'
    ) from error
  return arrays, card


def load(name: str) -> tuple[Any, Config, dict]:
  """Agent, settings and card of a published policy, for acting alone.

  Args:
    name: as of `find`.

  Raises:
    PublishError, ConfigError, MismatchError: there is none, or it does not fit.
  """
  path = find(name)
  arrays, card = read(path)
  defaults = load_configs().defaults
  given, flat = upgrade(card['settings']), defaults.flat
  known = {k: v for k, v in given.items() if k in flat}
  if left := sorted(given.keys() - known.keys()):
    warn(f'{path} has settings that are unknown here: {cut(", ".join(left))}.')
  config = defaults.replace(known)
  config.check(defaults)
  spaces = policy.spaces_from_meta(card['spaces'])
  agent = make_agent(config, *spaces)
  agent.load(grow(arrays), policy_only=True)
  return agent, config, card


def evaluate(
  name: str,
  episodes: int = 50,
  seed: int | None = None,
  count: int = 2,
  videos: int = 6,
  outdir: Path | str | None = None,
  make_env: Callable | None = None,
  force: bool = False,
) -> tuple[dict, list[Path]]:
  """Evaluates a published policy, as evaluation.evaluate_run does a run.

  Args:
    name: as of `find`.
    seed: of the first episode, by default that of the card.
    outdir: ~/logdir/published/<name> by default.
  """
  agent, config, card = load(name)
  print(describe(card))
  seed = card['evaluation']['first_seed'] if seed is None else seed
  facts = {
    'task': card['task'],
    'method': card['method'],
    'published': card['name'],
    'checkpoint': card['checkpoint'],
    'seed': seed,
    **card['counters'],
  }
  outdir = rules.expand(outdir or f'~/logdir/published/{card["name"]}')
  return evaluation.write_evaluation(
    agent, config, facts, outdir, episodes, count, videos, make_env, force
  )


def describe(card: Mapping) -> str:
  """What a card says, in two lines."""
  found, before = card['evaluation'], card['before_float16']
  earlier = ''
  if 'success' in before:
    earlier = (
      f' (before float16 {before["success"]:.2f} of {before["episodes"]})'
    )
  return (
    f'{card["name"]}: {card["method"]} on {card["task"]}, seed {card["seed"]}, '
    f'gradient step {card["counters"]["gradient_step"]}, commit '
    f'{str(card["commit"])[:12]}\n'
    f'On its card: success {found["success"]:.2f} [{found["success_low"]:.2f}, '
    f'{found["success_high"]:.2f}] in {found["episodes"]} episodes from seed '
    f'{found["first_seed"]} on{earlier}; float16 changes actions by '
    f'{before["mean_difference"]:.2g} on average, '
    f'{before["largest_difference"]:.2g} at most'
  )


def _check(card):
  """Raises ValueError where a card cannot be one."""
  if not isinstance(card, dict) or card.get('format') != FORMAT:
    raise ValueError(f'its card is not of format {FORMAT}')
  meta.check_spaces(card.get('spaces'))
  meta.check_settings(card.get('settings'))
  meta.check_counters(card.get('counters'))
  texts = {k: card.get(k) for k in ('name', 'task', 'method', 'checkpoint')}
  if card.get('commit') is not None:  # Unknown without git.
    texts['commit'] = card['commit']
  for key, value in texts.items():
    if not isinstance(value, str) or not value.isprintable():
      raise ValueError(f'its {key} is no text')
  if Path(card['name']).name != card['name'] or card['name'].startswith('.'):
    raise ValueError('its name is a path')
  if type(card.get('seed')) is not int:
    raise ValueError('its seed is no whole number')
  numbers = {
    'evaluation': ('success', 'success_low', 'success_high', 'episodes')
    + ('first_seed',),
    'before_float16': ('mean_difference', 'largest_difference'),
  }
  if 'success' in card['before_float16']:
    numbers['before_float16'] += ('success', 'episodes')
  for group, keys in numbers.items():
    for key in keys:
      value = card[group][key]
      if isinstance(value, bool) or not rows.is_number(value):
        raise ValueError(f'{group}.{key} is no number')
