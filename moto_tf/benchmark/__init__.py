"""How fast moto_tf is on a machine, see the command benchmark.

Figures are numbers by dotted name whose end is the unit: `seconds`, `ms`,
`mib`, `gib`, `gflop` (10^9 floating point operations) and `per_second`.
"""

import re
import sys
import time
from collections.abc import Callable

from moto_tf.errors import MotoError

PARTS = {
  'peak': 'yardstick: product of two float32 matrices of 2048 x 2048',
  'first': 'first gradient step of a fresh process, and traces',
  'step': 'steady gradient steps: time, FLOP, memory, most expensive ops',
  'policy': 'one action for one observation',
  'replay': 'loading 500 episodes, drawing batches',
  'simulator': 'environment steps and images (Meta-World)',
  'replay_large': 'memory of a replay of 5,000 episodes; about 1.5 GiB for '
  'images of 64 x 64, so only when named',
}
DEFAULT_PARTS = tuple(part for part in PARTS if part != 'replay_large')

# The name scopes of the agents' code, in the order of a gradient step.
SCOPES = (
  'frames',
  'encoder',
  'posterior',
  'prior',
  'decoder',
  'heads',
  'model_opt',
  'rollout',
  'penalty',
  'value',
  'actor',
  'clone',
  'critics',
  'targets',
  'value_opt',
  'actor_opt',
  'temperature_opt',
  'critic_opt',
)
OTHER = 'other'


class BenchmarkError(MotoError, RuntimeError):
  """Something cannot be measured or compared; the message says why."""


def scope_of(name: str) -> str:
  """Scope of an op: the first piece of its name that is one, or 'other'.

  TensorFlow adds numbers, as in encoder_1, and prefixes, as in
  gradient_tape/encoder/conv0.
  """
  for piece in name.split('/'):
    piece = re.sub(r'_\d+$', '', piece)
    if piece in SCOPES:
      return piece
  return OTHER


def progress(title: str, started: float) -> Callable[[str], None]:
  """A function that says on stderr what is measured, and the time so far."""

  def say(text: str) -> None:
    print(
      f'[{time.time() - started:4.0f} s] {title}: {text}',
      file=sys.stderr,
      flush=True,
    )

  return say
