"""Fixtures that several files of tests of environments share."""

import contextlib

import numpy as np
import pytest


@pytest.fixture
def drive():
  """Makes drivers and closes them."""
  from moto_tf.envs.driver import Driver

  with contextlib.ExitStack() as stack:

    def build(make_env, count, workers):
      driver = Driver(make_env, count, workers)
      stack.callback(driver.close)
      return driver

    yield build


@pytest.fixture(scope='module')
def live():
  """Two episodes of the running environment, with objects put in place."""
  from env_helpers import settings

  from moto_tf.envs import make_env
  from moto_tf.envs.kitchen import tasks as kitchen

  env = make_env(
    'kitchen_mixed', settings(action_repeat=1, time_limit=9, image=True)
  )
  found = []
  for seed, plan in enumerate(
    (
      {2: 'kettle', 4: 'microwave', 6: 'slide cabinet', 7: 'light switch'},
      {3: 'bottom burner', 5: 'light switch'},
    )
  ):
    rng = np.random.default_rng(seed)
    records = [env.reset(seed)]
    actions = rng.uniform(-0.99, 0.99, (9, 9)).astype(np.float32)
    for step, action in enumerate(actions):
      if step in plan:
        index, goal = kitchen.GOALS[plan[step]]
        env.data.qpos[list(index)] = goal
      records.append(env.step(action))
    episode = {k: np.stack([r[k] for r in records]) for k in records[0]}
    episode['action'] = np.concatenate([np.zeros((1, 9)), actions])
    found.append(episode)
  env.close()
  assert found[0]['success'][-1] and not found[1]['success'].any()
  assert set(found[0]['reward']) == {0, 1, 2, 3, 4}
  assert set(found[1]['reward']) == {0, 1}
  return found
