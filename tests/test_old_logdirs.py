"""Log directories and results of version 0.1 load, go on, and are drawn.

tests/golden/logdirs holds runs that were stopped at gradient step 10, and what
they logged when version 0.1, commit c2d045d, continued them to step 20.
"""

import json
import shutil
from pathlib import Path

import pytest
import ruamel.yaml
from golden_runs import fingerprint

import moto_tf
from moto_tf import yamlfile
from moto_tf.config import Config
from moto_tf.policy import load_agent
from moto_tf.presets import make_config
from moto_tf.results import curves, export, plotting
from moto_tf.rules import ConfigError
from moto_tf.training import rundir
from moto_tf.training.evaluation import evaluate_run

ROOT = Path(__file__).parents[1]
LOGDIRS = ROOT / 'tests' / 'golden' / 'logdirs'
METHODS = ('moto', 'no_unc', 'dreamerv2')
RESULTS = sorted((ROOT / 'results').rglob('*/*/[0-9].json'))


@pytest.fixture
def logdir(request, tmp_path):
  target = tmp_path / 'pendulum' / request.param / '0'
  shutil.copytree(LOGDIRS / 'pendulum' / request.param / '0', target)
  return target


@pytest.mark.parametrize('logdir', METHODS, indirect=True)
def test_goes_on_as_it_would_have(logdir):
  method = logdir.parent.name
  config = Config.load(logdir / 'config.yaml')
  assert config.method == method
  with moto_tf.Run(config.update(logdir=str(logdir), online_steps=20)) as run:
    assert run.gradient_step == 10
    for episode in run.online_episodes():
      run.collect_episode(episode)
      for _ in run.updates(episode):
        run.update(run.sample())
  read = lambda path: [json.loads(x) for x in path.read_text().splitlines()]
  old = read(LOGDIRS / f'{method}-whole.jsonl')
  new = read(logdir / 'metrics.jsonl')
  golden = json.loads((LOGDIRS.parent / 'moto.json').read_text())
  exact = fingerprint() == golden['fingerprint']
  same = lambda x: x if exact else pytest.approx(x, 1e-3, 1e-3)
  for before, now in zip(old, new, strict=True):
    for key, value in before.items():
      if key.startswith(('train/', 'episode/', 'eval/', 'env_step')):
        if key in now or now['gradient_step'] <= 10:
          assert now[key] == same(value), (key, now['gradient_step'])
        else:
          assert method == 'no_unc', key
          assert key in ('train/imag_disagreement', 'train/imag_penalty')
  # Whoever reads the file next needs no map of old names.
  saved = ruamel.yaml.YAML(typ='safe').load(logdir / 'config.yaml')
  assert saved['method'] == method and 'behavior' not in saved


@pytest.mark.parametrize('logdir', METHODS, indirect=True)
def test_acts_evaluates_and_exports(logdir):
  agent, config, meta = load_agent(logdir, policy_only=False)
  assert meta['counters']['gradient_step'] == 10
  assert agent.input_keys == ['state'] and config.name == logdir.parent.name
  summary, paths = evaluate_run(logdir, episodes=2)
  assert summary['episodes'] == 2 and paths[0].exists()
  run = curves.load_run(logdir)
  assert run.method == logdir.parent.name and run.seed == 0
  content = export.export(logdir)
  assert content['method'] == logdir.parent.name
  assert content['final']['return'] == pytest.approx(
    [x['return'] for x in summary['rollouts']], 1e-3
  )


def test_old_and_new_runs_are_drawn_together(tmp_path):
  shutil.copytree(LOGDIRS / 'pendulum', tmp_path / 'pendulum')
  new = tmp_path / 'pendulum' / 'moto' / '1'
  shutil.copytree(tmp_path / 'pendulum' / 'moto' / '0', new)
  Config.load(new / 'config.yaml').update(seed=1).save(new / 'config.yaml')
  paths = plotting.plot([tmp_path], tmp_path / 'plots', ['eval/return'])
  results = json.loads(paths[0].read_text())['results']
  found = results['eval/return']['gym_Pendulum-v1']
  assert {k: v['seeds'] for k, v in found.items()} == {
    'moto': [0, 1],
    'no_unc': [0],
    'dreamerv2': [0],
  }


def test_a_run_keeps_the_name_of_its_directory(tmp_path):
  """Of runs whose settings said moto and whose directory alpha_1."""
  logdir = tmp_path / 'pendulum' / 'alpha_1' / '0'
  shutil.copytree(LOGDIRS / 'pendulum' / 'moto' / '0', logdir)
  assert curves.load_run(logdir).method == 'alpha_1'
  config = Config.load(logdir / 'config.yaml')
  moto_tf.Run(config.update(logdir=str(logdir), online_steps=20)).close()
  assert curves.load_run(logdir).method == 'alpha_1'
  saved = Config.load(logdir / 'config.yaml')
  assert (saved.method, saved.variant) == ('moto', 'alpha_1')


def test_what_was_small_is_small_short(tmp_path):
  """The command of an older run would go on with other learning rates."""
  path = tmp_path / 'config.yaml'
  old = {
    k: list(v) if isinstance(v, tuple) else v
    for k, v in make_config('small', 'short', 'dreamerv2').flat.items()
  }
  new = {'moto.alpha': 'alpha', 'moto.start_states': 'start_states'}
  lines = [
    f'{new.get(line.split(":")[0], line.split(":")[0])}:{line.split(":", 1)[1]}'
    for line in yamlfile.write(old).splitlines()
    if line.split(':')[0] not in ('method', 'variant', 'plugins', 'logdir')
  ]
  path.write_text('behavior: dreamer\n' + '\n'.join(lines))
  meta = {'phase': 'offline'}
  config = make_config('small', 'dreamerv2')
  with pytest.raises(ConfigError, match='name short after small'):
    rundir.check_changes(path, config, meta)
  config = make_config('small', 'short', 'dreamerv2')
  assert rundir.check_changes(path, config, meta) == {}
  # Learning rates of one's own were always allowed to change.
  config = config.update({'model_opt.lr': 1e-5})
  path.write_text(path.read_text().replace('model_opt.lr: 0.0003', ''))
  assert rundir.check_changes(path, config, meta)['model_opt.lr'][1] == 1e-5


def test_keeps_its_gradient_until_another_is_named(tmp_path, capsys):
  """The preset has another one than the runs that began before it."""
  path = tmp_path / 'config.yaml'
  shutil.copy(LOGDIRS / 'pendulum' / 'dreamerv2' / '0' / 'config.yaml', path)
  preset = make_config('dreamerv2')
  for _ in range(2):  # The second time it is on record.
    config = rundir.keep_added(path, preset)
    assert config.actor.sample_grad == 'exact'
    assert 'sample_grad stays exact' in capsys.readouterr().out
    config.save(path)
  named = make_config('dreamerv2', {'actor.sample_grad': 'dreamerv2'})
  assert rundir.keep_added(path, named) == named
  preset.save(path)
  assert rundir.keep_added(path, preset) == preset
  assert rundir.keep_added(tmp_path / 'new.yaml', preset) == preset
  assert not capsys.readouterr().out


def test_what_was_cloned_in_kitchen_partial(tmp_path):
  """The command of an older run would go on and clone other episodes."""
  path = tmp_path / 'config.yaml'
  meta = {'phase': 'offline'}
  settings = '\nbc_threshold: 3.0\nenv.time_limit: 280\n'
  path.write_text(f'method: moto\ntask: kitchen_partial{settings}')
  assert Config.load(path).bc_threshold == 3
  message = "add --bc_targets '' --bc_threshold 3"
  with pytest.raises(ConfigError, match=message):
    rundir.check_changes(path, make_config('kitchen_partial'), meta)
  config = make_config('kitchen_partial', bc_targets='', bc_threshold=3)
  assert (
    not {'bc_targets', 'bc_threshold'}
    & rundir.check_changes(path, config, meta).keys()
  )
  # Of a newer run it is a setting like others, and no method without cloning
  # minds.
  path.write_text(path.read_text() + "bc_targets: ''\n")
  rundir.check_changes(path, make_config('kitchen_partial'), meta)
  path.write_text(
    f'method: no_bc\nmoto.beta: 0\ntask: kitchen_partial{settings}'
  )
  rundir.check_changes(path, make_config('kitchen_partial', 'no_bc'), meta)


def test_every_result_that_is_committed_loads():
  assert len(RESULTS) > 40
  for path in RESULTS:
    run = curves.load_export(path)
    assert run.method == path.parent.name and run.rows, path
