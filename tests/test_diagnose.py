"""The command diagnose: its files, studies that do not fit, a toy study."""

import json
import re
import types
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from helpers import ACT, SPACES, tiny_config
from study_helpers import make_run

from moto_tf import policy
from moto_tf.commands.diagnose import main
from moto_tf.config import Config
from moto_tf.envs.gym import wrap_gym
from moto_tf.policy import load_agent
from moto_tf.registry import RegistryError, resolve
from moto_tf.studies import (
  NEEDS,
  STUDIES,
  Study,
  StudyError,
  StudyResult,
  StudySkipped,
  critics,
  register_study,
)
from moto_tf.studies.context import Context, find_data
from moto_tf.studies.diagnose import diagnose
from moto_tf.training.checkpoint import Checkpoints


def test_where_the_data_is(tmp_path):
  logdir, given = tmp_path / 'moto' / '0', tmp_path / 'given'
  config = tiny_config(offline_data='auto')
  with pytest.raises(StudyError, match='demos any more.*--data DIR'):
    find_data(config, logdir, None)
  with pytest.raises(StudyError, match='given; --data names'):
    find_data(config, logdir, given)
  (tmp_path / 'demos').mkdir()
  given.mkdir()
  assert find_data(config, logdir, None) == tmp_path / 'demos'
  assert find_data(config, logdir, given) == given
  config = tiny_config(offline_data='')
  assert find_data(config, logdir, None) is None


def files(directory):
  return {path.name for path in directory.iterdir()}


def test_script_writes_numbers_and_figures(tmp_path, capsys):
  logdir = make_run(tmp_path / 'moto' / '0')
  saved = Checkpoints(logdir / 'checkpoints', 1).load()[0]
  agent, config, meta = load_agent(logdir, policy_only=False)
  for key, value in agent.save().items():
    np.testing.assert_array_equal(value, saved[key], key)
  command = ['--logdir', str(logdir), '--episodes', '3']
  command += ['--data', str(logdir / 'episodes')]
  main(command)
  output = capsys.readouterr().out
  for part in ('3/3 episodes', 'logit_std', 'negated', 'Pearson', 'Numbers:'):
    assert part in output, part
  names = 'q_calibration reward penalty disagreement'
  figures = {f'{name}.png' for name in names.split()}
  assert files(logdir / 'diagnosis') == {'diagnosis.json', *figures}
  text = (logdir / 'diagnosis' / 'diagnosis.json').read_text()
  result = json.loads(text)
  assert result['task'] == 'gym_Pendulum-v1'
  assert result['critics']['all']['states'] == 3 * 12
  context = Context(agent, config, meta, logdir, episodes=3, envs=1)
  numbers = critics.measure(context).numbers
  assert numbers['all'] == pytest.approx(result['critics']['all'], rel=1e-3)
  assert result['penalty']['episodes'] == 2
  assert result['penalty']['states'] == 2 * 3
  assert result['reward']['policy']['records'] == 3 * (13 - 5)
  assert result['reward']['recorded']['episodes'] == 2
  assert 'online' in result['training']['train/imag_penalty']
  main([*command, '--outdir', str(tmp_path / 'again')])
  assert (tmp_path / 'again' / 'diagnosis.json').read_text() == text
  main([*command[:2], '--episodes', '1'])
  output = capsys.readouterr().out
  assert 'No recorded episodes to look at' in output
  with pytest.raises(SystemExit) as error:
    main([*command[:4], '--data', str(tmp_path / 'gone')])
  assert str(error.value).startswith('Error: There is no directory')


def test_script_on_a_dreamer_of_one_head(tmp_path, capsys):
  settings = {'method': 'dreamerv2', 'rssm.ensemble': 1}
  logdir = make_run(tmp_path / 'dreamerv2' / '0', **settings)
  main(['--logdir', str(logdir), '--episodes', '2'])
  output = capsys.readouterr().out
  assert 'No penalty.png: the ensemble has one member' in output
  assert f'by --data, such as {logdir}/episodes' in output
  (tmp_path / 'empty').mkdir()
  with pytest.raises(SystemExit, match='no episode that this agent can use'):
    main(['--logdir', str(logdir), '--data', str(tmp_path / 'empty')])
  assert '2/2 episodes' not in capsys.readouterr().out
  assert 'No disagreement.png' in output
  figures = {'q_calibration.png', 'reward.png'}
  assert files(logdir / 'diagnosis') == {'diagnosis.json', *figures}
  text = (logdir / 'diagnosis' / 'diagnosis.json').read_text()
  result = json.loads(text)
  assert result['penalty'] is None
  assert result['critics']['all']['penalty'] == 0
  assert result['critics']['all']['states'] == 2 * 12


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Log directory of a run that no test changes."""
  return make_run(tmp_path_factory.mktemp('runs') / 'moto' / '0')


@pytest.fixture
def studies():
  """Forgets what a test registers."""
  before = set(STUDIES)
  yield
  for name in set(STUDIES) - before:
    STUDIES.remove(name)


def written(directory):
  return json.loads((directory / 'diagnosis.json').read_text())


def test_every_study_resolves_and_says_what_it_needs():
  for name, study in STUDIES.items():
    assert callable(resolve(study.run)), name
    assert study.label and set(study.needs) <= set(NEEDS)
    order = [need for need in NEEDS if need in study.needs]
    assert list(study.needs) == order, name
  with pytest.raises(RegistryError, match="cannot need 'data'; it may need"):
    Study('a:b', 'c', ('data',))


def test_a_toy_study(run, tmp_path, studies, capsys):
  """Of this file, with no edit elsewhere; nothing is made twice."""
  seen = []

  def measure(context):
    assert context.rollouts is context.rollouts
    assert context.recorded_posts is context.recorded_posts
    seen.append(context)
    longest = max(len(episode['reward']) for episode in context.rollouts)
    return StudyResult({'longest': longest}, f'Longest: {longest} records.')

  register_study('toy', measure, 'length of episodes', ['rollouts'])
  with pytest.raises(SystemExit, match='0'):
    main(['--help'])
  assert re.search(r'toy +length of episodes\n', capsys.readouterr().out)
  outdir = diagnose(run, ['toy', 'critics'], 2, 1, outdir=tmp_path)
  assert outdir == tmp_path
  assert files(outdir) == {'diagnosis.json', 'q_calibration.png'}
  result = written(outdir)
  assert result['toy'] == {'longest': 13}
  assert result['critics']['episodes'] == 2
  assert 'reward' not in result and result['data'] is None
  output = capsys.readouterr().out
  assert output.count('2/2 episodes') == 1
  assert 'Longest: 13 records.' in output.splitlines()
  with pytest.raises(RegistryError, match='Did you mean critics'):
    diagnose(run, ['critic'])
  (context,) = seen
  assert len(context.rollout_posts) == 2


def test_in_an_environment_of_ones_own(run, tmp_path, studies):
  """As `moto_tf.train(config, make_env)` had it."""
  seen = []
  register_study(
    'toy', lambda x: seen.extend(x.rollouts) or StudyResult({}), 'x', []
  )

  class Short(gymnasium.Wrapper):
    def step(self, action):
      return *self.env.step(action)[:3], True, {'success': True}

  config = Config.load(run / 'config.yaml')
  make_env = lambda: wrap_gym(Short(gymnasium.make('Pendulum-v1')), config.env)
  diagnose(run, ['toy'], 2, 1, outdir=tmp_path, make_env=make_env)
  assert [len(episode['reward']) for episode in seen] == [2, 2]


def test_a_study_that_does_not_fit_is_left_out(run, tmp_path, studies, capsys):
  def skip(context):
    raise StudySkipped('there is no sun.')

  register_study('sun', skip, 'hours of sun', figure='sunshine')
  diagnose(run, ['sun', 'training', 'penalty'], outdir=tmp_path)
  output = capsys.readouterr().out
  assert 'No sunshine.png: there is no sun.\n' in output
  assert 'No penalty.png: there are no recorded episodes to look at.' in output
  result = written(tmp_path)
  assert result['sun'] is None and result['penalty'] is None
  assert 'train/imag_penalty' in result['training']
  with pytest.raises(StudyError, match='No study fits'):
    diagnose(run, ['sun'], outdir=tmp_path / 'none')
  assert not (tmp_path / 'none').exists()


def test_an_agent_without_world_model(run, tmp_path, monkeypatch, capsys):
  """It gets the studies that fit, even where its data is gone."""
  config = tiny_config(offline_data=str(tmp_path / 'gone'))
  agent = types.SimpleNamespace(obs_space=SPACES, obs_keys=[], act_space=ACT)
  loaded = (agent, config, {'counters': {'gradient_step': 3}})
  monkeypatch.setattr(policy, 'load_agent', lambda *_: loaded)
  row = {'gradient_step': 1, 'phase': 'online', 'eval/success': 0.5}
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  (tmp_path / 'config.yaml').write_text((run / 'config.yaml').read_text())
  outdir = diagnose(tmp_path)
  assert files(outdir) == {'diagnosis.json'}
  result = written(outdir)
  assert result['training'] == {'eval/success': {'online': 0.5}}
  assert result['critics'] is result['reward'] is result['penalty'] is None
  lines = capsys.readouterr().out.splitlines()
  for figure in ('q_calibration', 'reward', 'penalty'):
    assert f'No {figure}.png: the agent has no world model.' in lines


def test_numbers_of_an_agent_that_has_diverged(run, tmp_path, studies):
  broken = lambda context: StudyResult({'x': [float('nan')]})
  register_study('broken', broken, 'nothing')
  with pytest.raises(StudyError, match="'broken' found numbers that are nan"):
    diagnose(run, ['broken'], outdir=tmp_path)


def test_the_documented_study(run, tmp_path, studies, capsys):
  """The one that docs/studies.md shows whole."""
  text = (Path(__file__).parents[1] / 'docs' / 'studies.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.S)
  (tmp_path / 'limits.py').write_text(code)
  command = ['--plugins', str(tmp_path / 'limits.py'), '--logdir', str(run)]
  command += ['--studies', 'limits', '--episodes', '2']
  main([*command, '--outdir', str(tmp_path / 'out')])
  assert files(tmp_path / 'out') == {'diagnosis.json', 'limits.png'}
  context = Context(*load_agent(run, None, False), run, 2, 1)
  actions = np.concatenate([e['action'][1:] for e in context.rollouts])
  expected = np.mean(np.abs(actions) > 0.95, 0).tolist()
  assert written(tmp_path / 'out')['limits'] == {'share': expected}
  assert 'At a limit:' in capsys.readouterr().out
