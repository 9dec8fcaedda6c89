"""What values the settings of each method may take; without TensorFlow."""

import math
from collections.abc import Mapping
from typing import Any

from moto_tf.rules import (
  LAYERS,
  ConfigError,
  above,
  at_least,
  between,
  check_rules,
  one_of,
  split_names,
)

# Names of moto_tf.agents.penalties.PENALTIES.
PENALTY_NAMES = ('prob_distance', 'logit_std', 'log_prob_std')

MOTO_RULES = {
  r'moto\.penalty': one_of(*PENALTY_NAMES),
  r'moto\.clone_mean': one_of('cloned', 'batch'),
  r'moto\.data_target': one_of('one_step', 'lambda', 'rollout'),
  r'moto\.(alpha|beta|.+_start|model_ramp|start_states)': at_least(0),
}

# Of LOMPO and COMBO.
LATENT_RULES = {
  r'latent\.(batch|capacity|add_every)|combo\.actions': at_least(1),
  r'latent\.(start_states|noise)|lompo\.lmbd': at_least(0),
  r'combo\.conservatism': at_least(0),
  r'latent\.model_share': between(0, 1),
  r'combo\.states': one_of('latent', 'all'),
}


MODEL_FREE_RULES = {
  r'model_free\.(frames|latent)|cql\.actions': at_least(1),
  r'model_free\.pad|cql\.alpha|iql\.temperature': at_least(0),
  r'model_free\.channels': (
    lambda x: 0 < len(x) <= LAYERS and min(x) > 0,
    f'one or more whole numbers above 0, {LAYERS} at most',
  ),
  r'model_free\.tau': (lambda x: 0 < x <= 1, 'above 0 and at most 1'),
  r'sac\.temperature|iql\.clip': above(0),
  r'sac\.target_entropy': (
    lambda x: x < math.log(2),
    'less than ln 2, the entropy of all actions alike, such as -0.5',
  ),
  r'sac\.target_q': one_of('mean', 'min'),
  r'iql\.expectile': (lambda x: 0 < x < 1, 'above 0 and below 1'),
}


def check_cloning(values: Mapping[str, Any]) -> None:
  """Raises ConfigError where the settings bc_* contradict one another."""
  if values['bc_targets'] and values['bc_threshold']:
    raise ConfigError(
      f'bc_threshold: {values["bc_threshold"]:g} and bc_targets: '
      f'{values["bc_targets"]} both say which episodes to clone; set '
      "--bc_threshold 0 or --bc_targets ''."
    )
  targets = split_names(values['bc_targets'])
  if values['bc_onward'] and (
    not targets or values['bc_onward'].strip() in targets
  ):
    raise ConfigError(
      f'bc_onward: {values["bc_onward"]} is to be reached from the last of '
      f'bc_targets, which are {values["bc_targets"] or "none"}; name a target '
      "that is not one of them, or set --bc_onward ''."
    )


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


def check_model_free(
  values: Mapping[str, Any], examples: Mapping[str, Any]
) -> None:
  """Raises ConfigError where an agent without a world model cannot learn."""
  check_rules(values, examples, MODEL_FREE_RULES)
  frames, length = values['model_free.frames'], values['replay.length']
  if length <= frames:
    raise ConfigError(
      f'replay.length: {length} records hold no step from one stack of '
      f'model_free.frames = {frames} to the next; give at least {frames + 1}.'
    )


def check_latent(
  values: Mapping[str, Any], examples: Mapping[str, Any]
) -> None:
  """Raises ConfigError where LOMPO and COMBO could not fill their buffers."""
  check_rules(values, examples, LATENT_RULES)
  batch, length, horizon, capacity, starts = (
    values[key]
    for key in (
      'replay.batch',
      'replay.length',
      'horizon',
      'latent.capacity',
      'latent.start_states',
    )
  )
  if starts > batch * length:
    raise ConfigError(
      f'latent.start_states: {starts} is more than the replay.batch * '
      f'replay.length = {batch * length} states of a batch; give at most that, '
      'or 0 for all of them.'
    )
  imagined = (starts or batch * length) * horizon
  need = max(imagined, batch * (length - 1))
  if need > capacity:
    raise ConfigError(
      f'latent.capacity: {capacity} transitions are fewer than the {need} that '
      f'are added at a time, of {batch} windows of {length} records and their '
      f'rollouts of {horizon} steps; give at least {need}, or lower '
      'replay.batch or latent.start_states.'
    )


def check_replicas(values: Mapping[str, Any], able: bool, starts: bool) -> None:
  """Raises ConfigError where replicas cannot share a gradient step alike.

  Args:
    values: of the settings.
    able: whether the method's gradient steps can be shared.
    starts: whether the method draws `moto.start_states`.
  """
  count = values['replicas']
  if count == 1:
    return
  if not able:
    raise ConfigError(
      f'replicas: gradient steps of {values["method"]} cannot be shared by '
      f'{count} replicas; set --replicas 1.'
    )
  for key in ('replay.batch', *(['moto.start_states'] if starts else [])):
    if values[key] % count:
      raise ConfigError(
        f'{key}: {values[key]} cannot be shared by {count} replicas alike; '
        f'give a multiple, such as --{key} '
        f'{-(-values[key] // count) * count}, or other --replicas.'
      )
  for key in ('jit', 'eager'):
    if values[key]:
      raise ConfigError(
        f'{key}: True does not go together with replicas: {count}; set '
        f'--{key} False, or --replicas 1.'
      )


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
