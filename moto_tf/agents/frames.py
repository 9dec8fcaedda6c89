"""Stacks of frames and random crops, for agents without a world model.

Kostrikov, Yarats, Fergus 2020, *Image Augmentation Is All You Need* (DrQ), has
the crops: pad by repeating the edge, cut out the old size.
"""

import tensorflow as tf

from moto_tf.nn.tfutils import uniform_int


def stack_frames(images: tf.Tensor, first: tf.Tensor, count: int) -> tf.Tensor:
  """Stacks of frames as channels, within windows of the replay.

  Before an episode's first frame come repeats of it, for three frames as in

      record    x   x   s0  s1  s2  s3
      stack             s0  s0  s0  s1     oldest channels
                        s0  s0  s1  s2
                        s0  s1  s2  s3     newest channels

  Args:
    images: [B, L, H, W, C].
    first: [B, L], where episodes begin. That of record 0 does not matter, since
      windows begin anywhere and mark it always.
    count: frames of a stack, at most L.

  Returns:
    [B, L - count + 1, H, W, count * C], of the records from count - 1 on.
  """
  first = tf.cast(first, tf.bool)
  size, length = first.shape
  index = tf.tile(tf.range(count - 1, length)[None], [size, 1])
  frames = [images[:, count - 1 :]]
  for _ in range(count - 1):
    begins = tf.gather(first, index, batch_dims=1)
    index = tf.where(begins, index, index - 1)
    frames.append(tf.gather(images, index, batch_dims=1))
  return tf.concat(frames[::-1], -1)


def push_frame(
  frames: tf.Tensor, image: tf.Tensor, first: tf.Tensor, count: int
) -> tf.Tensor:
  """The same stacks while acting: the newest image takes the oldest's place.

  Args:
    frames: stacks so far [N, H, W, count * C].
    image: [N, H, W, C].
    first: [N], where an episode begins; there `frames` do not matter.
    count: frames of a stack.
  """
  repeated = tf.concat([image] * count, -1)
  moved = tf.concat([frames[..., image.shape[-1] :], image], -1)
  # LiteRT cannot choose between integers of eight bits.
  pair = tf.cast(repeated, tf.float32), tf.cast(moved, tf.float32)
  return tf.cast(tf.where(first[:, None, None, None], *pair), image.dtype)


def random_crops(
  images: tf.Tensor, pad: int, seed: tf.Tensor, cpu: bool = False
) -> tf.Tensor:
  """Crops of the old size from images whose edges are repeated `pad` times.

  Args:
    images: [N, H, W, C]; one crop for all channels, so for the whole stack.
    pad: pixels on every side; 0 leaves the images as they are.
    seed: [2].
    cpu: whether to take what is ten times faster on CPU without XLA.
  """
  if not pad:
    return images
  offset = uniform_int([images.shape[0], 2], seed, 2 * pad + 1) - pad
  return _shift_in_groups(images, offset, pad) if cpu else shift(images, offset)


def shift(images: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
  """Pixel [i, j] becomes that of [i, j] + offset, or the nearest at the edge.

  Args:
    images: [N, H, W, C].
    offset: [N, 2] int32, rows and columns.
  """
  return _shift(_shift(images, offset[:, 0], 1), offset[:, 1], 2)


def _shift(images, offset, axis):
  index = tf.range(images.shape[axis])[None] + offset[:, None]
  index = tf.clip_by_value(index, 0, images.shape[axis] - 1)
  return tf.gather(images, index, axis=axis, batch_dims=1)


def _shift_in_groups(images, offset, most):
  """`shift` by `most` at most: whole rows, then columns one shift at a time.

  A gather of columns would copy a few bytes at a time.
  """
  rows, columns = tf.unstack(offset, axis=1)
  images = _shift(images, rows, 1)
  order = tf.argsort(columns, stable=True)
  count = 2 * most + 1
  sizes = tf.math.bincount(columns + most, minlength=count, maxlength=count)
  groups = tf.split(tf.gather(images, order), sizes, num=count)
  moved = []
  for step, group in zip(range(-most, most + 1), groups, strict=True):
    left, right = [group[:, :, :1]], [group[:, :, -1:]]
    if step < 0:
      group = tf.concat([*(left * -step), group[:, :, :step]], 2)
    elif step > 0:
      group = tf.concat([group[:, :, step:], *(right * step)], 2)
    moved.append(group)
  moved = tf.gather(tf.concat(moved, 0), tf.argsort(order))
  return tf.ensure_shape(moved, images.shape)
