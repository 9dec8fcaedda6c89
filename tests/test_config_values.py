"""Values of settings: conversion, bounds, and mistakes with what to do."""

from pathlib import Path

import numpy as np
import pytest
from config_helpers import PRESETS, fails

from moto_tf import rules
from moto_tf.commands.settings import parse
from moto_tf.presets import make_config
from moto_tf.rules import ConfigError


@pytest.mark.parametrize(
  'key,text,value',
  [
    ('replay.offline_share', '-1', -1.0),
    ('replay.offline_share', '0.25', 0.25),
    ('model_opt.lr', '1e-4', 1e-4),
    ('moto.alpha', '3', 3.0),
    ('online_steps', '1e3', 1000),
    ('online_steps', '2000', 2000),
    ('jit', 'true', True),
    ('jit', 'False', False),
    ('actor.layers', '256,128', (256, 128)),
    ('actor.layers', '[256, 128]', (256, 128)),
    ('actor.layers', '64', (64,)),
    ('encoder.cnn_layers', '', ()),
    ('encoder.cnn_layers', '[]', ()),
    ('encoder.cnn_layers', '400,300', (400, 300)),
    ('kl.forward', 'true', True),
    ('heldout_data', '', ''),
    ('encoder.cnn_keys', 'image|wrist', 'image|wrist'),
  ],
)
def test_command_line_values(key, text, value):
  for argv in ([f'--{key}', text], [f'--{key}={text}']):
    found = parse(argv)[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  'key,given,value',
  [
    ('moto.alpha', 2, 2.0),
    ('moto.alpha', np.float32(0.5), 0.5),
    ('online_steps', 1e3, 1000),
    ('online_steps', np.int64(5), 5),
    ('logdir', Path('/tmp/x'), '/tmp/x'),
    ('actor.layers', [8, 8], (8, 8)),
    ('decoder.cnn_layers', [400], (400,)),
    ('decoder.cnn_layers', [], ()),
  ],
)
def test_python_values(key, given, value):
  found = make_config({key: given})[key]
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  'key,value,expected',
  [
    ('seed', '1.5', 'whole number'),
    ('seed', True, 'whole number'),
    ('seed', 'one', 'whole number'),
    ('seed', 'inf', 'whole number'),
    ('moto.alpha', 'high', 'number'),
    ('moto.alpha', 'nan', 'number'),
    ('moto.alpha', [1.0], 'number'),
    ('moto.alpha', False, 'number'),
    ('jit', '1', 'true or false'),
    ('jit', 1, 'true or false'),
    ('task', 5, 'text'),
    ('actor.layers', '400,x', 'list of whole numbers'),
    ('actor.layers', '400,', 'list of whole numbers'),
    ('actor.layers', [1.5], 'list of whole numbers'),
    ('actor.layers', 400, 'list of whole numbers'),
    ('actor.layers', None, 'list of whole numbers'),
  ],
)
def test_wrong_types(key, value, expected):
  with pytest.raises(ConfigError) as error:
    make_config({key: value})
  message = str(error.value)
  assert message.startswith(f'{key}: expected {expected}, got {value!r}.')
  assert f'Example: --{key} ' in message


@pytest.mark.parametrize(
  'key,value,advice',
  [
    ('precision', 'float16', 'one of auto, float32'),
    ('actor.sample_grad', 'tfp', 'one of exact, dreamerv2'),
    ('moto.penalty', 'std', 'one of prob_distance'),
    ('env_workers', 'thread', 'one of process, none'),
    ('rssm.norm', 'batch', 'one of none, layer'),
    ('critic.act', 'elo', 'one of elu'),
    ('task', 'drawer', 'a suite and a name'),
    ('encoder.cnn_keys', '(', 'a regular expression'),
    ('logdir', '', 'the path of a directory'),
    ('seed', -1, 'from 0'),
    ('offline_steps', -1, 'at least 0'),
    ('updates_per_episode', 0, 'at least 1'),
    ('replay.batch', 0, 'at least 1'),
    ('replay.length', 1, 'at least 2'),
    ('replay.offline_share', -0.5, '-1, or from 0 to 1'),
    ('replay.offline_share', 1.5, '-1, or from 0 to 1'),
    ('rssm.ensemble', 0, 'at least 1'),
    ('kl.balance', 1.1, 'from 0 to 1'),
    ('discount', 1.0, 'from 0 to below 1'),
    ('discount_lambda', -0.1, 'from 0 to 1'),
    ('model_opt.lr', 0, 'above 0'),
    ('actor.layers', [], 'one or more whole numbers'),
    ('actor.layers', [64, 0], 'one or more whole numbers'),
    ('encoder.cnn_layers', [64, 0], 'whole numbers above 0, or none'),
    ('moto.clone_mean', 'all', 'one of cloned, batch'),
    ('moto.start_states', -1, 'at least 0'),
  ],
)
def test_impossible_values(key, value, advice):
  with pytest.raises(ConfigError) as error:
    make_config({key: value})
  assert str(error.value).startswith(f'{key}: ')
  assert f'not possible; give {advice}' in str(error.value)
  assert f'Example: --{key} {rules.show(make_config()[key])}' in str(
    error.value
  )


def test_start_states_fit_the_batch():
  sizes = {'replay.batch': 2, 'replay.length': 5}
  for count in (8, 0):
    found = make_config(sizes, {'moto.start_states': count})
    assert found.moto.start_states == count
  with pytest.raises(ConfigError, match=r'start_states: 9 .* = 8 trans'):
    make_config(sizes, {'moto.start_states': 9})


@pytest.mark.parametrize(
  'key,near',
  [
    ('rssm.detre', 'rssm.deter'),
    ('batch', 'replay.batch'),
    ('lr', 'model_opt.lr or actor_opt.lr or critic_opt.lr'),
    ('kl', 'kl.free or kl.balance'),
    ('offline_step', 'offline_steps'),
    ('config', '--configs'),
  ],
)
def test_nearest_key(capsys, key, near):
  error = fails(capsys, f'--{key}', '1')
  assert key in error and f'did you mean {near}' in error


def test_nearest_preset(capsys):
  error = fails(capsys, '--configs', 'metaword', 'small')
  assert "unknown preset 'metaword'; did you mean metaworld?" in error
  assert all(name in error for name in PRESETS)


def test_data_is_named_from_the_root_on(tmp_path, monkeypatch):
  """Whoever evaluates or exports the run may do so elsewhere."""
  place = tmp_path / 'a{b}'
  place.mkdir()
  monkeypatch.chdir(place)
  words = ['--offline_data', 'demos/{task}', '--heldout_data', '~/held']
  config = parse([*words, '--task', 'gym_X'])
  assert config.path('offline_data') == place / 'demos' / 'gym_X'
  assert config.heldout_data == '~/held'
  assert parse([]).offline_data == 'auto'
  assert parse(['--offline_data', '']).offline_data == ''


def test_a_variant_can_name_a_directory(capsys):
  for name in ('../x', 'a/b', '..'):
    assert 'variant' in fails(capsys, '--variant', name)
  assert parse(['--variant', 'my run.2']).name == 'my run.2'


def test_command_line_mistakes(capsys):
  assert '--jit needs a value, such as --jit False' in fails(capsys, '--jit')
  assert '--seed needs' in fails(capsys, '--seed', '--jit', 'True')
  assert '--configs needs a value' in fails(capsys, '--configs')
  assert "unexpected argument '2'" in fails(capsys, '--envs', '1', '2')
  assert "unexpected argument '-x'" in fails(capsys, '-x')
  assert 'nor a regular expression' in fails(capsys, '--*norm', 'layer')
  assert 'actor.norm: batch' in fails(capsys, '--actor\\..orm', 'batch')
  assert "got 'layer'" in fails(capsys, '--.*', 'layer')


@pytest.mark.parametrize(
  'text,problem',
  [
    ('seed: 1\nalpha: [1, 2\n', ', line 3: not valid YAML'),
    ('seed: 1\n\talpha: 1\n', ', line 2: not valid YAML'),
    ('seed: 1\nseed: 2\n', ', line 2: not valid YAML'),
    ('- seed\n', ': expected a map'),
    ('seed\n', ': expected a map'),
    ('detre: 1\n', ": unknown key 'detre'"),
    ('seed: x\n', ": seed: expected whole number, got 'x'"),
    ('seed:\n', ': seed: expected whole number, got None'),
    ('1: 2\n', ': key 1 is not a name'),
    ('task: 2020-13-45\n', ': not valid YAML'),
    ('task: 2020-12-05\n', ': task: expected text'),
  ],
)
def test_bad_file(tmp_path, capsys, text, problem):
  file = tmp_path / 'bad.yaml'
  file.write_text(text)
  assert f'{file}{problem}' in fails(capsys, '--configs', str(file))


def test_unreadable_file(tmp_path, capsys):
  error = fails(capsys, '--configs', str(tmp_path / 'none.yaml'))
  assert f'cannot read {tmp_path / "none.yaml"}: No such file' in error
  (tmp_path / 'dir.yaml').mkdir()
  assert 'directory' in fails(capsys, '--configs', str(tmp_path / 'dir.yaml'))
  (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00')
  error = fails(capsys, '--configs', str(tmp_path / 'binary.yaml'))
  assert 'binary.yaml: not valid YAML' in error


def test_activations_exist():
  from moto_tf.nn.tfutils import ACTIVATIONS

  for name in ACTIVATIONS:
    assert make_config({'.*\\.act': name}).actor.act == name
  assert not rules.RULES[r'.+\.act'][0]('sigmoid')
  listed = rules.RULES[r'.+\.act'][1].removeprefix('one of ').split(', ')
  assert sorted(listed) == sorted(ACTIVATIONS)
