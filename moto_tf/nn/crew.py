"""The devices and processes that share every batch, by tf.distribute."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from moto_tf import cluster
from moto_tf.errors import MotoError
from moto_tf.nn import replicas, tfutils
from moto_tf.rules import ConfigError, cut


class ReplicaError(MotoError, RuntimeError):
  """Processes cannot train together, or not any more."""


class Crew:
  """Replicas on devices of this process, and of others; a context manager.

  The chief decides what is done; the others hear it and do the same.

  Attributes:
    size: number of replicas in all processes.
    processes: number of processes.
    chief: whether this process is the one that decides.
    numbers: of the replicas of this process.
    devices: theirs, in the same order.
  """

  def __init__(
    self,
    config,
    processes: cluster.Cluster,
    on_stop: Callable[[], None] | None = None,
  ):
    """Waits for the other processes.

    Args:
      config: settings of the run.
      processes: of `cluster.find`.
      on_stop: called where another process was asked to stop.

    Raises:
      ConfigError: there are fewer devices than replicas.
      ReplicaError: the other processes cannot be met.
    """
    # Before TensorFlow starts, which the strategy has it do.
    tfutils.setup(config.precision)
    self.size, self.processes = config.replicas, processes.size
    self.chief = processes.number == 0
    self._processes, self._on_stop = processes, on_stop
    self._whole = True
    local = self.size // self.processes
    if self.processes > 1:
      self._strategy = self._meet()
    else:
      self._strategy = _mirrored(_devices(local))
    self.devices = self._strategy.extended.worker_devices
    if len(self.devices) != local:
      raise ConfigError(
        f'replicas: {self.size} over {self.processes} processes are {local} '
        f'each, and process {processes.number} has {len(self.devices)} '
        'devices; give --replicas as all of them together, or hide GPUs by '
        'CUDA_VISIBLE_DEVICES.'
      )
    first = processes.number * local
    self.numbers = list(range(first, first + local))
    self._sum = tf.function(
      self._add_up,
      input_signature=[tf.TensorSpec([None], tf.int32)],
      autograph=False,
    )

  def on_devices(self, make: Callable[[], Any]) -> list:
    """What `make` makes, once on the device of each replica of this process."""
    found = []
    for device in self.devices:
      with tf.device(device):
        found.append(make())
    return found

  def run(self, function: Callable[[int], Any]) -> list:
    """Calls function(i) in each replica i of this process, counted from 0.

    Within a tf.function. Returns the results, of one structure.
    """
    first = self.numbers[0]
    result = self._strategy.run(lambda: function(replicas.number() - first))
    local = self._strategy.experimental_local_results
    return [
      tf.nest.map_structure(lambda x, i=i: local(x)[i], result)
      for i in range(len(self.devices))
    ]

  def tell(self, head: dict, arrays: dict[str, np.ndarray]) -> None:
    """Lets all other processes know what the chief does next.

    Args:
      head: what JSON can hold.
      arrays: any, by name.
    """
    if self.processes > 1:
      message = pack(head, arrays)
      if self._add([len(message), 0])[1] and self._on_stop:
        self._on_stop()
      self._add(message)

  def hear(self, asked: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """What the chief tells, which may be long in coming.

    Args:
      asked: whether this process was asked to stop, which the chief hears.
    """
    size = self._add([0, int(asked)])[0]
    return unpack(self._add(np.zeros(size, np.int32)))

  @contextlib.contextmanager
  def together(self) -> Iterator[None]:
    """Context of what all processes do at a time.

    Raises:
      ReplicaError: another process was lost.
    """
    before, self._whole = self._whole, False
    try:
      yield
    except tf.errors.OpError as error:
      if self.processes == 1:
        raise
      raise self._lost(error) from None
    self._whole = before

  def close(self, error: BaseException | None = None) -> None:
    """The chief sends the others home, if they listen.

    Args:
      error: what ended the run, which they end by, too; one with the `number`
        of a signal says that it was asked to stop.
    """
    if self.chief and self._whole:
      head = {'do': 'end', 'signal': getattr(error, 'number', 0)}
      with contextlib.suppress(ReplicaError):
        self.tell({**head, 'failed': error is not None}, {})
      self._whole = False

  def __enter__(self) -> 'Crew':
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.close(error)

  def _meet(self):
    names = ', '.join(self._processes.addresses)
    print(
      f'Process {self._processes.number} of {self.processes}, waiting for '
      f'all of {names}.',
      flush=True,
    )
    try:
      return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
      raise ReplicaError(
        f'Process {self._processes.number} cannot meet the others of '
        f'{cluster.NAME}, {names}: {cut(str(error), 300)} Start the same '
        'command on each of them, with nothing else at these addresses.'
      ) from None

  def _lost(self, error):
    # Before that, TensorFlow says at length where in the program it was.
    reason = error.message.rpartition('aborted by: ')[2]
    return ReplicaError(
      f'Process {self._processes.number} of {self.processes} has lost another '
      f'one: {cut(reason, 300)} The same command, in all processes, '
      'continues from the last checkpoint.'
    )

  def _add(self, numbers):
    """Sum of whole numbers [N] over the processes."""
    with self.together():
      return self._sum(tf.constant(numbers, tf.int32)).numpy()

  def _add_up(self, numbers):
    # The first replica of a process speaks for it.
    speak = lambda i: replicas.total(numbers if i == 0 else 0 * numbers)
    return self.run(speak)[0]


def pack(head: dict, arrays: dict[str, np.ndarray]) -> np.ndarray:
  """A message as whole numbers [N], int32, which can be added to zeros."""
  arrays = {k: np.asarray(v) for k, v in arrays.items()}
  kinds = {k: [v.dtype.name, v.shape] for k, v in arrays.items()}
  text = json.dumps([head, kinds]).encode()
  parts = [np.array([len(text)], np.int64).tobytes(), text]
  data = b''.join([*parts, *(v.tobytes() for v in arrays.values())])
  return np.frombuffer(data + bytes(-len(data) % 4), np.int32)


def unpack(message: np.ndarray) -> tuple[dict, dict[str, np.ndarray]]:
  """What `pack` was given."""
  data = message.tobytes()
  place = 8 + int(np.frombuffer(data, np.int64, 1)[0])
  head, kinds = json.loads(data[8:place])
  arrays = {}
  for key, (kind, shape) in kinds.items():
    size = int(np.prod(shape))
    array = np.frombuffer(data, np.dtype(kind), size, place)
    arrays[key], place = array.reshape(shape), place + array.nbytes
  return head, arrays


def _mirrored(devices):
  # Collectives of several devices wait for each other, without an end where
  # they share one thread, as on one core; GPUs have threads of their own.
  cpu = any('CPU' in device for device in devices)
  reduce = tf.distribute.ReductionToOneDevice() if cpu else None
  return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduce)


def _devices(count):
  """Names of so many devices of this machine: GPUs, or CPUs without any."""
  kinds = 'GPU', 'CPU'
  found = next(filter(None, map(tf.config.list_logical_devices, kinds)))
  if len(found) < count:
    raise ConfigError(
      f'replicas: {count} need as many devices, and TensorFlow has '
      f'{len(found)} {found[0].device_type} here; give --replicas '
      f'{len(found)}, or see docs/distributed.md for several machines.'
    )
  return [device.name for device in found[:count]]
