"""Runs that stand for one method: whether they have the same settings."""

from collections.abc import Iterable, Mapping
from typing import Any

from moto_tf.config import flatten
from moto_tf.errors import warn
from moto_tf.renames import upgrade
from moto_tf.results.curves import LoadedRun
from moto_tf.rules import cut
from moto_tf.training.rundir import NO_HPARAMS

# What seeds of one method may differ in, beside what changes no result.
FREE = {*NO_HPARAMS, 'seed', 'variant', 'online_steps'}
SHOWN = 4


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
  """Keys of settings of any version that both have and that differ.

  Leaves out seeds, places, budgets, and what is only logged or evaluated.
  """
  one, other = (upgrade(flatten(x)) for x in (one, other))
  plain = lambda x: list(x) if isinstance(x, list | tuple) else x
  return sorted(
    key
    for key in one.keys() & other.keys() - FREE
    if plain(one[key]) != plain(other[key])
  )


def warn_of_mixtures(runs: Iterable[LoadedRun]) -> None:
  """Names settings that differ among the runs of a task and a method."""
  first, told = {}, set()
  for run in runs:
    group = (run.task, run.method)
    other = first.setdefault(group, run)
    keys = differences(other.config, run.config)
    if keys and group not in told:
      told.add(group)
      more = f' and {len(keys) - SHOWN} more' if len(keys) > SHOWN else ''
      warn(
        f'{run.method} on {run.task} has runs of different settings, which are '
        f'drawn as one: {other.path} and {run.path} differ in '
        f'{cut(", ".join(keys[:SHOWN]))}{more}. --methods leaves some out, and '
        'a variant keeps them apart.'
      )
