"""Composition, presets, help and files of the configuration."""

import copy
import pickle
import re
from pathlib import Path

import pytest
from config_helpers import PRESETS

import moto_tf
from moto_tf import rules
from moto_tf.agents import METHODS
from moto_tf.agents.settings import LATENT_RULES, MODEL_FREE_RULES, MOTO_RULES
from moto_tf.commands.settings import parse
from moto_tf.config import Config
from moto_tf.files import FileError
from moto_tf.presets import load_configs, make_config
from moto_tf.rules import ConfigError
from moto_tf.training.rundir import hparams

ROOT = Path(__file__).parents[1]


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
      if (first, second) == ('places', 'paper'):
        with pytest.raises(ConfigError, match='is of categorical latents'):
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
