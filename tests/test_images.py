"""Pictures: pixels, times, and what is shown beside what."""

import numpy as np
import pytest
from data_helpers import decode

from moto_tf import images


def test_png_keeps_every_pixel():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (5, 7, 3), np.uint8)
  _, frames = decode(images.encode_png(image))
  np.testing.assert_array_equal(frames[0], image)
  _, frames = decode(images.encode_png(image[..., :1]))
  np.testing.assert_array_equal(frames[0], image[..., :1].repeat(3, -1))


def test_gif_has_every_frame_at_its_time():
  video = np.zeros((7, 12, 10, 3), np.uint8)
  for time in range(7):
    video[time, time] = (255, 30 * time, 0)
  image, frames = decode(images.encode_gif(video, fps=10))
  assert (image.format, image.n_frames, image.size) == ('GIF', 7, (10, 12))
  assert image.info['duration'] == 100 and image.info['loop'] == 0
  assert np.abs(frames.astype(int) - video).max() <= 8


@pytest.mark.parametrize(
  'video',
  [
    np.zeros((3, 8, 8, 3), np.float32),
    np.zeros((3, 8, 8, 9), np.uint8),
    np.zeros((8, 8, 3), np.uint8),
    np.zeros((0, 8, 8, 3), np.uint8),
  ],
)
def test_gif_rejects_what_is_no_video(video):
  with pytest.raises(ValueError, match='expected uint8|at least one frame'):
    images.encode_gif(video)


def test_upscale_repeats_pixels():
  image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  large = images.upscale(image, 3)
  assert large.shape == (6, 6, 3)
  for row in range(6):
    for column in range(6):
      expected = image[row // 3, column // 3]
      np.testing.assert_array_equal(large[row, column], expected)


def test_tile_places_images_and_marks():
  pictures = np.stack([np.full((4, 6, 3), 10 * i, np.uint8) for i in range(5)])
  canvas = images.tile(
    pictures, columns=3, gap=1, marks=np.array([0, 0, 0, 0, 1])
  )
  assert canvas.shape == (12, 24, 3)
  for index in range(5):
    row, column = divmod(index, 3)
    cell = canvas[6 * row : 6 * row + 6, 8 * column : 8 * column + 8]
    np.testing.assert_array_equal(cell[1:5, 1:7], pictures[index])
    edge = images.GREEN if index == 4 else images.WHITE
    np.testing.assert_array_equal(cell[0], [edge] * 8)
  np.testing.assert_array_equal(canvas[6:, 16:], 255)


def test_contact_sheet_shows_first_and_last_frames():
  videos = [np.full((t, 4, 4, 3), 9, np.uint8) for t in (11, 21)]
  videos[1][-1] = 200
  marks = [np.zeros(11, bool), np.arange(21) >= 20]
  sheet = images.contact_sheet(videos, columns=3, factor=2, marks=marks)
  assert sheet.shape == (2 * 12, 3 * 12, 3)
  assert (sheet[14:22, 26:34] == 200).all()
  assert (sheet[14:22, 14:22] == 9).all()
  np.testing.assert_array_equal(sheet[12, 24], images.GREEN)
  np.testing.assert_array_equal(sheet[12, 12], images.WHITE)


def test_side_by_side_holds_the_last_frame_of_short_videos():
  videos = [np.full((3, 4, 4, 3), 50, np.uint8), np.zeros((5, 4, 4, 3), 'u1')]
  videos[0][-1] = 90
  video = images.side_by_side(videos, columns=2, factor=1)
  assert video.shape == (5, 8, 16, 3)
  assert video[:, 3, 3, 0].tolist() == [50, 50, 90, 90, 90]
