"""A policy as files: SavedModel, LiteRT in float32 and with int8 weights."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from moto_tf import startup
from moto_tf.deploy import lite, runner
from moto_tf.deploy.protocol import NOISE, ActingStep, DeployError
from moto_tf.nn import dists

SAVED_MODEL = 'saved_model'
INT8 = 'int8'


def write(agent: Any, directory: Path) -> dict:
  """Writes all formats of an agent's policy.

  Args:
    agent: with `acting_step`, see moto_tf.agents.
    directory: that is there.

  Returns:
    What the functions take and return, see `describe`.

  Raises:
    DeployError: the agent's policy cannot be exported.
  """
  find = getattr(agent, 'acting_step', None)
  if find is None:
    raise DeployError(
      f'The agent {type(agent).__name__} cannot be exported: it has no '
      'acting_step, which docs/deploy.md describes.'
    )
  acting = find(dists.normal_cdf)
  interface = describe(agent, acting)
  _save(acting, interface, directory / SAVED_MODEL)
  # A SavedModel again, since LiteRT has names of inputs and outputs from there.
  source = directory / 'lite'
  _save(find(lite.normal_cdf), interface, source)
  for name, file in runner.FILES.items():
    (directory / file).write_bytes(_convert(source, name == INT8))
  for path in sorted(source.rglob('*'), reverse=True):
    path.rmdir() if path.is_dir() else path.unlink()
  source.rmdir()
  return interface


def describe(agent: Any, acting: ActingStep) -> dict:
  """Inputs and outputs of the exported function, as the runner reads them.

  Returns:
    observations, state and noise, each a dict from a key to the name of the
    input, the shape and the dtype or kind; the names of is_first and of the
    action. An observation has no axis of environments here. The next state has
    the names of the state.
  """
  spaces = {key: agent.obs_space[key] for key in agent.input_keys}
  for key, (kind, _) in acting.noise.items():
    if kind not in NOISE:
      raise ValueError(f'The noise {key} is {kind!r}, not one of {NOISE}.')
  return {
    'observations': {
      key: {'name': name, 'shape': [*space.shape], 'dtype': space.dtype.name}
      for (key, space), name in zip(spaces.items(), _names('obs', spaces))
    },
    'state': {
      key: {'name': name, 'shape': [*shape], 'dtype': dtype}
      for (key, (shape, dtype)), name in zip(
        acting.state.items(), _names('state', acting.state)
      )
    },
    'noise': {
      key: {'name': name, 'shape': [*shape], 'kind': kind}
      for (key, (kind, shape)), name in zip(
        acting.noise.items(), _names('noise', acting.noise)
      )
    },
    'is_first': 'is_first',
    'action': 'action',
  }


def load_saved_model(directory: Path) -> Callable[[dict], dict]:
  """The function of a SavedModel, from inputs to outputs by name."""
  with startup.quiet():
    loaded = tf.saved_model.load(str(directory))
  signature = loaded.signatures['serving_default']

  def run(inputs):
    outputs = signature(**{k: tf.constant(v) for k, v in inputs.items()})
    return {k: v.numpy() for k, v in outputs.items()}

  run.keep = loaded  # Its variables go with it.
  return run


def load_litert(path: Path) -> tuple[Callable[[dict], dict], str]:
  """The function of a .tflite file, and what runs it.

  That is LiteRT if it is installed, else the interpreter of TensorFlow.
  """
  try:
    from ai_edge_litert.interpreter import Interpreter

    name = 'ai-edge-litert'
  except ModuleNotFoundError:
    Interpreter = tf.lite.Interpreter
    name = f'tensorflow {tf.__version__}'
  with startup.quiet():
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    signature = interpreter.get_signature_runner()
  return lambda inputs: signature(**inputs), name


def _names(prefix, keys):
  """Names of inputs for any keys: letters, digits, and each once."""
  names = []
  for key in keys:
    name = f'{prefix}_{re.sub("[^0-9a-zA-Z]", "_", key)}'
    names.append(f'{name}_{len(names)}' if name in names else name)
  return names


def _save(acting, interface, directory):
  """Writes a SavedModel of the step with flat inputs and outputs."""
  groups = ('observations', 'state', 'noise')
  inputs = [(g, key, interface[g][key]) for g in groups for key in interface[g]]
  specs = [tf.TensorSpec([1], tf.bool, interface['is_first'])]
  for group, _, part in inputs:
    shape = part['shape']
    shape = [1, *shape] if group == 'observations' else shape
    dtype = part.get('dtype', 'float32')
    specs.append(tf.TensorSpec(shape, dtype, part['name']))

  def act(is_first, *values):
    given = {group: {} for group in groups}
    for (group, key, _), value in zip(inputs, values, strict=True):
      given[group][key] = value
    obs = {**given['observations'], 'is_first': is_first}
    action, state = acting.step(obs, given['state'], given['noise'])
    parts = interface['state'].items()
    state = {part['name']: state[key] for key, part in parts}
    return {interface['action']: action, **state}

  module = tf.Module()
  module.act = tf.function(act, input_signature=specs, autograph=False)
  concrete = module.act.get_concrete_function()
  module.weights = list(concrete.graph.variables)
  options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
  with startup.quiet():
    tf.saved_model.save(module, str(directory), concrete, options)


def _convert(source, quantise):
  """Bytes of a .tflite file, of operations that LiteRT has by itself."""
  with startup.quiet():
    converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    builtin = tf.lite.OpsSet.TFLITE_BUILTINS
    converter.target_spec.supported_ops = [builtin]
    if quantise:
      converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
      return converter.convert()
    except Exception as error:  # The converter's own has no public name.
      problem = error
  lacks = re.search('TF Select ops: (.*)', str(problem))
  raise DeployError(
    f'LiteRT has no operation {lacks[1]}, which acting_step of the agent uses.'
    if lacks
    else f'TensorFlow cannot convert the policy to LiteRT. {problem}'[:500]
  ) from problem
