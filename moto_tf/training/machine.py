"""What a process runs on, and how fast and large it is."""

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

import moto_tf

PACKAGES = ('tensorflow', 'keras', 'numpy', 'mujoco', 'metaworld')
MATMUL_SIZE = 2048
MATMUL_CALLS = 20


def describe() -> dict:
  """Processor, cores and versions; nothing that names the machine."""
  versions = {
    'python': platform.python_version(),
    'moto_tf': moto_tf.__version__,
  }
  for package in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[package] = importlib.metadata.version(package)
  info, model = Path('/proc/cpuinfo'), None
  if info.exists():
    model = re.search(r'model name\s*:\s*(.+)', info.read_text())
  return {
    'system': f'{platform.system()} {platform.machine()}',
    'processor': model[1] if model else platform.processor(),
    'cores': len(cores()),
    'versions': versions,
  }


def cores() -> list[int]:
  """Those that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def environment(config) -> dict:
  """How TensorFlow runs in this process; threads 0: one per core."""
  import tensorflow as tf

  from moto_tf.nn.tfutils import setup

  details = tf.config.experimental.get_device_details
  threading = tf.config.threading
  return {
    'precision': setup(config.precision, config.eager),
    'jit': config.jit,
    'eager': config.eager,
    'gpus': [
      details(gpu).get('device_name', 'unknown')
      for gpu in tf.config.list_physical_devices('GPU')
    ],
    'tf32': tf.config.experimental.tensor_float_32_execution_enabled(),
    'threads_within_ops': threading.get_intra_op_parallelism_threads(),
    'threads_between_ops': threading.get_inter_op_parallelism_threads(),
  }


def matmul_gflop_per_second(
  size: int = MATMUL_SIZE, calls: int = MATMUL_CALLS, dtype: str = 'float32'
) -> float:
  """Median speed of a product of two square matrices.

  On a GPU float32 is TF32, unless that is switched off in TensorFlow.
  """
  import tensorflow as tf

  left, right = (
    tf.cast(tf.random.stateless_normal([size, size], [0, i]), dtype)
    for i in range(2)
  )
  seconds = []
  for _ in range(calls + 3):
    begin = time.perf_counter()
    # Reading one number waits for a GPU.
    tf.matmul(left, right)[0, 0].numpy()
    seconds.append(time.perf_counter() - begin)
  return 2e-9 * size**3 / float(np.median(seconds[3:]))


def memory() -> dict[str, float]:
  """Largest resident memory of this process so far, and that of its GPU."""
  figures = {'peak_memory_gib': peak_memory_gib()}
  tf = sys.modules.get('tensorflow')
  if tf and tf.config.list_physical_devices('GPU'):
    info = tf.config.experimental.get_memory_info('GPU:0')
    figures['gpu_peak_memory_gib'] = info['peak'] / 2**30
  return figures


def peak_memory_gib() -> float:
  """Largest resident memory of this process so far."""
  status = Path('/proc/self/status')
  if status.exists():
    # ru_maxrss begins with what the parent process held.
    return int(re.search(r'VmHWM:\s+(\d+)', status.read_text())[1]) / 2**20
  unit = 2**30 if sys.platform == 'darwin' else 2**20
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
