"""Floating point operations of a traced function, counted in its graph."""

import collections
import math
import re

from moto_tf.benchmark import OTHER, BenchmarkError, scope_of


def count(graph, unknown: float | None = None) -> collections.Counter:
  """Counts multiplications and additions of matrix products and convolutions.

  Only ops that the outputs need are counted, since TensorFlow prunes others.
  Of the branches of a condition the most expensive one counts. Padding counts
  as if it were data.

  Args:
    graph: FuncGraph, as in `concrete_function.graph`.
    unknown: size to assume for dimensions that the graph leaves open, such as
      the mean number of rows of each part of a split.

  Returns:
    FLOP by scope.

  Raises:
    BenchmarkError: a size is open and `unknown` is not given, or an op cannot
      be counted.
  """
  total = collections.Counter()
  for op in _needed(graph):
    scope = scope_of(op.name)
    if op.type in _COUNTS:
      sizes = lambda tensor, op=op: _sizes(op, tensor, unknown)
      total[scope] += 2 * _COUNTS[op.type](op, sizes)
    elif functions := _functions(op):
      branches = [count(f, unknown) for f in functions]
      largest = max(branches, key=lambda branch: branch.total())
      if largest and 'While' in op.type:
        raise BenchmarkError(
          f'Cannot count FLOP: {op.name} is a loop, and how often it runs is '
          'not known from the graph.'
        )
      for inner, flop in largest.items():
        total[scope if inner == OTHER else inner] += flop
    elif re.search('MatMul|Conv[23]D|Conv2d|Einsum', op.type):
      raise BenchmarkError(
        f'Cannot count FLOP: {op.name} is of type {op.type}; add it to '
        'moto_tf/benchmark/flops.py.'
      )
  return total


def _needed(graph):
  """The ops that the outputs and side effects of a graph depend on."""
  waiting = [t.op for t in graph.outputs] + list(graph.control_outputs)
  found = {}
  while waiting:
    op = waiting.pop()
    if op.name not in found:
      found[op.name] = op
      waiting += [t.op for t in op.inputs] + list(op.control_inputs)
  return found.values()


def _functions(op):
  """Graphs of the functions that an op calls: branches, bodies."""
  names = []
  for value in op.node_def.attr.values():
    names += [value.func.name] if value.HasField('func') else []
    names += [f.name for f in value.list.func]
  return [op.graph._get_function(name).graph for name in names]


def _sizes(op, tensor, unknown):
  shape = tensor.shape
  if shape.rank is not None:
    sizes = [unknown if size is None else size for size in shape]
    if None not in sizes:
      return sizes
  raise BenchmarkError(
    f'Cannot count FLOP: {op.name} ({op.type}) has a tensor of the open shape '
    f'{shape}. Give it a static shape.'
  )


def _matmul(op, sizes):
  inner = 0 if op.get_attr('transpose_a') else 1
  return math.prod(sizes(op.outputs[0])) * sizes(op.inputs[0])[inner]


def _batch_matmul(op, sizes):
  inner = -2 if op.get_attr('adj_x') else -1
  return math.prod(sizes(op.outputs[0])) * sizes(op.inputs[0])[inner]


# A kernel is [rows, columns, inputs, outputs]; every number of the output is
# the sum of rows * columns * inputs products, and gradients take as many.


def _conv(op, sizes):
  return math.prod(sizes(op.outputs[0])) * math.prod(sizes(op.inputs[1])[:3])


def _conv_input(op, sizes):
  return math.prod(sizes(op.inputs[2])) * math.prod(sizes(op.inputs[1])[:3])


def _conv_kernel(op, sizes):
  return math.prod(sizes(op.inputs[2])) * math.prod(sizes(op.outputs[0])[:3])


_COUNTS = {
  'MatMul': _matmul,
  'BatchMatMul': _batch_matmul,
  'BatchMatMulV2': _batch_matmul,
  'BatchMatMulV3': _batch_matmul,
  'Conv2D': _conv,
  'Conv2DBackpropInput': _conv_input,
  'Conv2DBackpropFilter': _conv_kernel,
}
