"""What a run would do and need, without starting it (--dry-run)."""

import shutil

import numpy as np

from moto_tf import memory
from moto_tf.agents import METHODS
from moto_tf.config import Config
from moto_tf.errors import MotoError
from moto_tf.progress import duration
from moto_tf.training import forecast, rundir


class PreviewError(MotoError, RuntimeError):
  """The run would not get to its end; the message says why."""


def preview(config: Config) -> str:
  """Checks data, spaces, disk, memory and time of a run.

  Everything that could fail at its start is done for real, see
  `forecast.measure`. The log directory is not touched.

  Returns:
    Lines for the terminal.

  Raises:
    MotoError: what the run itself would end with.
  """
  memory.check(config)
  logdir = config.path('logdir')
  offline = rundir.find_offline(config)
  loaded = forecast.open_checkpoints(config).load()
  if loaded:
    path = logdir / 'config.yaml'
    config = rundir.keep_added(path, config, loaded[1])
    rundir.check_changes(path, config, loaded[1])
  facts = {}
  found = forecast.measure(
    config, offline, loaded, lambda agent: facts.update(_facts(agent))
  )
  done = loaded[1]['counters'] if loaded else {}
  left = forecast.forecast(found, config, done)
  lines = [
    ('method', f'{METHODS[config.method].label} on {config.task}'),
    ('log directory', f'{logdir}{", to be continued" if loaded else ""}'),
    ('demonstrations', str(offline or 'none')),
    ('observations', facts['spaces']),
    (
      'variables',
      f'{facts["numbers"]:,} numbers, {found.arrays / 2**20:,.0f} MiB saved',
    ),
    (
      'memory',
      f'{found.peak / 2**30:.1f} GiB at its peak so far, about '
      f'{left.memory / 2**30:.1f} GiB at the end with {left.transitions:,} '
      'transitions',
    ),
    ('disk', _disk(logdir, left, found.arrays, config)),
    *_time(found, left),
  ]
  lines += [('', remark) for remark in facts['remarks']]
  return '\n'.join(f'{name:<16}{text}' for name, text in lines)


def _facts(agent):
  spaces = {k: agent.obs_space[k] for k in agent.obs_keys}
  parts = [f'{k} {tuple(v.shape)} {v.dtype}' for k, v in spaces.items()]
  return {
    'spaces': f'{", ".join(parts)}; {agent.act_space.shape[0]} actions',
    'numbers': sum(int(np.prod(v.shape)) for v in agent.variables().values()),
    'remarks': agent.remarks,
  }


def _disk(logdir, left, arrays, config):
  place = next(p for p in (logdir, *logdir.absolute().parents) if p.exists())
  free = shutil.disk_usage(place).free
  text = (
    f'about {left.disk / 2**30:.2f} GiB: {config.checkpoint_keep} checkpoints, '
    f'{left.milestones:,} milestones of {arrays / 2**20:,.0f} MiB and '
    f'{left.episodes:,} episodes; {free / 2**30:.1f} GiB are free'
  )
  if left.disk > free:
    raise PreviewError(
      f'The run needs {text} in {place}. Make room, or choose another --logdir.'
    )
  return text


def _time(found, left):
  total = found.first + sum(left.seconds.values())
  parts = [f'{name} {duration(x)}' for name, x in left.seconds.items()]
  return [
    (
      'speed',
      f'{found.step:.3f} s per gradient step ({forecast.STEPS} steps), the '
      f'first one {found.first:.0f} s; {found.episode:.1f} s per episode of '
      f'{found.length} agent steps, and {1e3 * found.action:.1f} ms per action',
    ),
    ('time', f'about {duration(total)}: {", ".join(parts)}'),
  ]
