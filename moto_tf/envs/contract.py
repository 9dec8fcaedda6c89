"""What a gymnasium environment returns, checked and brought into one form.

Environments of the older gym, and those that are careless about types, are
understood where it is clear what they mean.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from moto_tf.envs.base import EnvError

CONTRACT = (
  'gymnasium expects reset(seed=..., options=...) to return (observation, '
  'info), and step(action) to return (observation, reward, terminated, '
  'truncated, info).'
)


def broken(problem: str) -> EnvError:
  """The error of an environment that does not do what gymnasium expects."""
  return EnvError(f'{problem} {CONTRACT}')


def check_reset(env: Any) -> None:
  """Raises an EnvError if an environment cannot be given a seed."""
  for layer in (env, getattr(env, 'unwrapped', env)):
    try:
      inspect.signature(layer.reset).bind(seed=0)
    except AttributeError:
      raise broken(f'{env} has no reset.') from None
    except TypeError as error:
      raise broken(
        f'The reset of {env} takes no seed ({error}), so that its episodes '
        'cannot be told apart and repeated.'
      ) from None
    except ValueError:
      pass  # Of compiled code, which does not say what it takes.


def split_reset(result: Any) -> Any:
  """The observation that a reset returned, with info or, as in gym, alone."""
  if not isinstance(result, tuple):
    return result
  if len(result) == 2 and _is_info(result[1]):
    return result[0]
  raise broken(f'reset returned a tuple of {_kinds(result)}.')


def split_step(result: Any) -> tuple[Any, float, bool, bool, bool]:
  """Observation, reward, terminated, truncated and success of a step.

  Of gym's four values, done is a time limit where its wrapper says so.
  """
  if not isinstance(result, tuple | list) or len(result) not in (4, 5):
    raise broken(f'step returned {_kinds(result)}, which are not five values.')
  if not _is_info(result[-1]):
    raise broken(
      f'step returned a {type(result[-1]).__name__} as info, expected a dict.'
    )
  info = result[-1] or {}
  if len(result) == 5:
    obs, reward, terminated, truncated, _ = result
    terminated = _flag(terminated, 'terminated')
    truncated = _flag(truncated, 'truncated')
  else:
    obs, reward, done, _ = result
    done = _flag(done, 'done')
    truncated = done and _flag(info.get('TimeLimit.truncated'), 'truncated')
    terminated = done and not truncated
  return obs, _reward(reward), terminated, truncated, _success(info)


def part(obs: Any, key: str) -> Any:
  """An observation by its key."""
  if not isinstance(obs, Mapping) or key not in obs:
    found = sorted(obs) if isinstance(obs, Mapping) else type(obs).__name__
    raise broken(f'The observation {key!r} is missing in {found}.')
  return obs[key]


def vector(value: Any, key: str, size: int) -> np.ndarray:
  """A vector observation, float32 [size], as a copy."""
  found = _numbers(value)
  if found is None or found.size != size:
    raise broken(
      f'The observation {key!r} is {_describe(value)}, expected {size} numbers '
      'as its space says.'
    )
  # A copy, since environments may change their array later.
  return np.array(found, np.float32).reshape(size)


def image(value: Any, key: str) -> np.ndarray:
  """An image observation, uint8 [H, W, 3]."""
  found = _numbers(value)
  fits = found is not None and found.ndim == 3 and found.shape[-1] == 3
  if fits and found.dtype.kind in 'iu' and found.dtype != np.uint8:
    fits = found.min() >= 0 and found.max() <= 255
  if not fits or found.dtype.kind not in 'iu':
    raise broken(
      f'The observation {key!r} is {_describe(value)}, expected an image uint8 '
      '(H, W, 3) as its space says.'
    )
  return found.astype(np.uint8)


def _reward(value):
  found = _numbers(value)
  if found is None or found.size != 1:
    raise broken(f'The reward is {_describe(value)}, expected a number.')
  return float(found.item())


def _flag(value, name):
  if value is None:
    return False
  found = _numbers(value)
  if found is None or found.size != 1 or found.item() not in (0, 1):
    raise broken(f'{name} is {_describe(value)}, expected true or false.')
  return bool(found.item())


def _success(info):
  """Of several values, as for several goals, any one counts."""
  value = info.get('success', info.get('is_success'))
  if value is None:
    return False
  found = _numbers(value)
  if found is None or not np.isfinite(found).all():
    raise broken(
      f'The success in info is {_describe(value)}, expected true or false.'
    )
  return bool(found.any())


def _is_info(value):
  return value is None or isinstance(value, Mapping)


def _numbers(value):
  """An array of booleans or real numbers, None from anything else."""
  try:
    found = np.asarray(value)
  except ValueError:  # Lists of several lengths.
    return None
  return found if found.dtype.kind in 'biuf' else None


def _describe(value):
  if isinstance(value, np.ndarray):
    return f'an array {value.dtype} {value.shape}'
  text = repr(value)
  return text if len(text) < 60 else f'a {type(value).__name__}'


def _kinds(values):
  if not isinstance(values, tuple | list):
    return _describe(values)
  return f'{len(values)} ({", ".join(type(x).__name__ for x in values)})'
