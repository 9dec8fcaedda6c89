"""What a run needs of a machine's memory, before anything is built."""

import os
from collections.abc import Callable
from pathlib import Path

from moto_tf.agents import sizes
from moto_tf.rules import ConfigError, is_list, show

GIB = 2**30
# Of a process with an environment, at least.
WORKER = GIB // 10
# Of one with TensorFlow, at least.
COLLECTOR = GIB // 2
# Of the largest GPU; how much one has TensorFlow alone knows.
GPU = 192 * GIB
LIMITS = (
  '/sys/fs/cgroup/memory.max',
  '/sys/fs/cgroup/memory/memory.limit_in_bytes',
)


def host() -> int:
  """Bytes of memory that processes may use, without that of GPUs."""
  found = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  for path in map(Path, LIMITS):
    text = path.read_text().strip() if path.is_file() else ''
    found = min(found, int(text)) if text.isdigit() else found
  return found


def machine() -> int:
  """Bytes that settings may need: of the host and of its largest GPU."""
  return host() + (GPU if Path('/dev/nvidia0').exists() else 0)


def eval_environments(config) -> int:
  """How many environments a run steps at a time in its evaluations."""
  return min(config.envs, config.eval_episodes)


def acting(config) -> dict[str, int]:
  """Bytes by what they are for, of an agent that acts alone."""
  return {
    'weights': sizes.weights(config) // sizes.COPIES,
    'latent buffers': sizes.latent_buffers(config) // 2,
  }


def estimate(config) -> dict[str, int]:
  """Bytes by what they are for, of a run in its last episode."""
  length = max(config.env.time_limit, 1)
  record = sizes.image_bytes(config.env) + sizes.NUMBER
  episodes = -(-config.online_steps // config.updates_per_episode)
  # An environment's own limit may be any, so without one nothing is known.
  held = episodes * config.env.time_limit
  collectors = config.collectors if config.collect == 'async' else 0
  return {
    'weights': sizes.weights(config),
    'a gradient step': sizes.gradient_step(config),
    'latent buffers': sizes.latent_buffers(config),
    'episodes of an evaluation': config.eval_episodes * length * record,
    'environments': WORKER * (1 + eval_environments(config)),
    'collectors': collectors * (COLLECTOR + sum(acting(config).values())),
    'the replay': min(config.replay.capacity, held) * record,
  }


def check(config, of: Callable = estimate) -> None:
  """Refuses settings that need more memory than there is.

  Args:
    config: settings of a run.
    of: from a Config to bytes by what they are for.

  Raises:
    ConfigError: they do; the message says what would fit.
  """
  need, limit = of(config), machine()
  if sum(need.values()) <= limit:
    return
  parts = sorted(need.items(), key=lambda x: -x[1])[:2]
  text = ', '.join(f'{v / GIB:,.1f} GiB for {k}' for k, v in parts)
  raise ConfigError(
    f'The settings need about {text}, and this machine has '
    f'{limit / GIB:,.1f} GiB of memory. {_advice(config, of, limit)}'
  )


def check_weights(config) -> None:
  """As `check`, for an agent that acts alone."""
  check(config, acting)


def check_rollouts(config, episodes: int) -> None:
  """As `check`, for so many episodes that are held at a time."""
  record = lambda x: sizes.image_bytes(x.env) + sizes.NUMBER
  count = lambda x: episodes * max(x.env.time_limit, 1) * record(x)
  check(config, lambda x: {f'{episodes:,} episodes': count(x)})


def _advice(config, of, limit):
  """Which settings alone, if they were smaller, would make the others fit."""
  from moto_tf.presets import load_configs

  defaults = load_configs().defaults
  fits = lambda key, value: (
    sum(of(config.replace({key: value})).values()) <= limit
  )
  found, large = [], []
  for key, value in config.flat.items():
    low = defaults.flat.get(key, value)
    if is_list(value) and value != low:
      large.append(key)
      found += [f'--{key} {show(low)}'] if fits(key, low) else []
    elif type(value) is int and value > 1 and key != 'seed':
      low = low if value > low else 1
      large += [key] if low > 1 else []
      if fits(key, low):
        found.append((key, low, value))
  if not found:
    return (
      f'Lower {", ".join(large) or "replay.batch and the layers"} together, or '
      'begin with --configs small.'
    )
  # Those beyond their defaults first; they are what was asked for.
  found.sort(key=lambda x: isinstance(x, tuple) and x[0] not in large)
  words = [
    x if isinstance(x, str) else f'--{x[0]} {_largest(fits, *x)}'
    for x in found[:3]
  ]
  return f'{" or ".join(words)} would fit.'


def _largest(fits, key, low, high):
  """The largest value from low to high that fits, of which low does."""
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if fits(key, middle) else (low, middle)
  return low
