"""Gradient steps on a GPU in every precision, with and without XLA."""

import time
from collections.abc import Callable

import numpy as np

from moto_tf.benchmark import BenchmarkError
from moto_tf.benchmark.run import Case
from moto_tf.training import machine

# Precision, whether its products of float32 may be of TF32, and XLA.
MODES = (
  ('float32', False, False),
  ('float32', True, False),
  ('float32', True, True),
  ('mixed_float16', True, False),
  ('mixed_float16', True, True),
  ('mixed_bfloat16', True, False),
  ('mixed_bfloat16', True, True),
)
PARTS = ('first', 'step', 'policy')
# Yardsticks: products of matrices, and operations too small to take time.
SIZE = 8192
TYPES = (
  ('float32', 'float32', False),
  ('tf32', 'float32', True),
  ('float16', 'float16', True),
  ('bfloat16', 'bfloat16', True),
)
LAUNCHES = 2000


def cases(case: Case) -> list[Case]:
  """The configuration in every mode, in the order of the table."""
  return [
    case._replace(
      name=f'{case.name}, {mode_name(precision, tf32, jit)}',
      config=case.config.update(precision=precision, jit=jit),
      overrides={**case.overrides, 'precision': precision, 'jit': jit},
      tf32=tf32,
    )
    for precision, tf32, jit in MODES
  ]


def mode_name(precision: str, tf32: bool, jit: bool) -> str:
  """A mode as tables name it."""
  kind = ' (TF32)' if tf32 and precision == 'float32' else ''
  return f'{precision}{kind}{", XLA" if jit else ""}'


def describe(say: Callable[[str], None], times: dict[str, float]) -> dict:
  """The GPU, what TensorFlow was built for, and yardsticks.

  Args:
    say: shows progress.
    times: not used.

  Raises:
    BenchmarkError: TensorFlow finds no GPU.

  Returns:
    name, compute_capability, cuda and cudnn; per type of numbers the speed of
    a product of two matrices of 8192 x 8192; microseconds between two small
    operations that wait for each other.
  """
  from moto_tf.nn import tfutils

  say('GPU')
  tfutils.setup()
  import tensorflow as tf

  gpus = tf.config.list_physical_devices('GPU')
  if not gpus:
    raise BenchmarkError(
      'TensorFlow finds no GPU. Install its libraries with '
      "pip install 'moto_tf[gpu]', or measure the CPU without --gpu; with "
      'TF_CPP_MIN_LOG_LEVEL=0 TensorFlow tells what it misses.'
    )
  details = tf.config.experimental.get_device_details(gpus[0])
  capability = details.get('compute_capability', ())
  build = tf.sysconfig.get_build_info()
  return {
    'name': details.get('device_name', 'unknown'),
    'compute_capability': '.'.join(map(str, capability)),
    'cuda': build.get('cuda_version', 'unknown'),
    'cudnn': build.get('cudnn_version', 'unknown'),
    'products': products(SIZE),
    'launch_us': launch_microseconds(LAUNCHES),
  }


def products(size: int) -> dict[str, float]:
  """GFLOP per second of square products by type; float32 also as TF32."""
  from moto_tf.nn import tfutils

  figures = {}
  for name, dtype, tf32 in TYPES:
    tfutils.allow_tf32(tf32)
    speed = machine.matmul_gflop_per_second(size, dtype=dtype)
    figures[f'{name}_gflop_per_second'] = speed
  return figures


def launch_microseconds(count: int) -> float:
  """Time of one of many small operations in a row within a graph."""
  import tensorflow as tf

  @tf.function(autograph=False)
  def chain(x):
    for _ in range(count):
      x = tf.tanh(x)
    return x

  x, seconds = tf.zeros([128]), []
  for _ in range(8):
    begin = time.perf_counter()
    chain(x).numpy()
    seconds.append(time.perf_counter() - begin)
  return 1e6 * float(np.median(seconds[3:])) / count
