"""Meta-World v3: every task, with sparse rewards and a fresh goal per episode.

The reward of an agent step is 1 if the task is achieved after its last
environment step and 0 otherwise, as in the paper's Table 1.

Cameras (`env.camera`):
  default  from the right of the robot; of the views tried it shows most of
           the fingers and the objects, over the ten tasks of the paper
  authors  the view of the authors' Meta-World code. Their hand start
           (.1, .5, .3) and ten idle steps are left out: a camera must not
           change the task, and they halve the scripted success in assembly
  corner2  the camera of many other papers; objects are tiny at 64 x 64
  corner4  corner2 moved nearer, as in most of the literature on pixels
and any other camera of the model. The literature flips the images of corner
cameras, which mirrors them; here they are turned upright, unmirrored.
"""

import pickle
import warnings
from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box

from moto_tf.data import tables
from moto_tf.envs import render
from moto_tf.envs.base import Demonstrator, Env, EnvError, check_simulation
from moto_tf.registry import choices

# Of the paper's demonstrations, its Table 1: average return and success rate.
PAPER = {
  'assembly': (36.0, 1.0),
  'bin-picking': (20.9, 1.0),
  'box-close': (25.3, 1.0),
  'coffee-push': (36.2, 1.0),
  'disassemble': (31.556, 1.0),
  'door-open': (15.2, 1.0),
  'drawer-open': (48.0, 1.0),
  'hammer': (63.333, 1.0),
  'plate-slide': (71.1, 1.0),
  'window-open': (60.5, 1.0),
}
# The tasks of the paper.
TASKS = tuple(PAPER)

VIEWS = {
  'default': render.View(135, -25, 1.1, (0.0, 0.68, 0.12)),
  'authors': render.View(15, -22.5, 0.75, (-0.15, 0.65, 0.25)),
}


def make(name: str, config) -> 'MetaWorld':
  """Makes a task, such as 'drawer-open' or 'drawer-open-v3'."""
  return MetaWorld(name, config)


def scripted_policy(name: str) -> Callable[[np.ndarray], np.ndarray]:
  """Meta-World's own policy of a task, from `raw_obs` to an action [4].

  Actions are float32, clipped to [-1, 1].
  """
  name = _full_name(name)
  from metaworld.policies import ENV_POLICY_MAP

  policy = ENV_POLICY_MAP[name]()

  def act(raw_obs: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
      # That its actions are clipped, which is meant.
      warnings.simplefilter('ignore')
      action = policy.get_action(raw_obs)
    return np.clip(action, -1, 1).astype(np.float32)

  return act


def demonstrator(name: str, order: str = '') -> Demonstrator:
  """Meta-World's own policy; its successful episodes are demonstrations."""
  if order:
    raise EnvError(f'{name} has no parts that could have the order {order!r}.')
  policy = scripted_policy(name)
  act = lambda obs: policy(obs['state'].astype(np.float64))
  return Demonstrator(lambda seed: act, lambda e: bool(e['success'].any()))


def compare(infos: dict) -> str:
  """Table of datasets (task to data.inspect.Info) beside the paper's."""
  return tables.compare({_short(k): v for k, v in infos.items()}, PAPER)


class MetaWorld(Env):
  """One task. Observes 'state' float32 [39], goal included, and images.

  These are 'image' and 'image_extra' as configured.

  Attributes:
    raw_obs: the newest state as the scripted policies need it, float64 [39].
  """

  def __init__(self, name: str, config):
    """Builds the simulation, and the renderer if `config.image`."""
    name = _full_name(name)
    self._mujoco = render.load_mujoco()
    from metaworld.env_dict import ENV_CLS_MAP
    from metaworld.types import Task

    env = ENV_CLS_MAP[name]()
    limit = env.max_path_length // config.action_repeat
    if config.time_limit > limit:
      raise EnvError(
        f'env.time_limit {config.time_limit} with env.action_repeat '
        f'{config.action_repeat} exceeds the {env.max_path_length} '
        f'environment steps of a Meta-World episode; give {limit} or less.'
      )
    spaces = {'state': Box(-np.inf, np.inf, (39,), np.float32)}
    spaces |= render.image_spaces(config)
    super().__init__(
      spaces, 4, config.action_repeat, config.time_limit or limit
    )
    # A task is needed to make the goal visible in the state. Its own goal is
    # not: a new one is drawn from the seed of each episode.
    task = {'env_cls': type(env), 'rand_vec': None}
    task['partially_observable'] = False
    env.set_task(Task(name, pickle.dumps(task)))
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    self._env = env
    if config.hide_goal:
      # All sites are markers.
      env.model.site_rgba[:, 3] = 0
    self._renderers = {
      key: render.Renderer(
        env.model, size, VIEWS.get(camera, camera), config.fast_render
      )
      for key, (size, camera) in render.image_views(config).items()
    }

  def close(self) -> None:
    while self._renderers:
      self._renderers.popitem()[1].close()
    self._env.close()

  def _reset(self, seed):
    env, mujoco = self._env, self._mujoco
    # The seed given to reset would be ignored.
    env.seed(seed)
    env.reset()
    # Half of the tasks move an object as the last act of their reset, and
    # both state and image would still show it at its old place.
    for update in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
      update(env.model, env.data)
    self.raw_obs = env._get_obs()
    # No time has passed: the state one step ago is the same.
    self.raw_obs[18:36] = self.raw_obs[:18]
    return self._observe()

  def _step(self, action):
    for _ in range(self.action_repeat):
      self.raw_obs, _, _, _, info = self._env.step(action)
    success = info['success'] > 0
    return self._observe(), float(success), False, False, success

  def _observe(self):
    check_simulation(self._env.data)
    obs = {'state': self.raw_obs.astype(np.float32)}
    for key, renderer in self._renderers.items():
      obs[key] = renderer(self._env.data)
    return obs


def _short(task):
  """Name as in the paper, from one with its suite and its version."""
  return task.removeprefix('metaworld_').removesuffix('-v3').removesuffix('-v2')


def _full_name(name):
  """Name within Meta-World; a suite prefix and the version are optional."""
  render.load_mujoco()
  try:
    from metaworld.env_dict import ENV_CLS_MAP
  except ImportError as error:
    raise EnvError(
      f'Meta-World cannot be imported ({error}). Run: pip install metaworld'
    ) from error
  full = name.removeprefix('metaworld_').removesuffix('-v3') + '-v3'
  if full not in ENV_CLS_MAP:
    names = sorted(key.removesuffix('-v3') for key in ENV_CLS_MAP)
    raise EnvError(f'Unknown Meta-World task {name!r}. {choices(name, names)}')
  return full
