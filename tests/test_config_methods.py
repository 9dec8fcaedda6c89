"""Methods in the configuration: what each fixes, refuses and registers."""

import sys

import pytest
from config_helpers import fails

from moto_tf import rules
from moto_tf.agents import METHODS, register_method
from moto_tf.agents.settings import PENALTY_NAMES
from moto_tf.commands.settings import parse
from moto_tf.config import Config
from moto_tf.presets import load_configs, make_config
from moto_tf.registry import Registry, RegistryError, load_plugins
from moto_tf.rules import ConfigError


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


def test_penalties_are_the_choices():
  from moto_tf.agents.penalties import PENALTIES

  assert set(PENALTIES) == set(PENALTY_NAMES)
