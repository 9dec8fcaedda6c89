"""What agents share: compiled functions, seeds, metrics, save and load."""

import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from moto_tf.deploy.protocol import ActingStep, DeployError
from moto_tf.errors import MotoError
from moto_tf.nn import tfutils
from moto_tf.nn.layers import Layers


class MismatchError(MotoError, ValueError):
  """Saved arrays do not fit the agent; the message says which."""


class Agent:
  """Base of agents; see moto_tf.agents for the protocol.

  All randomness derives from seeds given as arguments, never from a hidden
  generator, so equal inputs give equal outputs and a run can be resumed.

  Subclasses set `input_keys` and `obs_keys` and implement `policy`, `_train`,
  `variables` and `policy_variables`.

  Args:
    config: the run's configuration.
    obs_space: observation spaces by key.
    act_space: Box of shape [A] on [-1, 1].

  Attributes:
    layers: makes weights, all seeded and of the configured precision.
    functions: the compiled parts of a gradient step, by name.
    seconds: spent in `train` so far.
    remarks: what is switched off, for the terminal.
  """

  input_keys: list[str]
  obs_keys: list[str]

  def __init__(self, config, obs_space: dict, act_space):
    self._config = config
    precision = tfutils.setup(config.precision, config.eager)
    self._jit = config.jit and not config.eager
    cpu = not self._jit and not tf.config.list_logical_devices('GPU')
    self.layers = Layers(config.seed, precision, cpu)
    self.obs_space = obs_space
    self.act_space = act_space
    self.functions = {}
    self.seconds = 0.0
    self.remarks = []

  def compile(self, function: Callable, jit: bool = False) -> Callable:
    """The function as a graph; with XLA where `jit` and the setting say so."""
    # Without autograph, which nearly doubles the time of tracing for nothing.
    # Where XLA is not asked for, None leaves it to what calls the function.
    jit = self._jit if jit else None
    # In a partial, since TensorFlow counts tracings by code object: it would
    # take the method of several agents for one traced again and again.
    function = functools.partial(function)
    return tf.function(function, autograph=False, jit_compile=jit)

  def fit(self, records: Callable[[str], np.ndarray]) -> None:
    """Fixes the units of vector observations.

    Before the first gradient step, and never again.

    Args:
      records: from the key of an observation to all of its records [N, ...].
    """

  def policy(
    self,
    obs: dict[str, np.ndarray],
    state: dict | None,
    lanes: tuple[np.ndarray, np.ndarray],
    mode: str = 'train',
  ) -> tuple[np.ndarray, dict]:
    """Actions for N environments; what a lane does depends on it alone.

    Args:
      obs: observations [N, ...] with is_first [N].
      state: what the previous call returned, or None.
      lanes: seed [N] of each lane's episode and its agent step [N].
      mode: train samples the action, eval takes what `eval_action` says.

    Raises:
      ValueError: there is no such mode.

    Returns:
      Actions [N, A] within [-1, 1], and the next state.
    """
    raise NotImplementedError

  def acting_step(self, cdf: Callable[[tf.Tensor], tf.Tensor]) -> ActingStep:
    """What `policy` does in evaluation, as a function that can be exported.

    Args:
      cdf: distribution function of the standard normal, which not every
        device has an operation for.

    Raises:
      DeployError: the method, or its settings, cannot be exported. So by
        default.
    """
    del cdf
    raise DeployError(
      f'Policies of the method {self._config.method} cannot be exported: '
      f'{type(self).__name__} has no acting_step.'
    )

  def _exported_action(self) -> str:
    """What `eval_action` says, for `acting_step`.

    Raises:
      DeployError: it cannot be exported.
    """
    how = self._config.eval_action
    if how == 'sample':
      raise DeployError(
        'eval_action is sample, which cannot be exported; give '
        '--eval_action mean or mode.'
      )
    return how

  def train(self, batch: dict[str, np.ndarray], step: int) -> dict[str, float]:
    """One gradient step of everything that learns (Algorithm 1).

    Args:
      batch: of Replay.sample, [B, T, ...].
      step: number of the gradient step; together with the configured seed it
        fixes all randomness.

    Returns:
      Scalar metrics by name; those with 'loss' in it must be finite.
    """
    begin = time.perf_counter()
    metrics = fetch(self._train(to_tensors(batch), step))
    self.seconds += time.perf_counter() - begin
    return metrics

  def report(
    self, batches: list[dict[str, np.ndarray]], step: int
  ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """What is known of batches without learning from them.

    Args:
      batches: as of `train`.
      step: fixes all randomness, as in `train`.

    Returns:
      Scalar metrics, and videos [T, H, W, C] uint8 by key. None by default.
    """
    del batches, step
    return {}, {}

  def assess(self, episodes: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """What the agent expected of its evaluation against what came.

    Args:
      episodes: of the policy, arrays [T + 1, ...] as Driver.run returns them.

    Returns:
      Scalar metrics. None by default.
    """
    del episodes
    return {}

  def variables(self) -> dict[str, tf.Variable]:
    """Every variable that learning or the data change, by name."""
    raise NotImplementedError

  def policy_variables(self) -> dict[str, tf.Variable]:
    """Those of `variables` that acting needs."""
    raise NotImplementedError

  def traces(self, batch: dict[str, np.ndarray]) -> Iterator[tuple]:
    """Traces the functions of a gradient step, in their order.

    Args:
      batch: as of `train`.

    Yields:
      Name, FuncGraph, and the size of what the graph leaves open or None.
    """
    del batch
    yield from ()

  def save(self) -> dict[str, np.ndarray]:
    """Arrays for a checkpoint."""
    return {k: v.numpy() for k, v in self.variables().items()}

  def save_policy(self) -> dict[str, np.ndarray]:
    """Those that acting needs."""
    return {k: v.numpy() for k, v in self.policy_variables().items()}

  def load(
    self, arrays: dict[str, np.ndarray], policy_only: bool = False
  ) -> None:
    """Restores what `save` returned, at any precision.

    Args:
      arrays: of a checkpoint.
      policy_only: leaves out critics and optimizers, for acting alone.

    Raises:
      MismatchError: names, shapes or kinds of numbers differ from this agent's.
    """
    wanted = self.variables()
    if policy_only:
      rest = wanted.keys() - self.policy_variables().keys()
      wanted = {k: v for k, v in wanted.items() if k not in rest}
      arrays = {k: v for k, v in arrays.items() if k not in rest}
    # A run may change its precision; a new loss scale adapts by itself.
    common = lambda name, other: '/loss_scale/' not in name or name in other
    state = {k: v for k, v in wanted.items() if common(k, arrays)}
    arrays = {k: v for k, v in arrays.items() if common(k, state)}
    wrong = sorted(set(state) ^ set(arrays)) or [
      f'{k} {arrays[k].dtype}{list(arrays[k].shape)}, expected '
      f'{v.dtype.name}{v.shape.as_list()}'
      for k, v in state.items()
      if not _fits(arrays[k], v)
    ]
    if wrong:
      raise MismatchError(
        f'The checkpoint does not fit this configuration: {len(wrong)} of '
        f"{len(state)} arrays differ, such as {wrong[:3]}. Use the logdir's "
        'own config.yaml, or a new --logdir for other sizes; the changelog '
        'says what a new version of moto_tf cannot load.'
      )
    for key, var in state.items():
      var.assign(arrays[key])

  def _train(
    self, batch: dict[str, tf.Tensor], step: int
  ) -> dict[str, tf.Tensor]:
    """The gradient step of `train`, on tensors."""
    raise NotImplementedError

  def _seed(self, use: int, step: int) -> tf.Tensor:
    """Stateless seed [2] of a use of randomness at a step."""
    seed = tfutils.make_seed(self._config.seed, use, step)
    return tf.convert_to_tensor(seed)


def _fits(array, var):
  """Whether an array is a value of a variable, at any precision."""
  kinds = 'f' if var.dtype.is_floating else 'b' if var.dtype.is_bool else 'iu'
  return array.shape == tuple(var.shape) and array.dtype.kind in kinds


def to_tensors(batch: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
  """Arrays of a batch as tensors."""
  return {k: tf.convert_to_tensor(v) for k, v in batch.items()}


def fetch(metrics: dict[str, tf.Tensor]) -> dict[str, float]:
  """Scalars to floats, in one transfer from the device."""
  values = tf.stack([tf.cast(v, tf.float32) for v in metrics.values()])
  return dict(zip(metrics, values.numpy().tolist(), strict=True))


def check_mode(mode: str) -> None:
  """Raises ValueError for a mode that `policy` does not have."""
  if mode not in ('train', 'eval'):
    raise ValueError(f"mode is 'train' or 'eval', got {mode!r}.")


def lane_noise(lanes: tuple[np.ndarray, np.ndarray], size: int) -> np.ndarray:
  """Uniform noise [N, size] within (0, 1), of each lane's seed and step."""
  uniform = np.stack(
    [
      np.random.default_rng([int(seed), int(step)]).random(size, np.float32)
      for seed, step in zip(*lanes, strict=True)
    ]
  )
  return np.clip(uniform, 1e-7, 1 - 1e-7)
