"""MOTO, offline pre-training to online fine-tuning, in TensorFlow.

The names below load on first use, so `import moto_tf` stays fast and does not
start TensorFlow.
"""

import importlib

from moto_tf import startup

__version__ = '0.1.0'

_HOMES = {
  'Config': 'moto_tf.config',
  'Run': 'moto_tf.train.run',
  'explain_errors': 'moto_tf.errors',
  'load_configs': 'moto_tf.config',
  'load_policy': 'moto_tf.train.evaluation',
  'make_config': 'moto_tf.config',
  'make_env': 'moto_tf.envs',
  'parse': 'moto_tf.config',
}

__all__ = ['__version__', *_HOMES]


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  with startup.quiet():
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
  return sorted(__all__)
