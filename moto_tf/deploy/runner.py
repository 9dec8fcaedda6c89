"""Acts as an exported policy of moto_tf, with NumPy and LiteRT alone.

  pip install numpy ai-edge-litert

  from moto_policy import ExportedPolicy

  policy = ExportedPolicy()
  policy.reset()          # before each episode
  action = policy(image)  # or policy({'image': image, 'state': state})

This file lies beside card.json and the exported formats, and needs nothing else
of moto_tf.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np

# Files of the formats that LiteRT runs.
FILES = {'float32': 'policy.tflite', 'int8': 'policy-int8.tflite'}
NORMAL = NormalDist()


class ExportedPolicy:
  """A trained policy for one environment.

  It acts as `moto_tf.load_policy` with the same seed: both draw their noise
  from the seed, the number of the episode and that of the step.

  Attributes:
    card: what is known of the policy, as in card.json.
    state: what the policy remembers, arrays by name; zeros before an episode.
  """

  def __init__(
    self,
    directory: str | Path | None = None,
    format: str = 'float32',
    seed: int = 0,
    threads: int = 1,
    run: Callable[[dict], Mapping] | None = None,
  ):
    """Loads a policy.

    Args:
      directory: of card.json; by default that of this file.
      format: float32, or int8, whose weights are quantised.
      seed: of the noise.
      threads: that LiteRT may use.
      run: takes the place of LiteRT, from inputs to outputs by name.
    """
    directory = Path(directory or Path(__file__).parent).expanduser()
    self.card = json.loads((directory / 'card.json').read_text('utf-8'))
    if run is None:
      if format not in FILES:
        raise ValueError(f'format is one of {[*FILES]}, got {format!r}.')
      run = _litert(directory / FILES[format], threads)
    self._run = run
    self._seed = seed
    self._episode = -1
    self.reset()

  def reset(self) -> None:
    """Forgets the past; the next observation starts an episode."""
    self.state = {
      name: np.zeros(part['shape'], part['dtype'])
      for name, part in self.card['interface']['state'].items()
    }
    self._step = 0
    self._episode += 1

  def __call__(self, observation: Mapping | np.ndarray) -> np.ndarray:
    """Action [A] within [-1, 1] for one observation.

    Args:
      observation: array by key, or the array itself if the policy uses one
        key alone. Other keys are ignored.

    Raises:
      ValueError: a key is missing, a shape or dtype is not that of the card,
        or numbers are not finite. What the policy remembers stays as it was.
    """
    interface = self.card['interface']
    parts = interface['observations']
    if not isinstance(observation, Mapping):
      if len(parts) != 1:
        raise ValueError(f'The policy needs a dict with the keys {[*parts]}.')
      observation = {next(iter(parts)): observation}
    inputs = {interface['is_first']: np.array([self._step == 0])}
    for key, part in parts.items():
      if key not in observation:
        raise ValueError(
          f'Observation {key!r} is missing; the policy needs {[*parts]}.'
        )
      inputs[part['name']] = _check(key, observation[key], part)[None]
    for key, part in interface['state'].items():
      inputs[part['name']] = self.state[key]
    inputs.update(self._noise())
    outputs = self._run(inputs)
    action = np.asarray(outputs[interface['action']])
    state = {
      key: np.asarray(outputs[part['name']])
      for key, part in interface['state'].items()
    }
    # Infinite numbers inside may still give an action that looks normal.
    if not all(np.isfinite(value).all() for value in (action, *state.values())):
      raise ValueError(
        'The policy cannot act on this observation: its numbers are far from '
        'those it was trained on.'
      )
    self.state = state
    self._step += 1
    return action[0]

  def _noise(self):
    """As moto_tf draws it, of the seed, the episode and the step."""
    parts = self.card['interface']['noise'].values()
    sizes = [int(np.prod(part['shape'])) for part in parts]
    seed = [self._seed * 100_003 + self._episode, self._step]
    uniform = np.random.default_rng(seed).random(sum(sizes), np.float32)
    uniform = np.clip(uniform, 1e-7, 1 - 1e-7)
    noise, begin = {}, 0
    for part, size in zip(parts, sizes):
      value = uniform[begin : begin + size].reshape(part['shape'])
      if part['kind'] == 'gumbel':
        value = -np.log(-np.log(value))
      elif part['kind'] == 'normal':
        value = [*map(NORMAL.inv_cdf, value.ravel().tolist())]
        value = np.float32(value).reshape(part['shape'])
      noise[part['name']] = value
      begin += size
    return noise


def _check(key, value, part):
  """An observation as an array of its shape and dtype."""
  try:
    value = np.asarray(value)
  except ValueError as error:  # Lists of several lengths.
    raise ValueError(f'Observation {key!r}: {error}.') from error
  image = part['dtype'] == 'uint8'
  if (
    list(value.shape) != part['shape']
    or value.dtype.kind not in 'biuf'
    or image != (value.dtype == np.uint8)
  ):
    raise ValueError(
      f'Observation {key!r} has shape {list(value.shape)} and dtype '
      f'{value.dtype}, expected {part["shape"]} {part["dtype"]}.'
    )
  with np.errstate(over='ignore'):
    value = value.astype(part['dtype'])
  if not image and not np.isfinite(value).all():
    raise ValueError(f'Observation {key!r} has numbers that are not finite.')
  return value


def _litert(path, threads):
  """The function of a .tflite file, from inputs to outputs by name."""
  try:
    from ai_edge_litert.interpreter import Interpreter
  except ModuleNotFoundError as error:
    if (error.name or '').split('.')[0] != 'ai_edge_litert':
      raise
    raise ModuleNotFoundError(
      'LiteRT is not installed: pip install ai-edge-litert', name=error.name
    ) from None
  interpreter = Interpreter(model_path=str(path), num_threads=threads)
  signature = interpreter.get_signature_runner()
  return lambda inputs: signature(**inputs)
