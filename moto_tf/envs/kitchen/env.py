"""Franka Kitchen: four objects to bring in place, one reward for each.

The reward of a step is the number of targets in place, as in the paper; an
episode is a success once all four were in place, not necessarily together.

Cameras (`env.camera`): 'default' is the authors' view, which the literature
calls LEXA's; any camera of the model goes by its name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from moto_tf import startup
from moto_tf.envs import render
from moto_tf.envs.base import Env, EnvError, check_simulation
from moto_tf.envs.kitchen.tasks import find_targets, in_place, log_key

VIEWS = {'default': render.View(90, -60, 1.86, (-0.3, 0.5, 2.0))}
STEPS = 280
QPOS = 30
HANDLES = (
  'knob2_site',
  'knob4_site',
  'light_site',
  'slide_site',
  'hinge_site2',
  'microhandle_site',
  'kettle_site',
)


def make(name: str, config) -> 'Kitchen':
  """Makes a task, such as 'mixed'."""
  return Kitchen(name, config)


class Painter:
  """Images of a kitchen from positions alone, live or stored.

  It has simulation data of its own: right after a step, the bodies of the
  running simulation lag behind its positions by one substep, and a stored
  position would give another image than the live one.
  """

  def __init__(self, model, size: int, camera: str, fast: bool):
    """Opens an OpenGL context; see render.Renderer."""
    self._mujoco = render.load_mujoco()
    self._model, self._data = model, self._mujoco.MjData(model)
    camera = VIEWS.get(camera, camera)
    self._renderer = render.Renderer(model, size, camera, fast)
    self._light = model.light('ovenlight').id if fast else None

  def __call__(self, qpos: np.ndarray) -> np.ndarray:
    """Image uint8 [size, size, 3] of positions [30]."""
    model, data = self._model, self._data
    data.qpos[:] = qpos
    self._mujoco.mj_kinematics(model, data)
    self._mujoco.mj_camlight(model, data)
    if self._light is not None:
      # A block that the switch slides away shades this light. Without
      # shadows it has to be switched.
      model.light_active[self._light] = qpos[18] < -0.025
    return self._renderer(data)

  def close(self) -> None:
    """Frees the OpenGL context."""
    self._renderer.close()


def make_painters(model, config) -> dict[str, Painter]:
  """Painter by image observation, of the `env` part of a Config."""
  return {
    key: Painter(model, size, camera, config.fast_render)
    for key, (size, camera) in render.image_views(config).items()
  }


class Places:
  """Where hand and handles are, from positions alone, live or stored.

  Joint angles hide this, and images show it: place of the hand, the first six
  entries of its rotation matrix, places of both fingers and of HANDLES.
  """

  SIZE = 3 + 6 + 2 * 3 + 3 * len(HANDLES)

  def __init__(self, model):
    self._mujoco = render.load_mujoco()
    self._model, self._data = model, self._mujoco.MjData(model)
    self._hand = model.site('end_effector').id
    self._fingers = [
      model.body(f'panda0_{side}finger').id for side in ('left', 'right')
    ]
    self._handles = [model.site(name).id for name in HANDLES]

  def __call__(self, qpos: np.ndarray) -> np.ndarray:
    """Metres, and entries of a rotation, float32 [SIZE], of positions [30]."""
    data = self._data
    data.qpos[:] = qpos
    self._mujoco.mj_kinematics(self._model, data)
    parts = (
      data.site_xpos[self._hand],
      data.site_xmat[self._hand][:6],
      data.xpos[self._fingers],
      data.site_xpos[self._handles],
    )
    return np.concatenate([x.ravel() for x in parts]).astype(np.float32)


class Kitchen(Env):
  """One set of targets.

  Observes 'image' and 'image_extra' as configured, 'state' float32 [59] (robot
  qpos 9 and qvel 9, objects qpos 21 and qvel 20, with the sensors' noise), its
  part 'proprio' float32 [18], the noiseless positions 'qpos' float32 [30],
  which images are rendered from, what they say of hand and handles, 'places'
  float32 [36], and whether each target is in place, 'log_<target>' float32 [].
  """

  def __init__(self, name: str, config):
    """Builds the simulation, and the renderer if `config.image`."""
    self.targets = find_targets(name)
    limit = STEPS // config.action_repeat
    if config.time_limit > limit:
      raise EnvError(
        f'env.time_limit {config.time_limit} with env.action_repeat '
        f'{config.action_repeat} exceeds the {STEPS} environment steps of a '
        f'kitchen episode; give {limit} or less.'
      )
    spaces = {
      'state': Box(-np.inf, np.inf, (59,), np.float32),
      'proprio': Box(-np.inf, np.inf, (18,), np.float32),
      'qpos': Box(-np.inf, np.inf, (QPOS,), np.float32),
      'places': Box(-np.inf, np.inf, (Places.SIZE,), np.float32),
      **{log_key(x): Box(0, 1, (), np.float32) for x in self.targets},
    }
    spaces |= render.image_spaces(config)
    super().__init__(
      spaces, 9, config.action_repeat, config.time_limit or limit
    )
    self._env = make_simulation(self.targets)
    self.model, self.data = self._env.model, self._env.data
    self._painters = make_painters(self.model, config)
    self._places = Places(self.model)

  def close(self) -> None:
    while self._painters:
      self._painters.popitem()[1].close()
    self._env.close()

  def _reset(self, seed):
    self._ever = np.zeros(len(self.targets), bool)
    obs, _ = self._env.reset(seed=seed)
    return self._observe(obs)[0]

  def _step(self, action):
    for _ in range(self.action_repeat):
      obs, reward, *_ = self._env.step(action)
    obs, placed = self._observe(obs)
    self._ever |= placed
    return obs, reward, False, False, self._ever.all()

  def _observe(self, obs: Mapping) -> tuple[dict, np.ndarray]:
    check_simulation(self.data)
    state = obs['observation']
    # As they are stored, so that a stored episode gives the same images.
    qpos = self.data.qpos.astype(np.float32)
    placed = in_place(self.data.qpos, self.targets)
    record = {
      'state': state.astype(np.float32),
      'proprio': state[:18].astype(np.float32),
      'qpos': qpos,
      'places': self._places(qpos),
    }
    for target, done in zip(self.targets, placed, strict=True):
      record[log_key(target)] = np.float32(done)
    for key, painter in self._painters.items():
      record[key] = painter(qpos)
    return record, placed


def make_simulation(targets: tuple[str, ...]) -> Any:
  """FrankaKitchen-v1 with the paper's reward, without renderer and limits.

  Raises:
    EnvError: gymnasium-robotics is not installed.
  """
  render.load_mujoco()
  try:
    with startup.quiet():
      from gymnasium_robotics.envs.franka_kitchen import KitchenEnv
  except ImportError as error:
    raise EnvError(
      f'Franka Kitchen cannot be imported ({error}). Run: pip install '
      'gymnasium-robotics'
    ) from error
  return KitchenEnv(
    tasks_to_complete=list(targets),
    terminate_on_tasks_completed=False,
    remove_task_when_completed=False,
  )
