"""Grids: what a file stands for, and its demonstrations. Nothing trains."""

import json
from pathlib import Path

import numpy as np
import pytest
from grid_helpers import TEXT, finish, grid_of, write

from moto_tf.commands import settings
from moto_tf.commands import suite as command
from moto_tf.data.episodes import save_episode
from moto_tf.envs.metaworld import TASKS
from moto_tf.grid import GridError, demonstrations, local, spec


def test_runs_of_a_file(tmp_path):
  grid = grid_of(tmp_path)
  assert (grid.name, grid.about) == ('mine', 'Some runs.')
  # Everything with the first seed comes first.
  labels = [f'gym_Pendulum-v1/{m}/0' for m in ('moto', 'dreamerv2', 'mine')]
  assert [run.label for run in grid.runs][:3] == labels
  assert len({run.logdir for run in grid.runs}) == len(grid.runs) == 6
  moto, dreamer, mine = (run.config for run in grid.runs[:3])
  assert (moto.method, moto.variant, moto.online_steps) == ('moto', '', 8)
  assert (dreamer.method, dreamer.horizon) == ('dreamerv2', 4)
  assert (mine.method, mine.name, mine.moto.alpha) == ('no_bc', 'mine', 1.0)
  assert grid.runs[2].logdir == tmp_path / 'runs/gym_Pendulum-v1/mine/0'
  for run in grid.runs:
    # What a process of the run gets says the same.
    assert settings.parse(run.words).flat == run.config.flat
    assert all('\n' not in word for word in run.words)


def test_the_command_line_narrows_and_overrides(tmp_path):
  path = str(write(tmp_path))
  words = [path, '--logdir', str(tmp_path), '--methods', 'moto|mine']
  words += ['--seeds', '7', '--configs', 'small', '--rssm.deter', '32']
  found = []
  run = lambda grid, args: found.append(grid) or {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(command, 'run', run)
    command.main(words)
  (grid,) = found
  assert [run.label.split('/', 1)[1] for run in grid.runs] == [
    'moto/7',
    'mine/7',
  ]
  assert {run.config.rssm.deter for run in grid.runs} == {32}
  assert {run.config.rssm.hidden for run in grid.runs} == {256}
  assert {run.config.replay.batch for run in grid.runs} == {8}
  # Behind sizes, the presets of methods.
  assert grid.runs[1].config.actor.layers == (8, 8)


@pytest.mark.parametrize(
  'old, new, message',
  [
    ('dreamerv2:', 'dreamer:', 'there is no preset dreamer. Presets are'),
    ('about', 'abuot', 'unknown key abuot; did you mean about?'),
    ('[0, 1]', '[0, -1]', 'the seed -1 is not a whole number'),
    ('[0, 1]', '[]', 'seeds is empty'),
    ('[0, 1]', '3', 'seeds is 3, expected a list'),
    ('horizon', 'horizn', 'dreamerv2: unknown key .horizn.; did you mean'),
    ('moto.alpha: 1', 'moto.alpha: x', 'mine: moto.alpha: expected'),
    ('[no_bc]', 'no_bc', r"methods.mine.presets is 'no_bc', expected a list"),
    ('[gym_Pendulum-v1]', '[]', 'expected tasks, a list of names or a map'),
    ('[gym_Pendulum-v1]', '[a/b]', "'a/b' in tasks cannot name a directory"),
    ('seeds', 'demonstrations: {episodes: 0}\nseeds', 'has 0 demonstrations'),
    ('seeds', 'cores: 0\nseeds', 'cores is 0, expected 1 or more'),
    (
      '[gym_Pendulum-v1]',
      '[gym_Pendulum-v1: {presets: [gym]}]',
      'tasks is a list with .*, expected names. .* write a map',
    ),
    ('online_steps: 8,', 'seed: 7,', r'settings.seed is of a single run'),
    ('horizon: 4', 'logdir: /x', r'methods.dreamerv2.settings.logdir is of a'),
  ],
)
def test_mistakes_in_files(tmp_path, old, new, message):
  path = write(tmp_path, TEXT.replace(old, new, 1))
  with pytest.raises(GridError, match=message) as error:
    spec.load(path)
  assert str(path) in str(error.value)


def test_mistakes_on_the_command_line(tmp_path, capsys):
  with pytest.raises(GridError, match='no suite .figure.; did you mean figure'):
    spec.find('figure')
  with pytest.raises(GridError, match='There is no file'):
    spec.find('x/none.yaml')
  with pytest.raises(GridError, match="passes --methods 'x': moto, dreamerv2"):
    grid_of(tmp_path, methods='x')
  with pytest.raises(GridError, match=r"--tasks '\(' is not a regular"):
    grid_of(tmp_path, tasks='(')
  with pytest.raises(SystemExit) as error:
    command.main([str(write(tmp_path)), '--seed', '3'])
  assert '--seed is of a single run' in str(error.value)


def test_settings_may_stand_before_the_suite(tmp_path, monkeypatch):
  """Their values are not taken for its name."""
  found = []
  monkeypatch.setattr(command, 'run', lambda grid, args: found.append(grid))
  path = str(write(tmp_path))
  command.main(['--horizon', '3', '--env.time_limit=7', path, '--seeds', '5'])
  config = found[0].runs[0].config
  assert (config.horizon, config.env.time_limit, config.seed) == (3, 7, 5)


def test_data_is_found_from_other_directories(tmp_path, monkeypatch):
  """Slurm and Ray start runs elsewhere."""
  monkeypatch.chdir(tmp_path)
  text = TEXT.replace('online_steps: 8', 'heldout_data: "more/{task}"')
  grid = spec.load(write(tmp_path, text))
  expected = f'{tmp_path}/more/{{task}}'
  monkeypatch.chdir('/')
  for run in grid.runs:
    assert run.config.heldout_data == expected
    assert settings.parse(run.words).heldout_data == expected
    assert run.config.offline_data == ''


@pytest.mark.parametrize('name', spec.shipped())
def test_shipped_suites(name):
  path = spec.find(name)
  assert spec.shipped()[name]
  tasks, methods = spec.layout(path)
  assert len(spec.load(path).runs) == len(tasks) * len(methods) * 3


def test_figure2_has_the_tasks_of_the_paper():
  tasks, methods = spec.layout(spec.find('figure2'))
  assert tasks == [f'metaworld_{task}' for task in TASKS]
  assert len(methods) == 8


def test_demonstrations(tmp_path, monkeypatch):
  text = TEXT.replace('gym_Pendulum-v1', 'metaworld_hammer')
  text = text.replace('[gym,', '[metaworld,') + 'demonstrations: {episodes: 3}'
  grid = spec.load(write(tmp_path, text), tmp_path / 'runs')
  (found,) = demonstrations.look(grid)
  directory = tmp_path / 'runs' / 'metaworld_hammer' / 'demos'
  assert (found.directory, found.have, found.want) == (directory, 0, 3)
  assert not found.recording.env.image and not directory.exists()
  calls = []
  monkeypatch.setattr(
    demonstrations.record, 'collect', lambda *args: calls.append(args)
  )
  demonstrations.make([found], 2)
  assert calls == [(found.recording, directory, 3, 2)]
  # Those of somebody else are used as they are.
  save_episode(directory, 'x', EPISODE)
  (found,) = demonstrations.look(grid)
  assert (found.have, found.recording) == (1, None)
  # Without experts there is nothing to record.
  gym = TEXT + 'demonstrations: {episodes: 3}'
  gym = gym.replace(
    '{online_steps: 8, offline_steps: 0}', '{offline_data: auto}'
  )
  with pytest.raises(GridError, match='has no demonstrations in .*no scripted'):
    demonstrations.look(spec.load(write(tmp_path, gym), tmp_path / 'other'))
  (tmp_path / 'none').mkdir()
  gym = gym.replace('auto', str(tmp_path / 'none'))
  with pytest.raises(
    GridError, match='no episodes in .*none, the offline_data'
  ):
    demonstrations.look(spec.load(write(tmp_path, gym), tmp_path / 'other'))
  assert demonstrations.look(grid_of(tmp_path)) == []


EPISODE = {
  'state': np.zeros((3, 5), np.float32),
  'action': np.zeros((3, 4), np.float32),
  'reward': np.zeros(3, np.float32),
  'is_first': np.array([True, False, False]),
  'is_last': np.array([False, False, True]),
  'is_terminal': np.zeros(3, bool),
  'success': np.zeros(3, bool),
}


def test_figures_are_of_all_that_was_run(tmp_path, capsys):
  """Also by other calls, without runs that failed."""
  grid = grid_of(tmp_path)
  for run in grid.runs:
    finish(run, **{'eval/success': 0.5})
  names = spec.layout(write(tmp_path))
  figures = tmp_path / 'runs' / 'figures'
  command.draw(grid, names)
  table = (figures / 'table.md').read_text()
  for method in ('moto', 'dreamerv2', 'mine'):
    assert f'| gym_Pendulum-v1 | {method} | 2 |' in table
  stale = figures / 'eval_return_statistics.png'
  stale.touch()
  command.draw(grid_of(tmp_path, methods='moto', seeds=[0]), names)
  assert (figures / 'table.md').read_text() == table
  assert not stale.exists()
  failed = [x.logdir for x in grid.runs if x.config.name == 'moto']
  command.draw(grid, names, failed)
  assert '| moto | 0 | not run |' in (figures / 'table.md').read_text()
  found = json.loads((figures / 'statistics.json').read_text())
  assert [*found['eval/success']['methods']] == ['dreamerv2', 'mine']
  assert f'as it failed: {failed[1]}' in capsys.readouterr().err
  command.draw(grid, names, [run.logdir for run in grid.runs])
  assert 'No figures: no run has' in capsys.readouterr().err


def test_other_settings_are_found_before_demonstrations_are_recorded(
  tmp_path, monkeypatch
):
  changed = grid_of(tmp_path, more=[{'horizon': 5}])
  finish(changed.runs[0], step=4)
  made = []
  monkeypatch.setattr(demonstrations, 'make', lambda *args: made.append(args))
  words = [str(write(tmp_path)), '--logdir', str(tmp_path / 'runs')]
  with pytest.raises(SystemExit) as error:
    command.main(words)
  assert 'has other settings than the suite: horizon 5' in str(error.value)
  assert not made


def test_paths_are_whole_wherever_a_run_is_started(tmp_path, monkeypatch):
  """By Slurm and Ray, that is in directories of their own."""
  monkeypatch.chdir(tmp_path)
  write(tmp_path)
  (tmp_path / 'more.yaml').write_text('horizon: 3\n')
  grid = spec.load(Path('mine.yaml'), Path('runs'), ['./more.yaml'])
  assert grid.root == tmp_path / 'runs'
  words = local.command(grid.runs[0])
  assert str(tmp_path / 'more.yaml') in words
  assert f'--logdir={tmp_path}/runs/gym_Pendulum-v1/moto/0' in words
