"""What values the settings of each method may take; without TensorFlow."""

from collections.abc import Mapping
from typing import Any

from moto_tf.rules import ConfigError, at_least, check_rules, one_of

# Names of moto_tf.agents.penalties.PENALTIES.
PENALTY_NAMES = ('prob_distance', 'logit_std', 'log_prob_std')

MOTO_RULES = {
  r'moto\.penalty': one_of(*PENALTY_NAMES),
  r'moto\.clone_mean': one_of('cloned', 'batch'),
  r'moto\.data_target': one_of('one_step', 'lambda', 'rollout'),
  r'moto\.(alpha|beta|.+_start|model_ramp|start_states)': at_least(0),
}


def check_moto(values: Mapping[str, Any], examples: Mapping[str, Any]) -> None:
  """Raises ConfigError where the settings of MOTO cannot be used."""
  check_rules(values, examples, MOTO_RULES)
  penalised = values['moto.alpha'] and values['moto.penalty'] != 'log_prob_std'
  if not values['rssm.discrete'] and penalised:
    raise ConfigError(
      f'moto.penalty: {values["moto.penalty"]} is of categorical latents, and '
      'rssm.discrete 0 has Gaussian ones; set --moto.penalty log_prob_std.'
    )
  if values['moto.model_start'] and not values['moto.beta']:
    raise ConfigError(
      f'moto.model_start: before step {values["moto.model_start"]} the policy '
      'only clones, and moto.beta 0 leaves cloning out; set '
      '--moto.model_start 0, or moto.beta above 0.'
    )
  if values['bc_targets'] and values['bc_threshold']:
    raise ConfigError(
      f'bc_threshold: {values["bc_threshold"]:g} and bc_targets: '
      f'{values["bc_targets"]} both say which episodes to clone; set '
      "--bc_threshold 0 or --bc_targets ''."
    )
  _check_starts(values)


def check_dreamer(
  values: Mapping[str, Any], examples: Mapping[str, Any]
) -> None:
  """Raises ConfigError where DreamerV2 could not learn."""
  del examples
  if values['horizon'] < 2:
    raise ConfigError(
      'horizon: 1 leaves DreamerV2 without an actor loss, which starts at the '
      'second imagined state; give at least 2.'
    )


def check_paper_dreamer(
  values: Mapping[str, Any], examples: Mapping[str, Any]
) -> None:
  """Raises ConfigError where the paper's DreamerV2 could not learn."""
  check_dreamer(values, examples)
  check_rules(values, examples, {r'moto\.start_states': at_least(0)})
  _check_starts(values)


def _check_starts(values):
  starts, batch, length = (
    values[key]
    for key in ('moto.start_states', 'replay.batch', 'replay.length')
  )
  if starts > batch * (length - 1):
    raise ConfigError(
      f'moto.start_states: {starts} is more than the replay.batch * '
      f'(replay.length - 1) = {batch * (length - 1)} transitions of a '
      'batch; give at most that, or 0 for all of them.'
    )
