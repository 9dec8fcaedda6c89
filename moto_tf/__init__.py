"""MOTO, offline pre-training to online fine-tuning, in TensorFlow.

The names below load on first use, so `import moto_tf` stays fast and does not
start TensorFlow.
"""

import importlib

from moto_tf import startup

__version__ = '0.2.0'

_HOMES = {
  'Config': 'moto_tf.config',
  'MotoError': 'moto_tf.errors',
  'Run': 'moto_tf.training.run',
  'Stopped': 'moto_tf.training.session',
  'diagnose': 'moto_tf.studies.diagnose',
  'evaluate_run': 'moto_tf.training.evaluation',
  'explain_errors': 'moto_tf.errors',
  'export_policy': 'moto_tf.deploy.export',
  'load_configs': 'moto_tf.presets',
  'load_plugins': 'moto_tf.registry',
  'load_policy': 'moto_tf.policy',
  'make_config': 'moto_tf.presets',
  'make_env': 'moto_tf.envs',
  'parse': 'moto_tf.commands.settings',
  'publish': 'moto_tf.results.published',
  'rank': 'moto_tf.studies.rank',
  'register_format': 'moto_tf.data.importers',
  'register_method': 'moto_tf.agents',
  'register_study': 'moto_tf.studies',
  'register_suite': 'moto_tf.envs',
  'train': 'moto_tf.training.algorithm',
}

__all__ = ['__version__', *_HOMES]


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  with startup.quiet():
    found = getattr(importlib.import_module(_HOMES[name]), name)
  globals()[name] = found  # So that this is asked for once.
  return found


def __dir__() -> list[str]:
  return sorted(__all__)
