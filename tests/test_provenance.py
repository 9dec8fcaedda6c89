"""Results name the checkpoint they are of, and replace none unasked."""

import json
import os
import shutil

import numpy as np
import pytest
from test_meta import ARRAYS, META

from moto_tf import policy
from moto_tf.commands.evaluate import main
from moto_tf.config import Config
from moto_tf.files import FileError
from moto_tf.presets import make_config
from moto_tf.results import evaluations, export
from moto_tf.rules import ConfigError
from moto_tf.training import evaluation, meta, provenance, records, rundir
from moto_tf.training.checkpoint import CheckpointError, Checkpoints


def add_run(logdir, **overrides):
  """A run with a checkpoint, and no weights."""
  config = make_config('debug', overrides)
  config.save(logdir / 'config.yaml')
  said = {**META, 'settings': meta.settings(config)}
  Checkpoints(logdir / 'checkpoints', 3).save(4, ARRAYS, said)
  row = {'gradient_step': 4, 'env_step': 32, 'phase': 'online', 'time': 1.0}
  (logdir / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  return logdir


def of_run(logdir, path=None):
  config = Config.load(logdir / 'config.yaml')
  loaded = Checkpoints(logdir / 'checkpoints', 1, meta.check).load(path)
  return provenance.of_run(logdir, config, loaded[2], loaded[1])


@pytest.fixture
def rolled(monkeypatch):
  """Evaluations without an agent; counts how often one is rolled out."""
  calls = []

  def load_agent(logdir, checkpoint=None):
    loaded = Checkpoints(logdir / 'checkpoints', 1).load(checkpoint)
    config = Config.load(logdir / 'config.yaml')
    config, name = provenance.of_run(logdir, config, loaded[2], loaded[1])
    agent = type('Agent', (), {'obs_space': {}})
    return agent, config, {**loaded[1], 'checkpoint': name}

  def roll_out(agent, config, episodes, *args):
    calls.append(episodes)
    episode = {
      'success': np.array([False, True]),
      'reward': np.array([0.0, 1.0]),
    }
    rollouts = [episode] * episodes
    summary = evaluation.summarise(rollouts, list(range(episodes)))
    return {**summary, 'lost': 0}, rollouts

  monkeypatch.setattr(policy, 'load_agent', load_agent)
  monkeypatch.setattr(evaluation, 'roll_out', roll_out)
  return calls


def test_a_checkpoint_of_this_run(tmp_path, capsys):
  logdir = add_run(tmp_path / 'a')
  assert of_run(logdir)[1] == 'checkpoints/ckpt-00000004.npz'
  assert not capsys.readouterr().err


@pytest.mark.parametrize(
  'other', [{'seed': 3}, {'task': 'metaworld_hammer'}, {'method': 'no_bc'}]
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other):
  logdir = add_run(tmp_path / 'a')
  if 'method' in other:
    other = {**other, 'moto.beta': 0.0}
  path = add_run(tmp_path / 'b', **other) / 'checkpoints' / 'ckpt-00000004.npz'
  ((key, value), *_) = other.items()
  with pytest.raises(CheckpointError, match=f'of a run with .*{key} {value}'):
    of_run(logdir, path)
  # Not even where it was copied to.
  target = logdir / 'checkpoints' / 'ckpt-00000004.npz'
  shutil.copy(path, target)
  with pytest.raises(CheckpointError, match='Name the --logdir'):
    of_run(logdir)


def test_what_the_checkpoint_says_counts(tmp_path, capsys):
  """Where config.yaml was edited, or cut in half."""
  logdir = add_run(tmp_path / 'a', **{'env.time_limit': 30, 'horizon': 7})
  path = logdir / 'config.yaml'
  lines = path.read_text().splitlines()
  places = [k for k, x in enumerate(lines) if x.startswith('env.time_limit')]
  path.write_text('\n'.join(lines[: places[0]]))
  config, _ = of_run(logdir)
  assert config.env.time_limit == 30 and config.horizon == 7
  assert 'differ in env.time_limit' in capsys.readouterr().err


def test_evaluations_name_their_checkpoint(tmp_path, rolled, capsys):
  logdir = add_run(tmp_path / 'a')
  main(['--logdir', str(logdir), '--episodes', '3'])
  path = logdir / 'evaluation' / 'evaluation-00000004.json'
  before = path.read_bytes()
  assert json.loads(before)['checkpoint'] == 'checkpoints/ckpt-00000004.npz'
  assert 'Checkpoint: checkpoints/ckpt-00000004.npz' in capsys.readouterr().out
  content = export.export(logdir)
  assert content['final']['checkpoint'] == 'checkpoints/ckpt-00000004.npz'
  # Not replaced unasked, which is said before anything is rolled out.
  with pytest.raises(SystemExit, match='is there already. --force replaces'):
    main(['--logdir', str(logdir)])
  assert path.read_bytes() == before and rolled == [3]
  main(['--logdir', str(logdir), '--episodes', '2', '--force'])
  assert json.loads(path.read_text())['episodes'] == 2
  main(['--logdir', str(logdir), '--outdir', str(tmp_path / 'out')])
  assert rolled == [3, 2, 50]


def test_a_copy_from_elsewhere_is_no_result(tmp_path, rolled, capsys):
  """Of the same task, method and seed; it may be of other settings."""
  logdir = add_run(tmp_path / 'a')
  path = add_run(tmp_path / 'b') / 'checkpoints' / 'ckpt-00000004.npz'
  result, _ = evaluation.evaluate_run(logdir, 2, checkpoint=path)
  assert result['checkpoint'] == str(path)
  assert f'does not lie in {logdir}/checkpoints' in capsys.readouterr().err
  assert export.export(logdir)['final'] is None
  assert f'of the checkpoint {path} outside' in capsys.readouterr().err


def test_what_a_run_went_back_behind_is_no_result(tmp_path, rolled, capsys):
  """Neither a checkpoint nor an evaluation of a future that was given up."""
  logdir = add_run(tmp_path / 'a')
  evaluation.evaluate_run(logdir, 2)
  config = Config.load(logdir / 'config.yaml')
  assert evaluations.by_step(logdir)[4]['episodes'] == 2
  records.Records(logdir, config, 4)
  assert export.export(logdir)['final']
  records.Records(logdir, config, 3)
  target = logdir / 'evaluation' / 'superseded'
  assert f'Moved 1 files to {target}' in capsys.readouterr().out
  assert [x.name for x in target.iterdir()] == ['evaluation-00000004.json']
  assert export.export(logdir)['final'] is None
  assert evaluations.by_step(logdir) == {}
  # The same of a new run in the place of another one.
  evaluation.evaluate_run(logdir, 3)
  records.Records(logdir, config, None)
  assert len(list(target.iterdir())) == 2
  # By the checkpoint that was set aside.
  place = logdir / 'checkpoints' / 'superseded'
  place.mkdir()
  (logdir / 'checkpoints' / 'ckpt-00000004.npz').rename(place / 'ckpt-4.npz')
  path = place / 'ckpt-4.npz'
  result, _ = evaluation.evaluate_run(logdir, 2, checkpoint=path)
  assert result['checkpoint'] == str(path)
  assert export.export(logdir)['final'] is None


@pytest.mark.parametrize(
  'change',
  [
    {'task': 'metaworld_hammer'},
    {'method': 'dreamerv2'},
    {'rollouts': []},
    {'rollouts': [{'seed': 0, 'success': 1}]},
    {'rollouts': [{'seed': 0, 'success': 'yes'}]},
    {'rollouts': [{'seed': 0, 'success': '1'}]},
    {'gradient_step': '4'},
    {'checkpoint': 3},
  ],
)
def test_evaluations_that_are_no_result(tmp_path, rolled, change):
  logdir = add_run(tmp_path / 'a')
  _, (path,) = evaluation.evaluate_run(logdir, 1)
  content = json.loads(path.read_text())
  assert export.export(logdir)['final']
  path.write_text(json.dumps({**content, **change}))
  assert export.export(logdir)['final'] is None


def test_a_place_that_cannot_be_written(tmp_path, rolled):
  """Is found before the rollouts, and nothing is left of the try."""
  logdir = add_run(tmp_path / 'a')
  (tmp_path / 'file').write_text('')
  with pytest.raises(FileError, match='Cannot write .*file'):
    evaluation.evaluate_run(logdir, outdir=tmp_path / 'file' / 'out')
  assert not rolled

  # What killed ones have left goes, what others are writing stays.
  outdir = tmp_path / 'out'
  outdir.mkdir()
  old, new = outdir / '.evaluation-1.json-7.tmp', outdir / '.e.gif-8.tmp'
  for place in (old, new):
    place.write_text('half')
  os.utime(old, (0, 0))
  evaluation.evaluate_run(logdir, 1, outdir=outdir)
  names = {path.name for path in outdir.iterdir()}
  assert names == {new.name, 'evaluation-00000004.json'}


# What a continued run is compared with.


def test_the_checkpoint_says_whose_it_is(tmp_path, capsys):
  """Where config.yaml is gone, cut in half, or no YAML at all."""
  logdir = add_run(tmp_path / 'a', horizon=7)
  path, config = logdir / 'config.yaml', make_config('debug', horizon=7)
  said = Checkpoints(logdir / 'checkpoints', 1).load()[1]
  text = path.read_text()
  for content in (None, text[: len(text) // 2], 'a: ]'):
    path.write_text(content) if content else path.unlink()
    assert rundir.check_changes(path, config, said) == {}
    kept = rundir.keep_added(path, config, said)
    assert rundir.keep_name(path, kept, said) == config
    changed = rundir.check_changes(path, config.update(horizon=8), said)
    assert changed == {'horizon': (7, 8)}
    for key, value in {'seed': 1, 'task': 'metaworld_hammer'}.items():
      with pytest.raises(ConfigError, match=f'{key} was'):
        rundir.check_changes(path, config.update({key: value}), said)
    with pytest.raises(ConfigError, match='updates_per_episode was 2'):
      other = config.update(updates_per_episode=5)
      rundir.check_changes(path, other, said)
  assert 'config.yaml is missing' in capsys.readouterr().err


def test_an_old_run_without_its_settings_is_named(tmp_path, capsys):
  path = tmp_path / 'config.yaml'
  assert rundir.check_changes(path, make_config(), {'phase': 'offline'}) == {}
  assert 'nothing says what task' in capsys.readouterr().err
