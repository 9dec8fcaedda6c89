"""Any gymnasium environment with continuous actions.

Observations may be a vector (key 'state'), an image uint8 [H, W, 3] (key
'image') or a Dict of these (keys kept). Vectors become float32, images are
resized to `env.image_size`. With `env.image`, an environment that observes no
image gets one from its `render`. Rewards are summed over the action repeat,
success is `info['success']` or `info['is_success']`.
"""

import difflib
import importlib
import sys
from collections.abc import Mapping

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from moto_tf import images, startup
from moto_tf.envs import contract, render
from moto_tf.envs.base import Env, EnvError, check_simulation


def make(name: str, config) -> 'GymEnv':
  """Makes a registered environment by id, such as 'Pendulum-v1'.

  'module:id' imports a module that registers the id first, for example
  'gymnasium_robotics:FetchReach-v4'. A camera other than 'default' is
  passed on as `camera_name`, which MuJoCo environments take.
  """
  render.use_headless()
  camera = config.camera
  options = {} if camera == 'default' else {'camera_name': camera}
  env = _make(name, options)
  _check_camera(env, camera)
  if config.image and not _has_image(env):
    env.close()
    env = _make(name, {**options, 'render_mode': 'rgb_array'})
  return wrap_gym(env, config)


def _check_camera(env, name):
  """MuJoCo environments take any name, and show a view of their own then."""
  model = getattr(env.unwrapped, 'model', None)
  if name == 'default' or not hasattr(model, 'ncam'):
    return
  names = [model.camera(i).name for i in range(model.ncam)]
  if name not in names:
    env.close()
    raise EnvError(
      f'Unknown camera {name!r}; cameras here: {", ".join(names) or "none"}, '
      'and default.'
    )


def wrap_gym(env: gymnasium.Env, config) -> 'GymEnv':
  """Gives a gymnasium environment the protocol of `moto_tf.envs`.

  Args:
    env: the environment. To have images rendered it must have been made with
      render_mode='rgb_array'.
    config: the `env` part of the configuration.

  Raises:
    EnvError: its spaces cannot be used, or it cannot render.
  """
  return GymEnv(env, config)


class GymEnv(Env):
  """See `wrap_gym`."""

  def __init__(self, env: gymnasium.Env, config):
    if config.extra_size:
      raise EnvError(
        'A gymnasium environment has one view, no second one as '
        f'env.extra_size {config.extra_size} asks for; set it to 0.'
      )
    self._env, self._inner = env, getattr(env, 'unwrapped', env)
    self._size = config.image_size
    self._low, self._high = _action_bounds(env.action_space)
    self._render = config.image and not _has_image(env)
    mode = getattr(env, 'render_mode', None)
    if self._render and mode != 'rgb_array':
      raise EnvError(
        f'{env} cannot give the images that env.image asks for: its '
        f'render_mode is {mode!r}. Make it with '
        "render_mode='rgb_array', or set --env.image False."
      )
    image = Box(0, 255, (self._size, self._size, 3), np.uint8)
    spaces = {}
    for key, space in _parts(env.observation_space).items():
      if _is_image(space):
        spaces[key] = image
      elif isinstance(space, Box) and len(space.shape) <= 1:
        size = int(np.prod(space.shape))
        spaces[key] = Box(-np.inf, np.inf, (size,), np.float32)
      else:
        raise EnvError(
          f'Observation {key!r} of {env} is {space}; expected a vector or an '
          'image uint8 (H, W, 3). Convert it with a gymnasium wrapper.'
        )
    if self._render:
      spaces['image'] = image
    super().__init__(
      spaces, self._low.size, config.action_repeat, config.time_limit
    )
    contract.check_reset(env)
    # One that has a limit of its own is not cut before.
    own = getattr(getattr(env, 'spec', None), 'max_episode_steps', None) or 0
    self.longest = max(self.longest, own)

  def close(self) -> None:
    self._env.close()

  def _reset(self, seed):
    return self._observe(contract.split_reset(self._env.reset(seed=seed)))

  def _step(self, action):
    space = self._env.action_space
    share = (action.astype(np.float64) + 1) / 2
    scaled = self._low + share * (self._high - self._low)
    scaled = np.clip(scaled, self._low, self._high)
    scaled = scaled.reshape(space.shape).astype(space.dtype)
    total, success = 0.0, False
    for _ in range(self.action_repeat):
      obs, reward, terminated, truncated, achieved = self._inner_step(scaled)
      total += reward
      success = success or achieved
      if terminated or truncated:
        break
    return self._observe(obs), total, terminated, truncated, success

  def _inner_step(self, action):
    try:
      result = self._env.step(action)
    except ValueError as error:
      # Of a wrapper of gymnasium around an environment of the older gym.
      if 'values to unpack' not in str(error):
        raise
      raise contract.broken(
        f'A step of {self._env} failed: {error}.'
      ) from error
    data = getattr(self._inner, 'data', None)
    if hasattr(data, 'warning'):
      check_simulation(data)
    return contract.split_step(result)

  def _observe(self, obs):
    if not isinstance(self._env.observation_space, Dict):
      (key,) = _parts(self._env.observation_space)
      obs = {key: obs}
    result = {}
    for key, space in self.obs_space.items():
      if self._render and key == 'image':
        result[key] = images.resize(self._frame(), self._size)
        continue
      value = contract.part(obs, key)
      if _is_image(space):
        result[key] = images.resize(contract.image(value, key), self._size)
      else:
        result[key] = contract.vector(value, key, space.shape[0])
    return result

  def _frame(self):
    try:
      frame = np.asarray(self._env.render())
    except Exception as error:
      # What a missing OpenGL library raises depends on the library.
      advice = 'Set --env.image False if it cannot.'
      if 'mujoco' in sys.modules:
        advice = render.advice(error)
      raise EnvError(f'{self._env} cannot render: {error}. {advice}') from error
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
      raise EnvError(
        f'{self._env} rendered {frame.dtype} {frame.shape}, expected uint8 '
        '(H, W, 3). Set --env.image False if it cannot render.'
      )
    return frame.copy()


def _make(name, options):
  module, colon, _ = name.partition(':')
  try:
    if colon:
      with startup.quiet():
        importlib.import_module(module)
    return gymnasium.make(name, disable_env_checker=True, **options)
  except gymnasium.error.UnregisteredEnv as error:
    near = difflib.get_close_matches(name, gymnasium.registry, 5)
    raise EnvError(
      f'Unknown gymnasium environment {name!r} ({error}). The nearest names: '
      f'{", ".join(near) or "none"}. For those of another package put its '
      'module first, as in gym_gymnasium_robotics:FetchReach-v4.'
    ) from error
  except (gymnasium.error.Error, ImportError, TypeError) as error:
    raise EnvError(
      f'gymnasium cannot make {name!r} with {options or "no options"}: {error}'
    ) from error


def _parts(space) -> Mapping:
  """Spaces of the observations by key."""
  if isinstance(space, Dict):
    return space.spaces
  return {'image' if _is_image(space) else 'state': space}


def _has_image(env):
  return any(map(_is_image, _parts(env.observation_space).values()))


def _is_image(space):
  shape = space.shape or ()
  return space.dtype == np.uint8 and len(shape) == 3 and shape[-1] == 3


def _action_bounds(space):
  """Bounds [A] of an action space, as float64."""
  if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
    raise EnvError(
      f'The action space is {space}; only continuous actions, a Box of '
      'floats, can be learned.'
    )
  low, high = (v.astype(np.float64).ravel() for v in (space.low, space.high))
  if not (np.isfinite(low).all() and np.isfinite(high).all()):
    box = f'gymnasium.spaces.Box(-1, 1, {space.shape}, np.{space.dtype})'
    raise EnvError(
      f'The action space {space} is not bounded, so that it is unknown how '
      'large actions should be. Say it with a wrapper, here for -1 to 1: '
      f'gymnasium.wrappers.TransformAction(env, lambda action: action, {box})'
    )
  return low, high
