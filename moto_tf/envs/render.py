"""Camera images of MuJoCo simulations, with or without a display."""

import atexit
import dataclasses
import glob
import os
import sys
import weakref
from types import ModuleType

import numpy as np
from gymnasium.spaces import Box

from moto_tf.envs.base import EnvError
from moto_tf.registry import choices

INSTALL = (
  'Install OpenGL: on Debian and Ubuntu `apt-get install libegl1 '
  'libegl-mesa0 libgl1 libgl1-mesa-dri` for MUJOCO_GL=egl, or `apt-get '
  'install libosmesa6` for MUJOCO_GL=osmesa; with an NVIDIA card the EGL part '
  'of its driver, libnvidia-gl. To use no images at all, set '
  'MUJOCO_GL=disable and --env.image False.'
)


# Values of MUJOCO_GL.
OFF = ('disable', 'disabled', 'off', 'false', '0')
ON_DISPLAY = ('', 'glfw', 'glx', 'enable', 'enabled', 'on', 'true', '1')


def use_headless() -> None:
  """Selects EGL for MuJoCo where nothing is chosen and there is no display.

  MuJoCo reads the choice when it is imported, so this comes first.
  """
  if (
    sys.platform.startswith('linux')
    and not os.environ.get('DISPLAY')
    # Empty is what scripts leave that pass on a variable that is not set.
    and not os.environ.get('MUJOCO_GL', '').strip()
  ):
    os.environ['MUJOCO_GL'] = 'egl'


def advice(error: Exception) -> str:
  """What to do about an error of OpenGL, by what it was told to use."""
  told = os.environ.get('MUJOCO_GL', '')
  name, display = told.lower().strip(), os.environ.get('DISPLAY', '')
  if 'PYOPENGL_PLATFORM' in str(error):
    return 'Unset the environment variable PYOPENGL_PLATFORM.'
  if name in OFF:
    return (
      f'MUJOCO_GL={told} switches images off. Set MUJOCO_GL=egl, or use no '
      'images with --env.image False.'
    )
  if not sys.platform.startswith('linux') or name in ('egl', 'osmesa'):
    return INSTALL
  if name not in ON_DISPLAY:
    return 'Set MUJOCO_GL to egl, osmesa or glfw.'
  reason = 'DISPLAY is not set'
  if display:
    reason = f'DISPLAY={display} may not be there or not be open to you'
  return (
    f'MUJOCO_GL={told!r} draws on a display, and {reason}. Set MUJOCO_GL=egl, '
    'which needs none.'
  )


def load_mujoco() -> ModuleType:
  """Imports mujoco, headless if there is no display.

  Raises:
    EnvError: mujoco or the OpenGL library it was told to use is missing.
  """
  use_headless()
  try:
    import mujoco
  except ModuleNotFoundError as error:
    raise EnvError(
      f'MuJoCo cannot be imported ({error}). Run: pip install mujoco'
    ) from error
  except Exception as error:
    # What a missing OpenGL library raises depends on the library.
    raise EnvError(
      'MuJoCo cannot be imported with MUJOCO_GL='
      f'{os.environ.get("MUJOCO_GL", "")!r} ({error}). {advice(error)}'
    ) from error
  return mujoco


@dataclasses.dataclass(frozen=True)
class View:
  """A camera that is free of the model: angles in degrees, lengths in m."""

  azimuth: float
  elevation: float
  distance: float
  lookat: tuple[float, float, float]


def image_views(config) -> dict[str, tuple[int, str]]:
  """Size and camera by image observation, of the `env` part of a Config."""
  views = {}
  if config.image:
    views['image'] = (config.image_size, config.camera)
  if config.image and config.extra_size:
    camera = config.extra_camera or config.camera
    views['image_extra'] = (config.extra_size, camera)
  return views


def image_spaces(config) -> dict[str, Box]:
  """Spaces of the same observations."""
  return {
    key: Box(0, 255, (size, size, 3), np.uint8)
    for key, (size, _) in image_views(config).items()
  }


class Renderer:
  """Renders one camera of one simulation into square images.

  Cameras that hang upside down in the model are turned by 180 degrees, so
  images are always upright and never mirrored.
  """

  def __init__(self, model, size: int, camera: View | str, fast: bool):
    """Opens an OpenGL context.

    Args:
      model: MjModel. Its visual settings are changed.
      size: height and width in pixels.
      camera: a view, or the name of a camera of the model.
      fast: no shadows, reflections, haze and multisampling, about ten times
        faster with software OpenGL.

    Raises:
      EnvError: the model lacks the camera, OpenGL does not work, or it would
        crash beside TensorFlow.
    """
    _refuse_beside_tensorflow()
    mujoco = load_mujoco()
    self._turn = False
    if isinstance(camera, View):
      self._camera = mujoco.MjvCamera()
      self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
      self._camera.azimuth = camera.azimuth
      self._camera.elevation = camera.elevation
      self._camera.distance = camera.distance
      self._camera.lookat[:] = camera.lookat
    else:
      names = [model.camera(i).name for i in range(model.ncam)]
      if camera not in names:
        names = sorted(names)
        raise EnvError(f'Unknown camera {camera!r}. {choices(camera, names)}')
      self._camera = camera
      # The height of the vector that points up in the image.
      self._turn = model.camera(camera).mat0.reshape(3, 3)[2, 1] < 0
    visual = model.vis
    visual.global_.offwidth = visual.global_.offheight = size
    if fast:
      visual.quality.offsamples = 0
    self._renderer = mujoco.Renderer.__new__(mujoco.Renderer)
    # One that fails lacks them when it is deleted, which prints a traceback.
    self._renderer._gl_context = self._renderer._mjr_context = None
    try:
      self._renderer.__init__(model, size, size)
    except Exception as error:
      # Each of the OpenGL backends raises something else.
      raise EnvError(
        'OpenGL cannot render with MUJOCO_GL='
        f'{os.environ.get("MUJOCO_GL", "")!r} ({error}). {advice(error)}'
      ) from error
    # One that is never closed would print errors after OpenGL has ended.
    atexit.register(_close, weakref.ref(self))
    if fast:
      flags, names = self._renderer.scene.flags, mujoco.mjtRndFlag
      flags[names.mjRND_SHADOW] = False
      flags[names.mjRND_REFLECTION] = False
      flags[names.mjRND_HAZE] = False
      # Without it the background is black, and nothing is saved.
      flags[names.mjRND_SKYBOX] = True

  def __call__(self, data) -> np.ndarray:
    """Image uint8 [size, size, 3] of an MjData, a new array."""
    self._renderer.update_scene(data, self._camera)
    image = self._renderer.render()
    return np.ascontiguousarray(image[::-1, ::-1]) if self._turn else image

  def close(self) -> None:
    """Frees the OpenGL context."""
    self._renderer.close()


def _close(ref):
  renderer = ref()
  if renderer is not None:
    renderer.close()


def _refuse_beside_tensorflow():
  """Raises where rendering would end the process without a word.

  Mesa's drivers and TensorFlow each bring an LLVM. In one process they mix up
  and the first image ends in a segmentation fault, whichever came first.
  """
  if (
    'tensorflow' in sys.modules
    and sys.platform.startswith('linux')
    and not _has_nvidia()
  ):
    raise EnvError(
      'TensorFlow is loaded in this process, and without an NVIDIA driver '
      'OpenGL would crash beside it. Render in worker processes: '
      "--env_workers process, or Driver(..., workers='process')."
    )


def _has_nvidia():
  return bool(glob.glob('/dev/nvidia[0-9]*'))
