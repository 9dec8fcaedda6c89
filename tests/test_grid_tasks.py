"""What a suite's file says of single tasks, and which of its parts comes last.

As docs/suites.md has it. Nothing is recorded and nothing trains.
"""

import os

import pytest
from grid_helpers import write

from moto_tf import ownership, rules
from moto_tf.commands import settings
from moto_tf.config import Config
from moto_tf.data.record import Recording
from moto_tf.grid import GridError, demonstrations, spec

# Settings of which each part of a file sets one fewer than the part before, so
# that each part has the last word on one of them.
KEYS = ('log_every', 'eval_every', 'report_every', 'checkpoint_every')
TASKS = """
presets: [gym, proprio, debug{general}]
tasks:
  gym_Pendulum-v1:
  gym_Reacher-v5: {special}
methods:
  moto:
  mine: {of_method}
settings: {settings}
demonstrations: {{episodes: 7, seed: 3, noise: 0.2}}
"""


def values(level, value):
  """What part `level` sets, in the order of precedence, from 0."""
  return {key: value for key in KEYS[level:]}


def last_words(run):
  return [run.config[key] for key in KEYS]


def load(tmp_path, more=(), **parts):
  empty = {'general': '', 'special': {}, 'settings': {}}
  parts = {**empty, 'of_method': {'presets': ['moto']}, **parts}
  path = write(tmp_path, TASKS.format(**parts))
  return spec.load(path, tmp_path / 'runs', more)


def by_name(grid):
  runs = {(run.config.task, run.config.name): run for run in grid.runs}
  assert len(runs) == len(grid.runs) == 4
  for run in runs.values():
    # What a process of the run gets says the same.
    assert settings.parse(run.words).flat == run.config.flat
  return runs


RECORDING = Recording('x', Config({'image': False}, 'env.'), 0, 0.0)
PENDULUM, REACHER = 'gym_Pendulum-v1', 'gym_Reacher-v5'


def test_settings_by_task(tmp_path):
  """The file's, the task's, the method's, those of the command line."""
  grid = load(
    tmp_path,
    [values(3, 94)],
    settings=values(0, 91),
    special={'settings': values(1, 92)},
    of_method={'presets': ['moto'], 'settings': values(2, 93)},
  )
  runs = by_name(grid)
  assert last_words(runs[REACHER, 'mine']) == [91, 92, 93, 94]
  assert last_words(runs[REACHER, 'moto']) == [91, 92, 92, 94]
  assert last_words(runs[PENDULUM, 'mine']) == [91, 91, 93, 94]
  assert last_words(runs[PENDULUM, 'moto']) == [91, 91, 91, 94]


def test_the_last_one_of_keys_and_patterns_counts(tmp_path):
  """Also where a key was set before, as on the command line of `train`."""
  pattern = '.*_opt.lr'
  grid = load(
    tmp_path,
    [{'critic_opt.lr': 2e-4}],
    settings={'actor_opt.lr': 5e-5, 'critic_opt.lr': 5e-5},
    special={'settings': {'actor_opt.lr': 6e-5}},
    of_method={'presets': ['moto'], 'settings': {pattern: 1e-3}},
  )
  rates = {
    key: (run.config.actor_opt.lr, run.config.critic_opt.lr)
    for key, run in by_name(grid).items()
  }
  assert rates == {
    (PENDULUM, 'moto'): (5e-5, 2e-4),
    (PENDULUM, 'mine'): (1e-3, 2e-4),
    (REACHER, 'moto'): (6e-5, 2e-4),
    (REACHER, 'mine'): (1e-3, 2e-4),
  }


@pytest.mark.parametrize('key', ['variant: paper', 'method: dreamerv2_paper'])
def test_runs_are_named_by_the_methods_of_the_suite(tmp_path, key):
  """Whatever a file of presets calls them; else two would be one."""
  path = tmp_path / 'preset.yaml'
  path.write_text(f'horizon: 4\n{key}\n')
  for parts in (
    {'general': f', {path}'},
    {'of_method': {'presets': ['moto', str(path)]}},
  ):
    grid = load(tmp_path, **parts)
    by_name(grid)
    labels = {run.label for run in grid.runs}
    assert labels == {
      f'{task}/{method}/0'
      for task in (PENDULUM, REACHER)
      for method in ('moto', 'mine')
    }
    assert 4 in {run.config.horizon for run in grid.runs}


def test_files_of_presets_are_found_from_any_directory(tmp_path, monkeypatch):
  """Runs start elsewhere with Slurm and Ray."""
  monkeypatch.chdir(tmp_path)
  for level in range(3):
    path = tmp_path / f'own{level}.yaml'
    path.write_text(f'log_every: {level + 1}\n')
  grid = load(
    tmp_path,
    general=', ./own0.yaml',
    special={'presets': ['./own1.yaml']},
    of_method={'presets': ['moto', './own2.yaml']},
  )
  for run in grid.runs:
    files = [x for x in run.words if x.endswith('.yaml')]
    assert files and all(x.startswith(str(tmp_path)) for x in files)


def test_presets_by_task(tmp_path):
  """The file's, the task's, those of --configs, the method's.

  Settings come behind all of them.
  """
  paths = []
  for level in range(4):
    path = tmp_path / f'preset{level}.yaml'
    lines = [f'{k}: {v}\n' for k, v in values(level, 81 + level).items()]
    path.write_text(''.join(lines))
    paths.append(str(path))
  parts = {
    'general': f', {paths[0]}',
    'special': {'presets': [paths[1]]},
    'of_method': {'presets': [paths[3], 'moto']},
  }
  grid = load(tmp_path, [paths[2]], **parts)
  runs = by_name(grid)
  assert last_words(runs[REACHER, 'mine']) == [81, 82, 83, 84]
  assert last_words(runs[REACHER, 'moto']) == [81, 82, 83, 83]
  assert last_words(runs[PENDULUM, 'mine']) == [81, 81, 83, 84]
  grid = load(tmp_path, [paths[2]], settings=values(3, 91), **parts)
  assert last_words(by_name(grid)[REACHER, 'mine']) == [81, 82, 83, 91]


def test_demonstrations_by_task(tmp_path):
  """The task's own; what it does not name is the file's."""
  special = {'demonstrations': {'episodes': 20, 'noise': None}}
  text = str(special).replace('None', 'null')
  found = load(tmp_path, special=text).demonstrations
  assert found[PENDULUM] == spec.Demos(episodes=7, seed=3, noise=0.2)
  assert found[REACHER] == spec.Demos(episodes=20, seed=3, noise=None)
  special = {'demonstrations': {'episods': 20}}
  with pytest.raises(
    GridError, match=rf'tasks.{REACHER}.demonstrations.episods.*episodes\?'
  ):
    load(tmp_path, special=special)


def test_demonstrations_are_recorded_by_task(tmp_path):
  text = """
    presets: [metaworld, proprio, debug]
    tasks:
      metaworld_hammer:
      metaworld_door-open:
        settings: {env.action_repeat: 4, env.time_limit: 60}
        demonstrations: {episodes: 5, noise: 0.25}
    methods: [moto, dreamerv2]
    demonstrations: {episodes: 3, seed: 2}
  """
  grid = spec.load(write(tmp_path, text), tmp_path / 'runs')
  hammer, door = demonstrations.look(grid)
  assert (hammer.task, hammer.want) == ('metaworld_hammer', 3)
  assert (door.task, door.want) == ('metaworld_door-open', 5)
  assert door.directory == tmp_path / 'runs' / 'metaworld_door-open' / 'demos'
  assert (hammer.recording.seed, door.recording.seed) == (2, 2)
  assert (hammer.recording.noise, door.recording.noise) == (0, 0.25)
  # With the settings of the task's runs.
  env = door.recording.env
  assert (env.action_repeat, env.time_limit) == (4, 60)
  assert hammer.recording.env.action_repeat == 2


def test_demonstrations_of_another_suite_are_waited_for(
  tmp_path, monkeypatch, capsys
):
  state = demonstrations.DemoState('x', tmp_path, 0, 1, RECORDING)
  owner, calls = ownership.Owner(tmp_path), []

  def wait(seconds):
    """The other suite is done after the third look."""
    assert not calls
    waits.append(seconds)
    if len(waits) == 3:
      owner.close()

  waits = []
  monkeypatch.setattr(demonstrations.time, 'sleep', wait)
  collect = lambda *args: calls.append(ownership.holder(tmp_path)['pid'])
  monkeypatch.setattr(demonstrations.record, 'collect', collect)
  demonstrations.make([state], 1)
  # With a lock of its own, which is gone at the end.
  assert calls == [os.getpid()] and ownership.holder(tmp_path) is None
  said = capsys.readouterr().out
  assert len(waits) == 3 and said.count('Waiting.') == 1
  assert f'{tmp_path} is in use by this process itself' in said


def test_the_kitchen_suites_have_the_presets_of_their_tasks():
  """Without these, `partial` would clone what no demonstration achieves."""
  grid = spec.load(spec.find('figure3_left'))
  assert {x.episodes for x in grid.demonstrations.values()} == {563}
  counts = dict.fromkeys(grid.tasks, 0)
  for run in grid.runs:
    config = run.config
    counts[config.task] += 1
    assert (config.env.time_limit, config.env.action_repeat) == (280, 1)
    targets = list(rules.split_names(config.bc_targets))
    if config.task == 'kitchen_partial':
      assert targets == ['microwave', 'kettle', 'bottom burner']
    else:
      assert targets == []
  assert counts == {'kitchen_mixed': 24, 'kitchen_partial': 24}
