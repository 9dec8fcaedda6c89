"""Images and videos of LeRobot's datasets."""

import contextlib
import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from moto_tf import images
from moto_tf.data.formats import SourceError, reading

# Of a frame; more is taken for a mistake.
PIXELS = 2**24
# By which a decoder may round up the sides of a frame.
MARGIN = 256
# Encoders in the order in which they are tried: format of the pixels, which
# may halve the resolution of colours, and settings. Every second frame can be
# decoded without the one before, as LeRobot's can.
ENCODERS = {
  'libx264': ('yuv444p', {'crf': '0', 'g': '2'}),
  'libsvtav1': ('yuv420p', {'crf': '10', 'g': '2', 'preset': '8'}),
}


def decode(data: bytes, shape: tuple, size: int, source: str) -> np.ndarray:
  """A PNG or JPEG as uint8 [size, size, 3].

  Args:
    data: of the file.
    shape: height and width that it must have.
    size: to which it is resized.
    source: what it is, for messages.

  Raises:
    SourceError: it is damaged, or of another shape.
  """
  try:
    with Image.open(io.BytesIO(data), formats=('PNG', 'JPEG')) as image:
      if image.size != shape[::-1]:
        raise SourceError(
          f'{source}: an image has {image.height} x {image.width} pixels, '
          f'meta/info.json says {shape[0]} x {shape[1]}.'
        )
      return images.resize(np.asarray(image.convert('RGB')), size)
  except SourceError:
    raise
  except Exception as error:
    # Pillow raises half a dozen types for damaged files.
    raise SourceError(
      f'{source}: an image is no PNG or JPEG, damaged or cut short.'
    ) from error


def read_video(
  path: Path, start: float, count: int, fps: float, shape: tuple, size: int
) -> np.ndarray:
  """Frames of a part of a video, uint8 [count, size, size, 3].

  Args:
    path: of an mp4.
    start: seconds until the first of them.
    count: how many.
    fps: frames per second.
    shape: height and width that they must have.
    size: to which they are resized.

  Raises:
    SourceError: the file is missing or damaged, or has other frames.
  """
  if not path.is_file():
    raise SourceError(f'{path}: there is no such file.')
  found = []
  with reading(path):
    for number, frame in _frames(path, start, fps, shape):
      if number != len(found):
        break
      found.append(images.resize(frame.to_ndarray(format='rgb24'), size))
      if len(found) == count:
        return np.stack(found)
  raise SourceError(
    f'{path}: has {len(found)} frames from {start:.6g} s on, {fps:g} each '
    f'second; meta/episodes says {count}.'
  )


def _frames(path, start, fps, shape) -> Iterator[tuple[int, av.VideoFrame]]:
  """Frames from a time on, with their numbers, which count from there."""
  # The format is given, since others may name files to be read.
  with av.open(str(path), format='mp4') as container:
    if not container.streams.video:
      raise SourceError(f'{path}: holds no video.')
    stream = container.streams.video[0]
    _check_shape(path, stream.height, stream.width, shape)
    limit = (shape[0] + MARGIN) * (shape[1] + MARGIN)
    stream.codec_context.options = {'max_pixels': str(limit)}
    # To the last frame before that can be decoded alone.
    begin = max(0, start - 0.5 / fps)
    container.seek(int(begin / stream.time_base), stream=stream)
    for frame in container.decode(stream):
      if frame.pts is None:
        raise SourceError(f'{path}: a frame has no time.')
      number = round((float(frame.pts * stream.time_base) - start) * fps)
      if number >= 0:
        _check_shape(path, frame.height, frame.width, shape)
        yield number, frame


def _check_shape(path, height, width, shape):
  if (height, width) != tuple(shape):
    raise SourceError(
      f'{path}: has {height} x {width} pixels, meta/info.json says '
      f'{shape[0]} x {shape[1]}.'
    )


class VideoWriter:
  """Writes an mp4 of frames of one shape.

  Attributes:
    count: frames so far.
    info: what meta/info.json says of the video.
  """

  def __init__(self, path: Path, fps: float, shape: tuple, encoder: str):
    """Begins a file.

    Args:
      path: of the file; its folder is made.
      fps: frames per second.
      shape: height and width.
      encoder: of ENCODERS.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels, options = ENCODERS[encoder]
    rate = Fraction(fps).limit_denominator(1000)
    self.count = 0
    self._container = av.open(str(path), 'w', format='mp4')
    stream = self._container.add_stream(encoder, rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = *shape, pixels
    self._stream, self._step = stream, 1 / rate
    self.info = {
      'video.height': shape[0],
      'video.width': shape[1],
      'video.codec': 'h264' if encoder == 'libx264' else 'av1',
      'video.pix_fmt': pixels,
      'video.fps': int(rate),
      'video.channels': 3,
      'has_audio': False,
      'is_depth_map': False,
    }

  def add(self, image: np.ndarray) -> None:
    """Appends a frame, uint8 [H, W, 3]."""
    frame = av.VideoFrame.from_ndarray(image, 'rgb24')
    frame.pts, frame.time_base = self.count, self._step
    self._container.mux(self._stream.encode(frame))
    _back_to_ordinary()
    self.count += 1

  def close(self) -> None:
    """Ends the file."""
    if self.count:
      self._container.mux(self._stream.encode())
    self._container.close()


def find_encoder() -> str:
  """The first of ENCODERS that av was built with; '' if none."""
  return next((x for x in ENCODERS if x in av.codecs_available), '')


def _back_to_ordinary():
  """Ends real-time scheduling, which SVT-AV1 gives to all threads of root.

  The one that calls it would keep it, and take its core from all others.
  """
  tasks = Path('/proc/self/task')  # Linux alone has both.
  for task in tasks.iterdir() if tasks.exists() else ():
    with contextlib.suppress(ProcessLookupError):  # It has ended since.
      if os.sched_getscheduler(int(task.name)) == os.SCHED_FIFO:
        os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))
