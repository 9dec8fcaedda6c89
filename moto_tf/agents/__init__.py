"""Agents: the protocol they follow and the registry of methods.

Every agent, whether or not it learns a model of the world, offers

  obs_space, act_space    spaces it was made for
  input_keys              observations that the policy needs
  obs_keys                observations that learning needs, a superset
  remarks                 lines about what is switched off, for the terminal
  seconds                 spent in `train` so far
  fit(records)            units of vector observations, by records(key), before
                          the first gradient step and never again
  policy(obs, state, lanes, mode)   actions and the next state
  train(batch, step)      one gradient step, returns metrics
  report(batches, step)   metrics and videos without learning
  assess(episodes)        metrics of what was expected of evaluation episodes
  variables(), policy_variables()   what to save, and what acting needs
  save(), load(arrays, policy_only)
  acting_step(cdf)        acting as a function to be exported; may be none

It best derives from `moto_tf.agents.base.Agent`, or with a world model from
`moto_tf.agents.model_based.ModelBasedAgent`. A method is one file with the
class, and one line in METHODS or a call of `register_method`.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from moto_tf.agents.settings import (
  check_dreamer,
  check_latent,
  check_model_free,
  check_moto,
  check_paper_dreamer,
)
from moto_tf.registry import Registry, resolve


@dataclasses.dataclass(frozen=True)
class Method:
  """What the rest of the program knows of a method.

  Attributes:
    make: (config, obs_space, act_space) to the agent, or where it is, as
      'module:attribute'.
    label: its name in figures.
    groups: first parts of its settings' names, such as 'moto' of moto.alpha.
    fixed: settings that make it what it is; others are refused.
    ignores: regular expression over settings that have no effect on it,
      beside those of other methods.
    check: raises ConfigError for settings, by dotted name, that cannot be;
      its second argument holds possible ones, for examples.
    settings: value and help text of settings that configs.yaml does not hold.
    preset: overrides that come with its name in --configs, likewise.
    replicas: whether its gradient steps can be shared, see
      docs/distributed.md.
  """

  make: str | Callable
  label: str
  groups: tuple[str, ...] = ()
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  ignores: str = ''
  check: Callable[[Mapping, Mapping], None] | None = None
  settings: Mapping[str, tuple[Any, str]] = dataclasses.field(
    default_factory=dict
  )
  preset: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  replicas: bool = False


def _moto(label, ignores='', **fixed):
  fixed = {f'moto.{key}': value for key, value in fixed.items()}
  make = 'moto_tf.agents.moto:make'
  return Method(
    make, label, ('moto',), fixed, ignores, check_moto, replicas=True
  )


def _model_free(name, label, groups=(), ignores=''):
  groups = 'model_free', 'model_free_opt', *groups
  ignores = f'{MODEL_BASED}|{ignores}' if ignores else MODEL_BASED
  make = f'moto_tf.agents.{name}:make'
  return Method(
    make,
    label,
    groups,
    ignores=ignores,
    check=check_model_free,
    replicas=True,
  )


# Settings of cloning, without effect where nothing is cloned.
CLONING = r'bc_.+|moto\.clone_mean'
# Settings of world models, of what learns in them, and of reports about them.
MODEL_BASED = (
  r'bc_.+|(rssm|decoder|(reward|discount)_head|kl|loss_scales)\..+'
  r'|encoder\.(?!(mlp|cnn)_keys$).+|(model|actor|critic)_opt\..+'
  r'|(actor|critic)\..+|actor_ent|horizon|discount_lambda|pred_discount'
  r'|slow_target_.+|policy_average|report_every|heldout_data'
)
# Without effect where one step suffices and the policy has no deviation.
UNSAMPLED = r'bc_.+|discount_lambda|actor_ent|actor\.(min_std|sample_grad)'


def _latent(name, label):
  make = f'moto_tf.agents.{name}:make'
  fixed, groups = {'rssm.discrete': 0}, (name, 'latent')
  return Method(make, label, groups, fixed, UNSAMPLED, check_latent)


METHODS = Registry(
  'method',
  {
    'moto': _moto('MOTO'),
    'no_unc': _moto('MOTO without penalty', r'moto\.penalty', alpha=0.0),
    'no_bc': _moto('MOTO without cloning', CLONING, beta=0.0),
    'no_bc_no_unc': _moto(
      'MOTO without both', rf'{CLONING}|moto\.penalty', alpha=0.0, beta=0.0
    ),
    'dreamerv2': Method(
      'moto_tf.agents.dreamer:make',
      'DreamerV2',
      fixed={'rssm.ensemble': 1},
      ignores=r'bc_.+',
      check=check_dreamer,
      replicas=True,
    ),
    'dreamerv2_paper': Method(
      'moto_tf.agents.dreamer:make_paper',
      'DreamerV2 of the paper',
      ('moto',),
      ignores=r'bc_.+|moto\.(?!start_states).+',
      check=check_paper_dreamer,
      replicas=True,
    ),
    'bc': _model_free('bc', 'BC', ('bc',), r'discount|model_free\.tau'),
    'sac': _model_free('sac', 'SAC', ('sac',)),
    'cql': _model_free('cql', 'CQL', ('sac', 'cql')),
    'iql': _model_free('iql', 'IQL', ('iql',)),
    'lompo': _latent('lompo', 'LOMPO'),
    'combo': _latent('combo', 'COMBO'),
  },
)


def register_method(name: str, make: str | Callable, **entry) -> Method:
  """Adds a method of one's own, for --configs, --method, plots and tests.

  Args:
    name: value of the setting `method`, and name of its preset.
    make: (config, obs_space, act_space) to an agent.
    entry: the other attributes of `Method`; label is the name by default.

  Raises:
    RegistryError: the name is taken by another method.
  """
  return METHODS.register(name, Method(make, **{'label': name, **entry}))


def make_agent(config, obs_space: dict, act_space, crew=None) -> Any:
  """The agent of `config.method`.

  Args:
    config: the run's configuration.
    obs_space: observation spaces by key.
    act_space: Box of shape [A] on [-1, 1].
    crew: moto_tf.nn.crew.Crew whose replicas share its gradient steps; None for
      an agent alone, whatever `replicas` says.
  """
  from moto_tf import memory  # Which knows the sizes of agents.

  memory.check_weights(config)
  # Loads TensorFlow, without its notices, before a method does.
  importlib.import_module('moto_tf.nn')
  make = resolve(METHODS[config.method].make)
  if crew is None:
    return make(config, obs_space, act_space)
  from moto_tf.agents.replicated import Replicated

  return Replicated(crew, lambda: make(config, obs_space, act_space))
