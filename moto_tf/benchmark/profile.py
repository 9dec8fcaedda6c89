"""Where the time of a gradient step goes, from a TensorFlow profiler trace."""

import collections
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from moto_tf.benchmark import OTHER, scope_of

TOP = 10  # Op types listed.
# 'scope/MatMul_1:MatMul', not 'EagerLocalExecute: f' or 'Class::method'.
_OP = re.compile(r'([^\s:]*):(\w+)')
NO_SCOPES = (
  'Almost no op has a known part in its name, as when the step runs as XLA '
  'code (--jit True) or eagerly.'
)


def profile(function: Callable[[], object], steps: int) -> dict:
  """Traces `steps` gradient steps and adds up the time of their ops.

  On a CPU the time of an op is that of the thread that starts it. Ops may
  overlap, so their sum may exceed the time of the step.

  Args:
    function: takes one step and waits for its result.
    steps: number of steps.

  Returns:
    sum_of_ops_seconds: per step; shares: of it by scope, {} if they are not
    known; op_types: share and calls per step of the most expensive types;
    kernels_per_step, on a GPU: kernels and copies that were launched; remarks:
    what limits these numbers.
  """
  try:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2
  except ImportError as error:
    return _empty(f'This TensorFlow cannot read its profiles ({error}).')
  options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
  with tempfile.TemporaryDirectory() as directory:
    tf.profiler.experimental.start(directory, options)
    try:
      for _ in range(steps):
        function()
    finally:
      tf.profiler.experimental.stop()
    space = xplane_pb2.XSpace()
    for path in Path(directory).rglob('*.xplane.pb'):
      space.MergeFromString(path.read_bytes())
  return summarise(space, steps)


def summarise(space, steps: int) -> dict:
  """Adds up the ops of an XSpace; returns what `profile` returns."""
  gpu = [p for p in space.planes if p.name.startswith('/device:GPU')]
  planes = gpu or [p for p in space.planes if p.name == '/host:CPU']
  scopes, types = collections.Counter(), collections.Counter()
  calls = collections.Counter()
  for plane in planes:
    for name, kind, seconds in _ops(plane):
      scopes[scope_of(name)] += seconds
      types[kind] += seconds
      calls[kind] += 1
  total = scopes.total()
  if not total:
    return _empty('The trace of the profiler holds no ops.')
  named = scopes[OTHER] < 0.9 * total
  return {
    'sum_of_ops_seconds': total / steps,
    **({'kernels_per_step': calls.total() / steps} if gpu else {}),
    'shares': {k: v / total for k, v in scopes.items()} if named else {},
    'op_types': {
      kind: {'share': seconds / total, 'calls': calls[kind] / steps}
      for kind, seconds in types.most_common(TOP)
    },
    'remarks': [] if named else [NO_SCOPES],
  }


def _ops(plane):
  """Yields op name, op type and seconds of the events of a plane.

  Kernels of a GPU carry their op as a statistic, events of the host by name.
  """
  gpu = plane.name.startswith('/device:GPU')
  names = {k: v.name for k, v in plane.event_metadata.items()}
  stats = {k: v.name for k, v in plane.stat_metadata.items()}
  for line in plane.lines:
    for event in line.events:
      text = names[event.metadata_id]
      for stat in event.stats if gpu else ():
        if stats[stat.metadata_id] == 'tf_op':
          text = stat.str_value or stats.get(stat.ref_value, '')
      match = _OP.fullmatch(text)
      if match:
        yield *match.groups(), event.duration_ps / 1e12
      elif gpu:
        yield '', text, event.duration_ps / 1e12


def _empty(remark):
  return {'shares': {}, 'op_types': {}, 'remarks': [remark]}
