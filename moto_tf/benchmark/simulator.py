"""Environment steps and camera images of Meta-World, without TensorFlow."""

import time
from collections.abc import Callable

import numpy as np

from moto_tf import envs
from moto_tf.config import Config
from moto_tf.envs.driver import Driver
from moto_tf.envs.worker import WorkerError

STEPS = 100
IMAGES = 20
EPISODES = 3


def measure(
  say: Callable[[str], None], times: dict[str, float], config: dict
) -> dict:
  """Measures steps, images and collected episodes with random actions.

  What an image costs is the difference of agent steps with and without it.

  Args:
    say: shows progress.
    times: not used.
    config: flat settings.

  Returns:
    Figures, with the reason under `remarks` where some are missing.
  """
  config = Config(config)
  if not config.task.startswith('metaworld_'):
    return {'remarks': [f'{config.task} is no task of Meta-World.']}
  make = lambda **change: envs.make_env(config.task, config.env.update(change))
  say('simulator without images')
  plain = step_seconds(make(image=False))
  repeat = config.env.action_repeat
  figures = {'plain_env_steps_per_second': repeat / plain}
  try:
    say('simulator with images')
    fast = step_seconds(make(image=True, fast_render=True))
    full = step_seconds(make(image=True, fast_render=False))
    figures |= {
      'image_env_steps_per_second': repeat / fast,
      'image_fast_ms': (fast - plain) * 1e3,
      'image_default_ms': (full - plain) * 1e3,
      'image_speedup': (full - plain) / (fast - plain),
      'metaworld_render_ms': render_ms(config.task),
    }
    say('episodes')
    figures |= collect(config)
  except (envs.EnvError, WorkerError) as error:
    figures['remarks'] = [str(error)]
  return figures


def step_seconds(env: envs.Env, steps: int = STEPS) -> float:
  """Median seconds of an agent step; closes the environment."""
  rng = np.random.default_rng(0)
  seconds, last = [], True
  for _ in range(steps):
    if last:
      env.reset(0)
    action = rng.uniform(-1, 1, env.act_space.shape)
    begin = time.perf_counter()
    last = env.step(action)['is_last']
    seconds.append(time.perf_counter() - begin)
  env.close()
  return float(np.median(seconds))


def render_ms(task: str, images: int = IMAGES) -> float:
  """Median time of Meta-World's own `render`, 480 x 480 pixels."""
  from metaworld.env_dict import ENV_CLS_MAP

  name = task.removeprefix('metaworld_').removesuffix('-v3')
  env = ENV_CLS_MAP[f'{name}-v3'](render_mode='rgb_array')
  seconds = []
  for _ in range(images):
    begin = time.perf_counter()
    env.render()
    seconds.append(time.perf_counter() - begin)
  env.close()
  return float(np.median(seconds)) * 1e3


def collect(config: Config) -> dict[str, float]:
  """Seconds per episode of a Driver with a worker process."""
  make_env = envs.env_maker(config.task, config.env)
  driver = Driver(make_env, 1, 'process')
  rng = np.random.default_rng(0)
  shape = (1, *driver.act_space.shape)
  policy = lambda obs, state, lanes: (rng.uniform(-1, 1, shape), state)
  seconds = []
  try:
    for seed in range(EPISODES + 1):
      begin = time.perf_counter()
      (episode,) = driver.run(policy, [seed])
      seconds.append(time.perf_counter() - begin)
  finally:
    driver.close()
  # The first episode warms up.
  return {
    'episode_seconds': float(np.median(seconds[1:])),
    'episode_agent_steps': len(episode['reward']) - 1,
  }
