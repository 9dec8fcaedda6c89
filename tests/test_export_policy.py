"""Exported policies: formats, runner, check, card, refusals."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import STEP, load_runs, observations, write_run
from helpers import ACT, SPACES, tiny_config

from moto_tf import files
from moto_tf.agents.base import lane_noise
from moto_tf.commands import export_policy as command
from moto_tf.deploy import card, check, formats, runner
from moto_tf.deploy.export import export_policy
from moto_tf.deploy.protocol import DeployError
from moto_tf.policy import Policy, load_agent


@pytest.fixture(scope='module')
def logdir(tmp_path_factory):
  """A run of random weights that sees images and vectors, with episodes."""
  logdir = tmp_path_factory.mktemp('runs') / '0'
  write_run(logdir)
  return logdir


@pytest.fixture(scope='module')
def loaded(logdir):
  """What load_agent returns, once for all tests."""
  return load_agent(logdir)


@pytest.fixture(scope='module')
def policy(loaded):
  return Policy(loaded[0])


@pytest.fixture
def at_once(loaded, monkeypatch):
  """An export does not load the agent again."""
  monkeypatch.setattr('moto_tf.policy.load_agent', lambda *_, **__: loaded)


@pytest.fixture(scope='module')
def exported(logdir, loaded):
  outdir = logdir.parent / 'exported'
  outdir.mkdir()  # An empty one is as good as none.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('moto_tf.policy.load_agent', lambda *_, **__: loaded)
    card = export_policy(logdir, outdir)
  assert card == json.loads((outdir / 'card.json').read_text())
  return outdir


@pytest.fixture(scope='module')
def runs(exported):
  """Functions of the formats, from inputs to outputs."""
  return load_runs(exported)


def test_formats_act_as_load_policy(policy, exported, runs):
  """By the runner that lies there, over episodes, from the same seed."""
  path = exported / 'moto_policy.py'
  spec = importlib.util.spec_from_file_location('moto_policy', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  policy = Policy(policy._agent, seed=3)  # As load_policy returns it.
  others = {
    name: module.ExportedPolicy(seed=3, run=run) for name, run in runs.items()
  }
  off, actions = {name: [] for name in runs}, []
  for episode in range(3):
    for obs in observations(8, episode):
      actions.append(policy(obs))
      for name, other in others.items():
        off[name].append(np.abs(other(obs) - actions[-1]))
    for each in (policy, *others.values()):
      each.reset()
  assert np.std(actions, 0).min() > 0.05
  assert np.max(off['saved_model']) <= 1e-6
  assert np.max(off['float32']) <= 1e-5
  assert 1e-5 < np.mean(off['int8']) <= check.BOUNDS['int8'].mean


def test_another_seed_acts_otherwise(exported, runs):
  acts = []
  for seed in (0, 1):
    policy = runner.ExportedPolicy(exported, seed=seed, run=runs['float32'])
    acts.append([policy(obs) for obs in observations(4)])
  assert np.abs(np.subtract(*acts)).max() > 1e-3


def test_noise_is_that_of_the_agent(exported):
  policy = runner.ExportedPolicy(exported, seed=2, run=dict)
  policy.reset()
  uniform = lane_noise((np.array([2 * 100_003 + 1]), np.array([0])), 32 + 2)
  (noise,) = policy._noise().values()
  assert noise.dtype == np.float32
  expected = -np.log(-np.log(uniform[:, :32]))
  np.testing.assert_array_equal(noise, expected.reshape(1, 8, 4))


def test_the_runner_needs_numpy_alone(exported):
  """In a process that can load neither moto_tf nor TensorFlow."""
  code = f"""
import sys
for name in ('moto_tf', 'tensorflow', 'ai_edge_litert'):
  sys.modules[name] = None
sys.path.insert(0, {str(exported)!r})
import moto_policy
try:
  moto_policy.ExportedPolicy()
except ModuleNotFoundError as error:
  print(error)
"""
  done = subprocess.run(
    [sys.executable, '-I', '-c', code], capture_output=True, text=True
  )
  assert 'pip install ai-edge-litert' in done.stdout, done.stderr


def test_the_runner_refuses_what_the_policy_refuses(exported, runs):
  policy = runner.ExportedPolicy(exported, run=runs['float32'])
  obs = next(observations(1))
  wrong = {
    'dict with the keys': obs['image'],
    "'state' is missing": {'image': obs['image']},
    r'shape \[4\] and dtype float64, expected \[5\]': {
      **obs,
      'state': np.zeros(4),
    },
    'dtype float32, expected .* uint8': {
      **obs,
      'image': np.float32(obs['image']),
    },
    'not finite': {**obs, 'state': [np.inf, 0, 0, 0, 0]},
  }
  for message, value in wrong.items():
    with pytest.raises(ValueError, match=message):
      policy(value)
  assert not any(v.any() for v in policy.state.values())
  broken = lambda inputs: {
    k: v * np.nan for k, v in runs['float32'](inputs).items()
  }
  with pytest.raises(ValueError, match='far from'):
    runner.ExportedPolicy(exported, run=broken)(obs)
  with pytest.raises(ValueError, match="got 'float16'"):
    runner.ExportedPolicy(exported, 'float16')


def test_the_card(exported):
  card = json.loads((exported / 'card.json').read_text())
  assert card['gradient_step'] == STEP and card['method'] == 'moto'
  assert card['action']['size'] == 2 and card['action']['chosen_by'] == 'mean'
  assert '1 cm' in card['action']['meaning']
  (row,) = card['success']['evaluations_while_training']
  assert row == {'gradient_step': STEP, 'episodes': 4, 'success': 0.25}
  for name, row in card['check']['formats'].items():
    # Two episodes of 9 and 6 records, each of them twice.
    assert row['passed'] and row['steps'] == 30, name
  for name in ('policy.tflite', 'policy-int8.tflite', 'moto_policy.py'):
    assert card['bytes'][name] == (exported / name).stat().st_size
  assert card['bytes']['policy-int8.tflite'] < card['bytes']['policy.tflite']
  text = (exported / 'CARD.md').read_text()
  for part in ('0.25 of 4 episodes', '16 x 16 x 3 uint8', 'camera `default`'):
    assert part in text
  # The directory of compiled files is of the test above, which imports one.
  names = {path.name for path in exported.iterdir()} - {'__pycache__'}
  assert names == {
    *('saved_model', 'policy.tflite', 'policy-int8.tflite'),
    *('moto_policy.py', 'card.json', 'CARD.md'),
  }


def test_the_card_has_the_success_of_this_very_checkpoint(logdir, loaded):
  _, config, meta = loaded
  episodes = [{'seed': 5, 'success': x, 'return': 1.0} for x in (0, 1, 1, 1)]
  found = {
    'task': config.task,
    'method': config.name,
    'gradient_step': STEP,
    'checkpoint': meta['checkpoint'],
    'success_low': 0.3,
    'success_high': 0.9,
    'rollouts': episodes,
  }
  path = logdir / 'evaluation' / f'evaluation-{STEP:08d}.json'

  def success(meta=meta, config=config, **change):
    files.write_json(path, found | change)
    return card._measured(logdir, config, meta)

  try:
    ends = {'success_low': 0.3, 'success_high': 0.9}
    expected = {'success': 0.75, **ends, 'episodes': 4}
    assert success()['evaluate'] == expected
    before = {k: v for k, v in found.items() if k != 'checkpoint'}
    files.write_json(path, before)  # Version 0.1.
    assert card._measured(logdir, config, meta)['evaluate'] == expected
    for change in (
      {'checkpoint': f'/backup/{meta["checkpoint"]}'},
      {'gradient_step': STEP + 1},
      {'task': 'custom_other'},
      {'method': 'dreamerv2'},
    ):
      assert success(**change)['evaluate'] is None, change
    # A run may get a variant later.
    renamed = config.replace({'variant': 'mine'})
    assert success(config=renamed)['evaluate'] == expected
    # A file from elsewhere, or another action than the evaluated one.
    nothing = {'evaluations_while_training': [], 'evaluate': None}
    assert success({**meta, 'checkpoint': '/backup/ckpt.npz'}) == nothing
    assert success(config=config.replace({'eval_action': 'mode'})) == nothing
  finally:
    path.unlink()


def compare(agent, exported, runs):
  runners = {
    name: runner.ExportedPolicy(exported, run=run) for name, run in runs.items()
  }
  obs = list(observations(10))
  sequence = {key: [o[key] for o in obs] for key in obs[0]}
  return check.compare(Policy(agent), runners, [sequence] * 4)


def test_the_check_sees_other_weights(policy, exported, runs):
  """A single array, by one part in a hundred."""
  agent = policy._agent
  assert all(x['passed'] for x in compare(agent, exported, runs).values())
  for name in ('model/rssm/gru_kernel', 'model/encoder/conv/0/kernel'):
    weight = agent.variables()[name]
    before = weight.numpy()
    weight.assign(before * 1.01)
    found = compare(agent, exported, runs)
    weight.assign(before)
    assert not found['saved_model']['passed'] and not found['float32']['passed']


def test_the_check_sees_a_state_that_is_lost_or_kept(policy, exported, runs):
  """Lost within an episode, or kept from one to the next."""
  run, kept = runs['saved_model'], {}

  def forgetful(inputs):
    return run({**inputs, 'is_first': np.array([True])})

  def clinging(inputs):
    outputs = run({**inputs, **kept, 'is_first': np.array([False])})
    kept.update({k: v for k, v in outputs.items() if k != 'action'})
    return outputs

  for wrong in (forgetful, clinging):
    found = compare(policy._agent, exported, {'saved_model': wrong})
    assert not found['saved_model']['passed'], wrong


def test_a_failed_check_is_loud(
  logdir, loaded, exported, tmp_path, at_once, monkeypatch, capsys
):
  """Everything is kept, under another name, and the command fails."""

  def other(agent, directory):
    """Files of other weights than the agent has."""
    shutil.copytree(exported, directory, dirs_exist_ok=True)
    weight.assign_add([0.1] * 4)
    return json.loads((exported / 'card.json').read_text())['interface']

  weight = loaded[0].variables()['actor/mlp/out/bias']
  before = weight.numpy()
  monkeypatch.setattr(formats, 'write', other)
  out = tmp_path / 'out'
  with pytest.raises(SystemExit, match='Error: The self-check failed: saved'):
    command.main(['--logdir', str(logdir), '--out', str(out)])
  weight.assign(before)
  assert [path.name for path in tmp_path.iterdir()] == ['out.failed']
  assert '**no**' in (tmp_path / 'out.failed' / 'CARD.md').read_text()
  assert not capsys.readouterr().out
  with pytest.raises(files.FileError, match='out.failed is there'):
    export_policy(logdir, out)


def test_nothing_is_left_of_an_export_that_breaks(
  logdir, tmp_path, at_once, monkeypatch
):
  problem = DeployError('no such operation')

  def broken(agent, directory):
    (directory / 'half').write_text('written')
    raise problem

  monkeypatch.setattr(formats, 'write', broken)
  with pytest.raises(DeployError, match='no such operation'):
    export_policy(logdir, tmp_path / 'new' / 'out')
  assert not list(tmp_path.iterdir())
  problem = OSError(28, 'No space left on device')
  with pytest.raises(files.FileError, match='No space left'):
    export_policy(logdir, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_refusals(logdir, loaded, exported, tmp_path, monkeypatch, toy):
  before = sorted(exported.rglob('*'))
  with pytest.raises(files.FileError, match='not empty; give another --out'):
    export_policy(logdir, exported)
  assert sorted(exported.rglob('*')) == before
  with pytest.raises(DeployError, match='eval_action is sample'):
    export_policy(logdir, tmp_path / 'out', eval_action='sample')
  monkeypatch.setattr('moto_tf.policy.load_agent', lambda *_, **__: loaded)
  with pytest.raises(DeployError, match='holds no episodes'):
    export_policy(logdir, tmp_path / 'out', data=tmp_path)
  linear = toy.make(tiny_config(eager=False), SPACES, ACT)
  with pytest.raises(
    DeployError, match='method moto .*Linear has no acting_st'
  ):
    formats.write(linear, tmp_path)
  with pytest.raises(DeployError, match='object cannot be exported'):
    formats.write(object(), tmp_path)
  assert not list(tmp_path.iterdir())


def test_the_mode_needs_no_erf(policy, monkeypatch):
  """It is the tanh of half of what the actor says."""
  agent = policy._agent
  config = agent._config.replace({'eval_action': 'mode'})
  monkeypatch.setattr(agent, '_config', config)
  acting = agent.acting_step(None)
  obs = {k: tf.constant(v[None]) for k, v in next(observations(1)).items()}
  obs['is_first'] = tf.constant([True])
  zeros = {k: tf.zeros(*v) for k, v in acting.state.items()}
  noise = {'latent': tf.zeros(acting.noise['latent'][1])}
  action, after = acting.step(obs, zeros, noise)
  feat = agent.model.rssm.get_feat(after)
  says = agent.behavior.actor.outputs(feat).numpy()
  np.testing.assert_allclose(action, np.tanh(says[:, :2]), atol=1e-6)


def test_the_card_says_what_actions_were(exported, tmp_path, capsys):
  """In units of the robot, where imported demonstrations were scaled."""
  config = tiny_config(offline_data=str(tmp_path))
  assert card._range(tmp_path, config, {}) == {}
  ends = {'action_low': [-1.0, 0.0], 'action_high': [1.0, 90.0]}
  (tmp_path / 'dataset.json').write_text(json.dumps(ends))
  found = card._range(tmp_path, config, {})
  assert found == {'data_low': [-1, 0], 'data_high': [1, 90]}
  # The checkpoint knows it, too, and these may be gone.
  meta = {'action_range': {'low': [2.0, 3.0], 'high': [4.0, 5.0]}}
  assert card._range(tmp_path, config, meta)['data_low'] == [2, 3]
  assert card._range(tmp_path, config, {'action_range': {}}) == {}
  gone = tiny_config(offline_data=str(tmp_path / 'gone'))
  assert card._range(tmp_path, gone, {}) == {}
  assert 'gone, the offline_data of the run' in capsys.readouterr().err
  content = json.loads((exported / 'card.json').read_text())
  assert 'data_low' not in content['action']
  content['action'] |= found
  assert '-1 was [-1.0, 0.0], and 1 [1.0, 90.0].' in card.text(content)


def test_what_it_is_compared_on(policy, logdir, tmp_path):
  config, agent = tiny_config(offline_data=''), policy._agent
  found, text = check.find_observations(logdir, config, agent)
  assert [len(x['state']) for x in found] == [9, 6, 9, 6] and 'record' in text
  found, text = check.find_observations(tmp_path, config, agent)
  assert len(found) == check.EPISODES and 'random' in text
  assert found[0]['image'].shape == (check.STEPS, 16, 16, 3)
  shutil.copytree(logdir / 'episodes', tmp_path / 'data')
  found, _ = check.find_observations(tmp_path, config, agent, tmp_path / 'data')
  assert len(found[0]['image']) == 9
