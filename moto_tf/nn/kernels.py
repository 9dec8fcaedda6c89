"""Kernel sizes of the stride-2 convolutions for images of any size."""

import itertools
from collections.abc import Sequence

SIZES = range(3, 8)


def shrink(size: int, kernels: Sequence[int]) -> int:
  """Pixels that are left by convolutions, below 1 for images too small."""
  for kernel in kernels:
    size = (size - kernel) // 2 + 1
    if size < 1:
      break
  return size


def grow(kernels: Sequence[int]) -> int:
  """Pixels that transposed convolutions make of one."""
  size = 1
  for kernel in kernels:
    size = (size - 1) * 2 + kernel
  return size


def encoder_kernels(size: int) -> list[int] | None:
  """Kernels of 4, as many as leave some pixels; None for the smallest images.

  Four of them, if they fit, as for 64 pixels.
  """
  for count in range(4, 0, -1):
    if shrink(size, [4] * count) >= 1:
      return [4] * count
  return None


def decoder_kernels(size: int) -> list[int] | None:
  """Growing kernels of 3 to 7 that make images of a size, None without any.

  As few as possible, and as equal as possible.
  """
  for count in range(1, 8):
    fits = [
      list(kernels)
      for kernels in itertools.combinations_with_replacement(SIZES, count)
      if grow(kernels) == size
    ]
    if fits:
      return min(fits, key=lambda x: (x[-1] - x[0], x[-1]))
  return None
