"""Demonstrations recorded with the scripted policies of Meta-World.

Attempt i depends only on the seed, i and the settings, never on the number of
worker processes. A recording can therefore stop anywhere and go on later: the
directory ends up with the same files as if it had not been interrupted.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import multiprocessing.connection
import pathlib
import re
import signal
import sys
import time
import traceback
from importlib import metadata

import numpy as np

import moto_tf
from moto_tf import envs
from moto_tf.data import episodes, inspect
from moto_tf.envs import metaworld

# Attempts per wanted episode before a recording gives up.
PATIENCE = 10


class RecordError(ValueError):
  """A recording cannot start or go on; the message says why."""


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything that decides what an attempt looks like.

  task is a Meta-World name such as 'drawer-open', noise the standard deviation
  of Gaussian noise on the actions, env the `env` part of a Config. Without
  all_outcomes only successful attempts are kept.
  """

  task: str
  env: object
  seed: int = 0
  noise: float = 0.0
  all_outcomes: bool = False

  def settings(self) -> dict:
    """Plain values, as stored in dataset.json."""
    values = {
      'task': f'metaworld_{self.task}',
      'seed': self.seed,
      'noise': self.noise,
      'all_outcomes': self.all_outcomes,
      'env': dict(self.env),
    }
    return json.loads(json.dumps(values))


class Recorder:
  """Makes the attempts of a recipe, one after the other, in this process."""

  def __init__(self, recipe: Recipe):
    self._recipe = recipe
    self._env = envs.make_env(f'metaworld_{recipe.task}', recipe.env)
    self._policy = metaworld.scripted_policy(recipe.task)

  def attempt(self, index: int) -> dict:
    """Return the episode of one attempt, [records, ...] per key."""
    sequence = np.random.SeedSequence([self._recipe.seed, index])
    # Half of the range, since not every generator takes seeds above 2 ** 31.
    seed = int(sequence.generate_state(1)[0] // 2)
    rng = np.random.default_rng(sequence.spawn(1)[0])
    shape = self._env.act_space.shape
    action = np.zeros(shape, np.float32)
    records = [{**self._env.reset(seed), 'action': action}]
    while not records[-1]['is_last']:
      noise = self._recipe.noise * rng.standard_normal(shape)
      action = self._policy(self._env.raw_obs) + noise
      action = np.clip(action, -1, 1).astype(np.float32)
      records.append({**self._env.step(action), 'action': action})
    return {key: np.stack([r[key] for r in records]) for key in records[0]}

  def close(self):
    """Free the environment."""
    self._env.close()


def collect(
  recipe: Recipe,
  directory: pathlib.Path,
  count: int,
  workers: int = 1,
) -> inspect.Info:
  """Record until a directory holds `count` episodes, going on if it has some.

  Writes '<attempt>-<transitions>.npz' files and dataset.json, and returns the
  numbers of the whole directory. Raises RecordError when the directory belongs
  to another recording, an episode is damaged or too few attempts succeed.
  """
  if count < 1 or workers < 1 or recipe.noise < 0 or recipe.seed < 0:
    raise RecordError(
      f'Got {count} episodes, {workers} workers, noise {recipe.noise} and seed '
      f'{recipe.seed}; expected at least 1, 1, 0 and 0.'
    )
  # An unknown task must not leave an empty directory behind.
  metaworld.scripted_policy(recipe.task)
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  kept, dropped = _open_recording(recipe, directory)
  if len(kept) < count:
    left = (i for i in itertools.count() if i not in kept | dropped)
    progress = Progress(recipe.task, len(kept), count)
    attempts = _attempts(recipe, left, min(workers, count - len(kept)))
    try:
      for index, episode in attempts:
        if recipe.all_outcomes or episodes.episode_success(episode):
          episodes.save_episode(directory, f'{index:06d}', episode)
          kept.add(index)
        else:
          dropped.add(index)
          _write_record(recipe, directory, dropped)
        progress.show(len(kept), len(dropped))
        if len(kept) >= count:
          break
        if len(kept | dropped) >= PATIENCE * count:
          raise RecordError(
            f'{recipe.task}: only {len(kept)} of {len(kept | dropped)} '
            f'attempts succeeded, {count} are wanted. Lower --noise '
            f'({recipe.noise}), or keep failures too with --all_outcomes.'
          )
    finally:
      attempts.close()
      progress.close()
  return inspect.inspect(directory)


class Progress:
  """One line that is rewritten on a terminal, and repeated elsewhere."""

  def __init__(self, task: str, done: int, total: int, every: float = 10.0):
    self._task, self._start, self._total = task, done, total
    self._stream, self._every = sys.stdout, every
    self._began = self._shown = time.monotonic()

  def show(self, kept: int, dropped: int):
    """Print the state, at most every few seconds when not on a terminal."""
    now = time.monotonic()
    fresh = kept - self._start
    terminal = self._stream.isatty()
    finished = kept >= self._total
    if not (terminal or finished or now - self._shown >= self._every):
      return
    self._shown = now
    rate = fresh / max(now - self._began, 1e-6)
    left = f'{(self._total - kept) / rate:.0f} s left' if fresh else '? s left'
    line = (
      f'{self._task:<14} {kept}/{self._total} episodes, {dropped} dropped, '
      f'{60 * rate:.1f}/min, {left}'
    )
    line = f'\r{line:<79}' if terminal else f'{line}\n'
    print(line, end='', flush=True, file=self._stream)

  def close(self):
    """End the line on a terminal."""
    if self._stream.isatty():
      print(file=self._stream, flush=True)


def _open_recording(recipe, directory):
  """Attempts kept and dropped so far, after checking who made them."""
  record = inspect.read_record(directory)
  paths = episodes.find_episodes(directory)
  if paths and not record:
    raise RecordError(
      f'{directory}: holds episodes but no dataset.json, so they were not '
      'made by this tool. Choose another --outdir.'
    )
  differing = _differences(record, recipe.settings())
  if differing and not paths:
    # Nothing is lost, for example after a first try with a wrong camera.
    _write_record(recipe, directory, set())
    return set(), set()
  if differing:
    raise RecordError(
      f'{directory}: was recorded with other settings: {"; ".join(differing)}. '
      'Use those settings, or another --outdir.'
    )
  kept = set()
  for path in paths:
    match = re.fullmatch(r'(\d{6,})-\d+', path.stem)
    if not match:
      raise RecordError(f'{path}: not made by this tool; move it elsewhere.')
    try:
      episodes.load_episode(path)
    except episodes.EpisodeError as error:
      raise RecordError(
        f'{str(error).rstrip(".")}. Remove the file to have it recorded again.'
      ) from error
    kept.add(int(match[1]))
  return kept, set(record.get('dropped', ()))


def _differences(old, new, prefix=''):
  """Say which settings differ, with dotted names."""
  result = []
  for key, value in new.items():
    name = prefix + key
    before = old.get(key)
    if isinstance(value, dict) and isinstance(before, dict):
      result += _differences(before, value, f'{name}.')
    elif before != value:
      result.append(f'{name} {before!r} there, {value!r} now')
  return result


def _write_record(recipe, directory, dropped):
  packages = {
    name: metadata.version(name) for name in ('metaworld', 'mujoco', 'numpy')
  }
  record = {
    **recipe.settings(),
    'policy': 'scripted',
    'dropped': sorted(dropped),
    'versions': {'moto_tf': moto_tf.__version__, **packages},
  }
  text = json.dumps(record, indent=2) + '\n'
  episodes.write_atomic(directory / 'dataset.json', text.encode())


def _attempts(recipe, indices, workers):
  """Yield (index, episode) in the order of the indices, until closed."""
  if workers > 1:
    yield from _parallel_attempts(recipe, indices, workers)
    return
  recorder = Recorder(recipe)
  try:
    for index in indices:
      yield index, recorder.attempt(index)
  finally:
    recorder.close()


def _parallel_attempts(recipe, indices, workers):
  """Attempts made by worker processes that each take the next free index."""
  context = multiprocessing.get_context('spawn')
  processes, waiting = {}, collections.deque()
  running, done = {}, {}
  try:
    for _ in range(workers):
      ours, theirs = context.Pipe()
      process = context.Process(
        target=_work, args=(recipe, theirs), daemon=True
      )
      processes[ours] = process
      process.start()
      theirs.close()
    while True:
      for pipe in processes:
        if pipe not in running:
          index = next(indices)
          running[pipe] = index
          waiting.append(index)
          # A dead worker is reported by the attempt to receive from it.
          with contextlib.suppress(OSError):
            pipe.send(index)
      for pipe in multiprocessing.connection.wait(list(running)):
        index = running.pop(pipe)
        done[index] = _receive(pipe, processes[pipe], index)
      while waiting and waiting[0] in done:
        yield waiting[0], done.pop(waiting.popleft())
  finally:
    for pipe, process in processes.items():
      pipe.close()
      process.join(timeout=10)
      if process.is_alive():
        process.kill()
        process.join()


def _receive(pipe, process, index):
  try:
    episode, error = pipe.recv()
  except (EOFError, OSError) as cause:
    process.join(timeout=10)
    raise RecordError(
      f'The worker of attempt {index} ended with exit code '
      f'{process.exitcode}; a negative one is a signal, -9 often means too '
      'little memory. Try --workers 1.'
    ) from cause
  if error:
    raise RecordError(f'Attempt {index} failed: {error}')
  return episode


def _work(recipe, pipe):
  """Answer attempt numbers with (episode, '') or (None, problem)."""
  # Ctrl-C reaches every process; the parent alone decides to stop.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  recorder = None
  try:
    while True:
      index = pipe.recv()
      try:
        recorder = recorder or Recorder(recipe)
        answer = recorder.attempt(index), ''
      except envs.EnvError as error:
        answer = None, str(error)
      except Exception:
        answer = None, f'in its worker:\n{traceback.format_exc()}'
      pipe.send(answer)
  except (EOFError, OSError):
    # The parent closed the pipe: there is no more work.
    if recorder:
      recorder.close()
