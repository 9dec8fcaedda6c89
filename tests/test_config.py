"""Composition, conversion, errors and files of the configuration."""

import copy
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import moto_tf
from moto_tf import rules
from moto_tf.agents import METHODS, register_method
from moto_tf.agents.settings import (
  LATENT_RULES,
  MODEL_FREE_RULES,
  MOTO_RULES,
  PENALTY_NAMES,
)
from moto_tf.commands.settings import parse
from moto_tf.config import Config
from moto_tf.files import FileError
from moto_tf.presets import load_configs, make_config
from moto_tf.registry import Registry, RegistryError, load_plugins
from moto_tf.rules import ConfigError
from moto_tf.training.rundir import hparams

ROOT = Path(__file__).parents[1]
PRESETS = list(load_configs().presets)


def fails(capsys, *argv):
  """Runs a command line that must fail; returns its message."""
  with pytest.raises(SystemExit) as exit:
    parse(argv, 'train.py')
  out, err = capsys.readouterr()
  assert exit.value.code == 2 and out == ''
  assert err.startswith('train.py: error: ')
  assert 1 <= err.count('\n') <= 3 and 'Traceback' not in err
  return err


def test_defaults():
  config = parse([])
  assert config == load_configs().defaults
  assert config.rssm.deter == config['rssm.deter'] == 1024
  assert config.rssm['deter'] == 1024
  assert config.encoder.cnn_kernels == (4, 4, 4, 4)
  assert dict(config.model_opt) == {
    'lr': 1e-4,
    'eps': 1e-5,
    'clip': 100.0,
    'wd': 1e-6,
  }
  assert type(config.seed) is int and type(config.moto.alpha) is float
  assert config.jit is False and type(config.model_opt.lr) is float


def test_every_default_has_a_comment():
  configs = load_configs()
  lines = (ROOT / 'configs.yaml').read_text().splitlines()
  for key in configs.defaults.flat:
    line = next(x for x in lines if x.startswith(f'  {key}:'))
    assert configs.comments[key] and configs.comments[key] in line, key
    assert line.endswith(configs.comments[key]), key
  assert [key for keys in configs.sections.values() for key in keys] == list(
    configs.defaults.flat
  )
  assert {'Run', 'Replay', 'World model (Eq. 1)'} <= set(configs.sections)


def test_every_number_has_a_rule():
  """A new number without a range would let impossible values through."""
  for key, value in load_configs().defaults.flat.items():
    known = {**rules.RULES, **MOTO_RULES, **MODEL_FREE_RULES, **LATENT_RULES}
    found = [x for x in known if re.fullmatch(x, key)]
    if isinstance(value, bool):
      assert not found, key
    elif isinstance(value, int | float | tuple):
      assert len(found) == 1, (key, found)
    else:
      assert len(found) <= 1, (key, found)


def test_no_key_hides_a_method():
  names = {x for key in load_configs().defaults.flat for x in key.split('.')}
  assert not names & set(dir(Config))


@pytest.mark.parametrize('name', PRESETS)
def test_preset_is_valid(name):
  configs = load_configs()
  config = configs.make(name)
  assert config != configs.defaults or name in ('metaworld', 'moto')
  assert configs.comments[name]


def test_presets_compose():
  configs = load_configs()
  for first in PRESETS:
    for second in PRESETS:
      if first in METHODS and first != second:
        continue  # Methods come last and alone, see test_methods_come_last.
      if first == 'staged' and second in ('no_bc', 'no_bc_no_unc'):
        with pytest.raises(ConfigError, match='the policy only clones'):
          configs.make(first, second)
        continue
      config = configs.make(first, second)
      for key, value in configs.presets[second].items():
        if key in configs.defaults:
          wanted = rules.plain(key, value)
          assert config[key] == wanted, (first, second, key)


def test_the_last_suite_counts_alone():
  """No suite leaves settings behind; what else is named stays."""
  for suite in ('metaworld', 'kitchen', 'kitchen_partial', 'gym'):
    for other in ('metaworld', 'kitchen', 'gym'):
      assert make_config(other, suite) == make_config(suite)
  config = make_config('gym', 'small', 'metaworld')
  assert config == make_config('small', 'metaworld')
  assert config.rssm.deter == 256 and not config.pred_discount


def test_what_is_special_to_short_runs_is_apart_from_size():
  """Both together are the `small` that results before 0.2 were made with."""
  small, both = make_config('small'), make_config('small', 'short')
  changed = {k for k in both.flat if both[k] != small[k]}
  rates = {f'{x}_opt.lr' for x in ('model', 'actor', 'critic')}
  assert changed == {'replay.offline_share', *rates}
  assert small.model_opt.lr == make_config().model_opt.lr


def test_composition_order():
  config = parse(['--seed', '7', '--configs', 'small', 'short', 'debug'])
  assert (config.rssm.deter, config.seed) == (16, 7)
  assert config.actor.layers == (16,) and config.model_opt.lr == 3e-4
  config = parse(['--configs', 'debug', '--configs', 'small'])
  assert config.rssm.deter == 256 and config.eager is True
  config = parse(['--rssm.deter', '8', '--configs', 'small', '--seed=1'])
  assert (config.rssm.deter, config.seed) == (8, 1)
  config = parse(['--seed=1', '--seed=2'])
  assert config.seed == 2


def test_checks_wait_for_all_parts():
  config = make_config({'replay.batch': 1}, {'moto.start_states': 4})
  assert config.moto.start_states == 4


def test_make_config_agrees_with_parse():
  ours = make_config('metaworld', 'small', {'rssm.deter': 32}, seed=3)
  theirs = parse('--configs metaworld small --rssm.deter 32 --seed 3'.split())
  assert ours == theirs and ours != make_config('metaworld', 'small')
  assert moto_tf.make_config is make_config and moto_tf.Config is Config


def test_regex_overrides():
  config = parse(['--.*\\.norm', 'layer', '--(actor|critic)_opt.lr', '1e-3'])
  norms = {k: v for k, v in config.flat.items() if k.endswith('.norm')}
  assert len(norms) == 7 and set(norms.values()) == {'layer'}
  assert config.actor_opt.lr == config.critic_opt.lr == 1e-3
  assert config.model_opt.lr == 1e-4


def test_exact_name_is_not_a_regex():
  """`discount` must not touch `discount_lambda`."""
  config = parse(['--discount', '0.5'])
  assert config.discount == 0.5 and config.discount_lambda == 0.95


def test_nested_overrides():
  config = make_config({'rssm': {'deter': 8}, 'model_opt': {'lr': 1}})
  assert config.rssm.deter == 8 and config.model_opt.lr == 1.0
  with pytest.raises(ConfigError, match='rssm.deter is given twice'):
    make_config({'rssm': {'deter': 8}, 'rssm.deter': 9})


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


def test_command_line_mistakes(capsys):
  assert '--jit needs a value, such as --jit False' in fails(capsys, '--jit')
  assert '--seed needs' in fails(capsys, '--seed', '--jit', 'True')
  assert '--configs needs a value' in fails(capsys, '--configs')
  assert "unexpected argument '2'" in fails(capsys, '--envs', '1', '2')
  assert "unexpected argument '-x'" in fails(capsys, '-x')
  assert 'nor a regular expression' in fails(capsys, '--*norm', 'layer')
  assert 'actor.norm: batch' in fails(capsys, '--actor\\..orm', 'batch')
  assert "got 'layer'" in fails(capsys, '--.*', 'layer')


def test_own_file(tmp_path):
  file = tmp_path / 'own.yaml'
  file.write_text(
    'rssm: {deter: 32, hidden: 16}\nreplay.batch: 4  # Why not.\n'
    ".*_opt\\.lr: 2.0e-4\nmodel_opt.eps: '1e-6'\nheldout_data: ''\n"
  )
  config = parse(['--configs', 'small', str(file), '--rssm.hidden', '8'])
  assert (config.rssm.deter, config.rssm.hidden) == (32, 8)
  assert config.replay.batch == 4 and config.replay.length == 32
  assert config.critic_opt.lr == 2e-4 and config.model_opt.eps == 1e-6
  file.write_text('# Nothing yet.\n')
  assert parse(['--configs', str(file)]) == parse([])


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


def test_help(capsys):
  with pytest.raises(SystemExit) as exit:
    parse(['--configs', 'small', '--help'], 'train.py')
  assert exit.value.code == 0
  out = capsys.readouterr().out
  assert out.startswith('usage: train.py ')
  assert max(map(len, out.splitlines())) <= 110
  words = ' '.join(out.split())
  configs = load_configs()
  for key, value in configs.defaults.flat.items():
    assert f'  --{key} {rules.show(value)}' in out, key
    assert configs.comments[key] in words, key
  for name in PRESETS:
    assert f'\n  {name} ' in out and configs.comments[name] in words
  for section in configs.sections:
    assert f'\n{section}\n' in out


def test_save_and_load(tmp_path):
  config = make_config(
    'small',
    {'actor.layers': [3], 'task': 'gym_A-v1', 'logdir': '~/x: y #1'},
    heldout_data='',
  )
  path = config.save(tmp_path / 'deep' / 'config.yaml')
  assert Config.load(path) == config and Config.load(str(path)) == config
  assert parse(['--configs', str(path)]) == config
  assert [x.name for x in path.parent.iterdir()] == ['config.yaml']
  kinds = [type(x) for x in Config.load(path).flat.values()]
  assert kinds == [type(x) for x in config.flat.values()]


def test_load_reports_the_file(tmp_path):
  path = tmp_path / 'config.yaml'
  path.write_text('seed: 3\n')
  assert Config.load(path) == make_config(seed=3)
  path.write_text('gone_key: 3\n')
  with pytest.raises(ConfigError, match=r'config.yaml: unknown key'):
    Config.load(path)


def test_save_keeps_the_old_file(tmp_path, monkeypatch):
  path = make_config(seed=1).save(tmp_path / 'config.yaml')

  def full(fd):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.fsync', full)
  with pytest.raises(FileError, match='Cannot write .* No space left'):
    make_config(seed=2).save(path)
  assert Config.load(path).seed == 1
  assert [x.name for x in tmp_path.iterdir()] == ['config.yaml']


def test_immutable():
  config = make_config()
  with pytest.raises(AttributeError, match='immutable'):
    config.seed = 1
  with pytest.raises(TypeError):
    config['seed'] = 1
  config.flat['seed'] = 5
  changed = config.update({'rssm.deter': 4}, seed=9)
  assert (config.seed, config.rssm.deter) == (0, 1024)
  assert (changed.seed, changed.rssm.deter) == (9, 4)


def test_missing_names():
  config = make_config()
  with pytest.raises(AttributeError, match='did you mean replay.batch'):
    config.replay_batch = config.batch
  with pytest.raises(KeyError, match='did you mean rssm.deter'):
    config['rssm.detre']
  assert 'rssm.deter' in config and 'rssm.nope' not in config
  assert config.get('nope', 3) == 3 and not hasattr(config, 'nope')


def test_group_names_the_whole_key():
  replay = make_config().replay
  assert replay.update(batch=4).batch == 4
  with pytest.raises(ConfigError, match=r'replay.batch: 0 .* --replay.batch'):
    replay.update(batch=0)
  with pytest.raises(ConfigError, match=r'^replay.batch: expected whole'):
    replay.update(batch='x')


def test_copies():
  config = make_config('small')
  assert pickle.loads(pickle.dumps(config)) == config
  assert copy.deepcopy(config.env) == config.env
  with pytest.raises(ConfigError, match='replay.batch'):
    pickle.loads(pickle.dumps(config.replay)).update(batch=-1)


def test_path(monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  config = make_config(logdir='~/runs', heldout_data='')
  assert config.path('logdir') == Path('/home/someone/runs')
  assert config.path('heldout_data') is None


def test_configs_file_needs_defaults(tmp_path):
  path = tmp_path / 'configs.yaml'
  path.write_text('small: {seed: 1}\n')
  with pytest.raises(ConfigError, match="configs.yaml: expected .*'defaults'"):
    load_configs(path)


def test_nested_defaults_keep_their_comments(tmp_path):
  path = tmp_path / 'configs.yaml'
  path.write_text(
    'defaults:\n  # First\n  seed: 1  # A seed.\n  rssm:\n'
    '    deter: 4  # Size # of h.\n\n  # Second\n  name: "a # b"  # Text.\n'
  )
  configs = load_configs(path)
  assert configs.defaults.flat == {'seed': 1, 'rssm.deter': 4, 'name': 'a # b'}
  assert configs.comments == {
    'seed': 'A seed.',
    'rssm.deter': 'Size # of h.',
    'name': 'Text.',
  }
  assert configs.sections == {
    'First': ['seed', 'rssm.deter'],
    'Second': ['name'],
  }


def test_activations_exist():
  from moto_tf.nn.tfutils import ACTIVATIONS

  for name in ACTIVATIONS:
    assert make_config({'.*\\.act': name}).actor.act == name
  assert not rules.RULES[r'.+\.act'][0]('sigmoid')
  listed = rules.RULES[r'.+\.act'][1].removeprefix('one of ').split(', ')
  assert sorted(listed) == sorted(ACTIVATIONS)


def test_import_is_light():
  code = (
    'import sys, moto_tf; heavy = {"tensorflow", "mujoco", "ruamel.yaml"}; '
    'assert moto_tf.__version__ and not heavy & set(sys.modules); '
    'moto_tf.parse([]); assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
  with pytest.raises(AttributeError, match="no attribute 'nope'"):
    moto_tf.nope  # noqa: B018
  assert {'load_policy', 'make_env', 'Run'} <= set(dir(moto_tf))


def test_requirements_agree_with_the_package():
  """The exact pins lie in the ranges that the package asks for."""
  from packaging.requirements import Requirement

  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  lines = (ROOT / 'requirements.txt').read_text().splitlines()
  pins = dict(x.split('==') for x in lines if x and not x.startswith('#'))
  for text in project['dependencies']:
    need = Requirement(text)
    assert need.specifier.contains(pins.pop(need.name)), text
  assert not pins  # Test tools are in requirements-test.txt.


def test_methods_come_last():
  assert make_config('small', 'no_unc').moto.alpha == 0
  with pytest.raises(ConfigError, match='rssm.ensemble.*undo dreamerv2'):
    make_config('metaworld', 'dreamerv2', 'debug')
  # Where they do not meet, the order does not matter.
  assert make_config('no_bc', 'small') == make_config('small', 'no_bc')
  assert make_config('dreamerv2', 'small') == make_config('small', 'dreamerv2')


def test_a_run_has_one_method():
  for names in (('dreamerv2', 'no_unc'), ('no_bc', 'no_unc')):
    message = f'{names[0]} and {names[1]} are methods'
    with pytest.raises(ConfigError, match=message):
      make_config('small', *names)
  with pytest.raises(ConfigError, match='method: ppo is not registered.*moto'):
    make_config(method='ppo')


def test_methods_are_what_their_names_say():
  config = make_config('metaworld', 'small', 'dreamerv2')
  assert (config.rssm.ensemble, config.method) == (1, 'dreamerv2')
  with pytest.raises(ConfigError, match='rssm.ensemble.*after the others'):
    make_config('dreamerv2', {'rssm.ensemble': 7})
  with pytest.raises(ConfigError, match='horizon'):
    make_config('dreamerv2', horizon=1)
  with pytest.raises(ConfigError, match='moto.alpha: 1.0 is not MOTO without'):
    make_config('no_unc', {'moto.alpha': 1})
  with pytest.raises(ConfigError, match='moto.beta: 10.0 .*preset no_bc after'):
    make_config(method='no_bc')


def test_settings_without_effect_are_refused(tmp_path, capsys):
  for method, key, value in (
    ('dreamerv2', 'moto.alpha', '1'),
    ('dreamerv2', 'bc_threshold', '3'),
    ('no_unc', 'moto.penalty', 'logit_std'),
    ('no_bc', 'bc_threshold', '3'),
    ('no_bc', 'bc_targets', 'kettle'),
    ('no_bc_no_unc', 'moto.clone_mean', 'batch'),
    ('dreamerv2', 'bc_targets', 'kettle'),
    ('dreamerv2_paper', 'bc_targets', 'kettle'),
    ('dreamerv2_paper', 'moto.beta', '1'),
  ):
    error = fails(capsys, '--configs', 'small', method, f'--{key}', value)
    assert f'{key} has no effect on {method}' in error
  # What is drawn first is asked for in the same way whatever is cloned.
  drawn = {'replay.success_share': 0.5}
  for method in ('no_bc', 'dreamerv2', 'bc', 'lompo'):
    make_config(method, {**drawn, 'bc_threshold': 3})
    make_config(method, {**drawn, 'bc_targets': 'kettle'})
  for overrides in ({'moto': {'alpha': 1}}, {r'moto\.alpha': 1}):
    with pytest.raises(ConfigError, match='has no effect on dreamerv2'):
      make_config('dreamerv2', overrides)
  with pytest.raises(ConfigError, match='moto.alpha has no effect'):
    make_config('dreamerv2').update({'moto.alpha': 3})
  # A pattern that means others, too, is meant for these.
  assert make_config('dreamerv2', {'.*alpha|seed': 2}).seed == 2
  # Presets serve several methods, and so do whole files of settings.
  config = make_config('kitchen_partial', 'small', 'dreamerv2')
  assert config.bc_targets == 'microwave,kettle,bottom burner'
  path = config.save(tmp_path / 'config.yaml')
  assert parse(['--configs', str(path)]) == config
  path.write_text('moto.alpha: 1.0\n')
  error = fails(capsys, '--configs', str(path), 'dreamerv2')
  assert f'{path}: moto.alpha has no effect on dreamerv2' in error


def test_what_is_cloned_is_said_once():
  partial = make_config('kitchen_partial')
  assert (partial.bc_threshold, partial.bc_targets.count(',')) == (0, 2)
  # The paper regularises "with respect to the first three objects" there.
  assert make_config().bc_whole and not partial.bc_whole
  assert make_config('kitchen', 'short', 'staged').bc_whole
  message = "bc_threshold: 3 and bc_targets: .* --bc_targets ''"
  with pytest.raises(ConfigError, match=message):
    make_config('kitchen_partial', bc_threshold=3)
  found = make_config('kitchen_partial', bc_threshold=3, bc_targets='')
  assert found.bc_threshold == 3
  # Neither means anything there.
  make_config('kitchen_partial', 'dreamerv2').replace({'bc_threshold': 3})
  # Where they say what is drawn first they must agree, too.
  drawn = {'replay.success_share': 0.5}
  for method in ('dreamerv2', 'no_bc', 'bc', 'lompo'):
    with pytest.raises(ConfigError, match='bc_onward: .* are none'):
      make_config(method, {**drawn, 'bc_onward': 'kettle'})
    both = {'bc_targets': 'kettle', 'bc_threshold': 3}
    with pytest.raises(ConfigError, match='both say which episodes'):
      make_config(method, {**drawn, **both})
  make_config('kitchen_partial', bc_onward='light switch')
  for onward in ('kettle', ' bottom burner '):
    with pytest.raises(ConfigError, match='bc_onward: .*is not one of them'):
      make_config('kitchen_partial', bc_onward=onward)
  with pytest.raises(ConfigError, match='bc_onward: .* are none'):
    make_config('kitchen', bc_onward='kettle')
  with pytest.raises(ConfigError, match='bc_onward.* one name'):
    make_config('kitchen_partial', bc_onward='hinge cabinet,slide cabinet')
  for text in ('kettle,', ',', 'a,,b'):
    with pytest.raises(ConfigError, match='bc_targets.* names between commas'):
      make_config(bc_targets=text)
  assert rules.split_names(' bottom burner, kettle') == [
    'bottom burner',
    'kettle',
  ]
  assert rules.split_names('') == []


def test_the_literal_paper():
  found, default = (make_config(*x).flat for x in (['paper'], []))
  assert {k: v for k, v in found.items() if v != default[k]} == {
    'moto.penalty': 'logit_std',
    'moto.data_target': 'one_step',
    'moto.clone_mean': 'batch',
    'actor.sample_grad': 'dreamerv2',
    'encoder.cnn_layers': (400,) * 4,
    'decoder.cnn_layers': (400,) * 4,
  }
  for method in METHODS:
    assert make_config('kitchen', 'small', 'paper', method).method == method


def test_every_method_has_a_preset_and_a_label():
  configs = load_configs()
  for name, method in METHODS.items():
    assert configs.presets[name]['method'] == name and method.label
    config = configs.make(name)
    assert {k: config[k] for k in method.fixed} == dict(method.fixed)


def test_old_names(tmp_path, capsys):
  """Files of older versions load; a command line says the new name."""
  path = tmp_path / 'config.yaml'
  for text, method in (
    ('behavior: moto\nalpha: 10.0\nbeta: 10.0\n', 'moto'),
    ('behavior: moto\nalpha: 0.0\nbeta: 10.0\n', 'no_unc'),
    ('behavior: moto\nalpha: 10.0\nbeta: 0.0\n', 'no_bc'),
    ('behavior: moto\nalpha: 0.0\nbeta: 0.0\n', 'no_bc_no_unc'),
    (
      'behavior: dreamer\nrssm.ensemble: 1\nstart_states: 0\nalpha: 10.0\n',
      'dreamerv2',
    ),
  ):
    path.write_text(text)
    assert Config.load(path).method == method
    then = {'actor.sample_grad': 'exact'}  # Before there was a choice.
    assert Config.load(path) == make_config(method, then)
  path.write_text('behavior: moto\nalpha: 3.0\nstart_states: 7\n')
  config = Config.load(path)
  assert (config.moto.alpha, config.moto.start_states) == (3, 7)
  assert 'alpha is called moto.alpha now' in fails(capsys, '--alpha', '1')


def test_registering(monkeypatch):
  """Names of others are refused; one's own may be registered again."""
  registry = Registry('method', dict(METHODS))
  monkeypatch.setattr('moto_tf.agents.METHODS', registry)
  monkeypatch.setattr('moto_tf.presets.METHODS', registry)
  monkeypatch.setattr('moto_tf.config.METHODS', registry)
  with pytest.raises(RegistryError, match="method 'moto' in moto_tf"):
    register_method('moto', print)
  with pytest.raises(RegistryError, match='cannot name a method'):
    register_method('a b', print)
  for make in (lambda: 1, lambda: 2):
    register_method('mine', make, groups=('mine',), label=f'Mine {make()}')
  assert registry['mine'].label == 'Mine 2' and registry.get('none') is None
  assert make_config('mine').method == 'mine'
  for settings in ({'horizon': (3, 'Steps.')}, {'other.x': (1, 'One.')}):
    register_method('mine', print, groups=('mine',), settings=settings)
    with pytest.raises(ConfigError, match='may not register the setting'):
      make_config()
  registry.remove('mine')
  register_method('small', print)
  with pytest.raises(ConfigError, match='small has the name of a preset'):
    make_config()


def test_plugins(tmp_path, monkeypatch):
  monkeypatch.setattr('sys.path', list(sys.path))
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'plugin_of_test.py').write_text('LOADED = True\n')
  (tmp_path / 'types.py').write_text('')
  first, second = (tmp_path / x / 'plugin_of_test.py' for x in 'ab')
  assert load_plugins('') == '' and load_plugins('json, ') == 'json'
  monkeypatch.chdir(tmp_path)
  assert load_plugins(f'a/{first.name},json') == f'{first},json'
  assert sys.modules['plugin_of_test'].LOADED
  for path in (second, tmp_path / 'types.py'):
    with pytest.raises(RegistryError, match='name of another module'):
      load_plugins(str(path))
  wrong = (
    'nothing_here',
    'nothing.here',
    '0.0',
    '..',
    '.json',
    'a b',
    'json.x',
  )
  for name in wrong:
    with pytest.raises(RegistryError, match='there is no module'):
      load_plugins(name)
  for path in ('a/no.py', 'x' * 300 + '/a.py', 'a\0.py'):
    with pytest.raises(RegistryError, match='there is no file'):
      load_plugins(path)
  (tmp_path / 'my.plugin.py').write_text('')
  with pytest.raises(RegistryError, match='cannot be imported by its name'):
    load_plugins('my.plugin.py')
  (tmp_path / 'needs_more.py').write_text('import nothing_here')
  with pytest.raises(ModuleNotFoundError, match='nothing_here'):
    load_plugins('needs_more.py')
  config = parse(['--plugins', 'a/plugin_of_test.py'])
  assert config.plugins == str(first)  # Also from another directory.
  del sys.modules['plugin_of_test']


def test_print_config(tmp_path, capsys):
  file = tmp_path / 'own.yaml'
  file.write_text('replay.batch: 4\n')
  words = ['--configs', 'small', 'short', str(file), '--seed', '3']
  with pytest.raises(SystemExit) as exit:
    parse([*words, '--print-config'])
  assert exit.value.code == 0
  out = capsys.readouterr().out
  lines = dict(line.split(': ', 1) for line in out.splitlines())
  config = parse(words)
  assert list(lines) == list(config.flat)
  assert lines['seed'] == '3  # given'
  assert lines['rssm.deter'] == '256  # small'
  assert lines['replay.offline_share'] == '0.5  # short'
  assert lines['replay.batch'] == f'4  # {file}'
  assert lines['rssm.ensemble'] == '7'
  whole = tmp_path / 'whole.yaml'
  whole.write_text(out)
  assert Config.load(whole) == config


def test_default_logdir_tells_runs_apart():
  names = ('small', 'dreamerv2')
  config = make_config(*names, task='metaworld_door-open', seed=3)
  expected = Path('~/logdir/metaworld_door-open/dreamerv2/3').expanduser()
  assert config.path('logdir') == expected
  config = make_config({'moto.alpha': 1}, variant='alpha_1')
  assert config.path('logdir').parts[-2:] == ('alpha_1', '0')
  with pytest.raises(ConfigError, match='logdir.*braces.*task, method, seed'):
    make_config(logdir='~/{name}/0')


def test_what_tells_runs_apart():
  """Presets as they were named, and what was given beside them."""
  words = ('metaworld', 'small', 'short', 'proprio', 'no_unc')
  config = make_config(*words, {'horizon': 5}, seed=3, logdir='~/x')
  assert hparams(config) == {
    'task': 'metaworld_drawer-open',
    'method': 'no_unc',
    'seed': 3,
    'presets': ' '.join(words),
    'horizon': 5,
  }


def test_sources_are_kept():
  config = make_config('small', {'moto.alpha': 1}).update(seed=2)
  assert config.sources['rssm.deter'] == 'small'
  assert config.sources['moto.alpha'] == config.sources['seed'] == ''
  assert 'horizon' not in make_config().sources
  assert pickle.loads(pickle.dumps(config)).sources == config.sources


def test_penalties_are_the_choices():
  from moto_tf.agents.penalties import PENALTIES

  assert set(PENALTIES) == set(PENALTY_NAMES)
