"""Pictures and animations from uint8 arrays: PNG, GIF and contact sheets."""

import io

import numpy as np
from PIL import Image

GREEN = (40, 170, 70)
WHITE = (255, 255, 255)


def encode_png(image: np.ndarray) -> bytes:
  """PNG file of an image [H, W, C], uint8, one or three channels."""
  stream = io.BytesIO()
  Image.fromarray(to_rgb(image, 3)).save(stream, 'PNG')
  return stream.getvalue()


def encode_gif(video: np.ndarray, fps: float = 20) -> bytes:
  """GIF file of a video [T, H, W, C], uint8, that repeats forever.

  The format counts in hundredths of a second and players slow down anything
  shorter than two, so 50 frames per second is the limit.
  """
  video = to_rgb(video, 4)
  if not len(video):
    raise ValueError('A GIF needs at least one frame, the video has none.')
  if fps <= 0:
    raise ValueError(f'fps is {fps}, expected above 0.')
  frames = [Image.fromarray(frame) for frame in video]
  stream = io.BytesIO()
  frames[0].save(
    stream,
    'GIF',
    save_all=True,
    append_images=frames[1:],
    duration=10 * max(2, round(100 / fps)),
    loop=0,
  )
  return stream.getvalue()


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Image uint8 [H, W, 3] as [size, size, 3], area-averaged.

  The whole image is kept: one that is no square is squeezed.
  """
  if image.shape == (size, size, 3):
    return image
  resized = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
  return np.array(resized)


def upscale(images: np.ndarray, factor: int) -> np.ndarray:
  """Enlarge images [..., H, W, C] by repeating every pixel factor times."""
  return images.repeat(factor, -3).repeat(factor, -2)


def tile(
  images: np.ndarray,
  columns: int,
  gap: int = 2,
  marks: np.ndarray | None = None,
) -> np.ndarray:
  """Arrange images [N, H, W, C] in rows of at most `columns`, on white.

  Images with a True in marks [N] get a green instead of a white edge of gap
  pixels. Returns one RGB image, uint8.
  """
  images = to_rgb(images, 4)
  count, height, width = images.shape[:3]
  if not count or columns < 1:
    raise ValueError(f'Cannot tile {count} images in {columns} columns.')
  columns = min(columns, count)
  rows = -(-count // columns)
  cell = (height + 2 * gap, width + 2 * gap)
  canvas = np.empty((rows * cell[0], columns * cell[1], 3), np.uint8)
  canvas[:] = WHITE
  for index, image in enumerate(images):
    top = index // columns * cell[0]
    left = index % columns * cell[1]
    if marks is not None and marks[index]:
      canvas[top : top + cell[0], left : left + cell[1]] = GREEN
    top, left = top + gap, left + gap
    canvas[top : top + height, left : left + width] = image
  return canvas


def contact_sheet(
  videos: list[np.ndarray],
  columns: int = 10,
  factor: int = 2,
  marks: list[np.ndarray] | None = None,
) -> np.ndarray:
  """One row per video [T, H, W, C], its frames at evenly spread times.

  The first and last frame are always shown. marks holds one boolean array [T]
  per video; marked frames get a green edge. Returns one RGB image, uint8.
  """
  if not videos or columns < 2:
    raise ValueError(
      f'A contact sheet needs videos and two columns or more, got '
      f'{len(videos)} videos and {columns} columns.'
    )
  frames, marked = [], []
  for row, video in enumerate(videos):
    times = np.linspace(0, len(video) - 1, columns).round().astype(int)
    frames.append(video[times])
    edges = np.zeros(len(video), bool) if marks is None else marks[row]
    marked.append(edges[times])
  frames = upscale(np.concatenate(frames), factor)
  return tile(frames, columns, marks=np.concatenate(marked))


def side_by_side(
  videos: list[np.ndarray], columns: int = 5, factor: int = 3
) -> np.ndarray:
  """Tile videos [T, H, W, C] into one; shorter ones hold their last frame."""
  if not videos:
    raise ValueError('There are no videos to show.')
  length = max(len(video) for video in videos)
  frames = []
  for time in range(length):
    images = np.stack([video[min(time, len(video) - 1)] for video in videos])
    frames.append(tile(upscale(images, factor), columns))
  return np.stack(frames)


def to_rgb(images: np.ndarray, ndim: int) -> np.ndarray:
  """Check uint8 images of ndim axes and give grey ones three channels."""
  images = np.asarray(images)
  good = images.ndim == ndim and images.dtype == np.uint8
  if not good or images.shape[-1] not in (1, 3):
    raise ValueError(
      f'Images have shape {images.shape} and dtype {images.dtype}, expected '
      f'uint8, {ndim} axes and one or three channels last.'
    )
  return np.broadcast_to(images, (*images.shape[:-1], 3))
