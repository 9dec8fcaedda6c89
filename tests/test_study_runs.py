"""The paper's studies, and ranking, of a whole run."""

import json

import numpy as np
import pytest
import scipy.stats
from study_helpers import make_run

from moto_tf.commands.rank import main as rank_main
from moto_tf.data.episodes import load_episode, save_episode
from moto_tf.results import evaluations
from moto_tf.studies import StudyError, rank
from moto_tf.studies.context import find_successes
from moto_tf.studies.diagnose import diagnose
from moto_tf.training.checkpoint import Checkpoints


def test_agreement_with_success():
  success = [None, 0.2, 0.9, 0.5, 0.5, None]
  scores = [9.0, 1.0, 2.0, 3.0, 3.0, 0.0]
  returns = [None, 5.0, 2.0, 1.0, 4.0, None]
  rows = [
    {'success': s, 'real_return': r, 'penalised': x, 'return': -x, 'value': 1.0}
    for s, r, x in zip(success, returns, scores, strict=True)
  ]
  found = rank.agreement(rows)
  assert found['checkpoints'] == 4 and found['best'] == 0.9
  expected = scipy.stats.spearmanr(scores[1:5], success[1:5]).statistic
  assert found['scores']['penalised'] == {
    'spearman': pytest.approx(expected),
    'spearman_return': pytest.approx(
      scipy.stats.spearmanr(scores[1:5], returns[1:5]).statistic
    ),
    'chosen': 0.5,
  }
  assert found['scores']['return']['chosen'] == 0.2
  assert found['scores']['value']['spearman'] is None
  assert found['scores']['value']['chosen'] == pytest.approx(
    np.mean(success[1:5])
  )
  assert rank.agreement(rows[:1])['best'] is None


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run on Pendulum with milestones of other weights each, 0 to 3.

  Beside it `good`, its episodes with counts for rewards, as if they succeeded.
  """
  logdir = make_run(tmp_path_factory.mktemp('runs') / 'moto' / '0')
  checkpoints = Checkpoints(logdir / 'checkpoints', 1)
  arrays, meta, _ = checkpoints.load()
  rng = np.random.default_rng(0)
  for step in (1, 2, 3):
    meta['counters']['gradient_step'] = step
    arrays = {
      k: v * rng.uniform(0.8, 1.2) if k.startswith('actor/') else v
      for k, v in arrays.items()
    }
    arrays = {
      k: v.astype(np.float32) if v.dtype == float else v
      for k, v in arrays.items()
    }
    checkpoints.save(step, arrays, meta, milestone=True)
  rows = [
    {'gradient_step': 1, 'success': [0, 1], 'return': [-3.0, -5.0]},
    {'gradient_step': 3, 'success': [1, 1], 'return': [-2.0, -1.0]},
    {'gradient_step': 9, 'success': [None], 'return': [1.0]},
  ]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (logdir / 'evaluations.jsonl').write_text(text)
  for i, path in enumerate(sorted((logdir / 'episodes').glob('*.npz'))):
    episode = load_episode(path)
    episode['success'][5:] = i == 0
    index = np.arange(len(episode['reward']))
    episode['reward'] = ((index >= 3) * 1.0 + (index >= 5 + i)).astype('f4')
    save_episode(logdir.parent / 'good', str(i), episode)
  return logdir


def test_only_successes_are_experts(run):
  from moto_tf.policy import load_agent

  agent, _, _ = load_agent(run, policy_only=False)
  found = find_successes(agent, run.parent / 'good')
  assert [e['reward'].sum() for e in found] == [10 + 8]
  assert find_successes(agent, run / 'episodes') == []


def test_evaluations_by_gradient_step(run, tmp_path, capsys):
  found = evaluations.by_step(run)
  assert found == {
    1: {'success': 0.5, 'return': -4.0, 'episodes': 2},
    3: {'success': 1.0, 'return': -1.5, 'episodes': 2},
  }
  assert capsys.readouterr().err.count('no evaluation') == 1
  text = (run / 'evaluations.jsonl').read_text()
  (tmp_path / 'evaluations.jsonl').write_text(text)
  (tmp_path / 'evaluation').mkdir()
  for name, step, count, checkpoint in (
    ('a', 1, 1, 'checkpoints/x.npz'),
    ('b', 3, 50, 'checkpoints/x.npz'),
    ('c', 5, 50, '/elsewhere/x.npz'),
  ):
    episode = {'seed': 0, 'success': 0.25, 'return': 7}
    row = {'gradient_step': step, 'rollouts': [episode] * count}
    row |= {'checkpoint': checkpoint}
    path = tmp_path / 'evaluation' / f'evaluation-{name}.json'
    path.write_text(json.dumps(row))
  found = evaluations.by_step(tmp_path)
  assert found[1]['episodes'] == 2 and 5 not in found
  assert found[3] == {'success': 0.25, 'return': 7.0, 'episodes': 50}


def test_the_papers_studies_of_a_run(run, tmp_path, capsys):
  """Rolled out only where no evaluation is on record."""
  data = run.parent / 'good'
  names = ['composition', 'bound']
  diagnose(run, names, 2, 1, data=data, outdir=tmp_path)
  output = capsys.readouterr().out
  assert output.count('2/2 episodes') == 1
  result = json.loads((tmp_path / 'diagnosis.json').read_text())
  assert {p.name for p in tmp_path.iterdir()} == {
    *('diagnosis.json', 'bound.png', 'composition.png')
  }
  found = result['bound']
  rows = found['checkpoints']
  assert [row['gradient_step'] for row in rows] == [1, 2, 3]
  assert [row['return'] for row in rows[::2]] == [-4.0, -1.5]
  assert found['expert_return'] == 18 and rows[0]['gap'] == 22
  for row in rows:
    assert row['model_gap'] == row['model_return'] - row['return']
  assert len({row['model_return'] for row in rows}) == 3
  # The model is the same, so Eq. 12 is.
  assert len({row['uncertainty']['logit_std'] for row in rows}) == 1
  assert result['composition']['things'] == 2
  assert result['composition']['replayed']['seen'] == [3]
  assert result['composition']['policy']['rollouts'] == 2
  # A damaged milestone is left out.
  path = sorted((run / 'checkpoints').glob('*-milestone.npz'))[0]
  content = path.read_bytes()
  path.write_bytes(b'PK')
  try:
    diagnose(run, ['bound'], 2, 1, data=data, outdir=tmp_path / 'b')
  finally:
    path.write_bytes(content)
  assert f'{path} is left out' in capsys.readouterr().err
  result = json.loads((tmp_path / 'b' / 'diagnosis.json').read_text())
  steps = [row['gradient_step'] for row in result['bound']['checkpoints']]
  assert steps == [2, 3]
  with pytest.raises(StudyError):
    diagnose(run, names, 1, 1, data=run / 'episodes', outdir=tmp_path / 'c')
  output = capsys.readouterr().out
  assert 'No bound.png: no successful episode, recorded or of' in output
  assert 'No composition.png: no recorded episode and none of' in output


def test_rank_without_rollouts(run, tmp_path, capsys):
  command = ['--logdirs', str(run), '--data', str(run / 'episodes')]
  rank_main([*command, '--outdir', str(tmp_path)])
  output = capsys.readouterr().out
  assert 'Of 2 checkpoints the success is on record: best 1.00' in output
  assert 'evaluation' not in output
  result = json.loads((tmp_path / 'rank.json').read_text())
  rows = result['checkpoints']
  assert {row['gradient_step'] for row in rows} == {0, 1, 2, 3}
  values = [row['penalised'] for row in rows]
  assert values == sorted(values, reverse=True) and len(set(values)) == 4
  assert (tmp_path / 'rank.png').exists()
  with pytest.raises(SystemExit, match='is there already'):
    rank_main([*command, '--outdir', str(tmp_path)])
  rank_main([*command, '--outdir', str(tmp_path), '--force', '--by', 'value'])
  rows = json.loads((tmp_path / 'rank.json').read_text())['checkpoints']
  values = [row['value'] for row in rows]
  assert values == sorted(values, reverse=True)
  # A file that is deleted or damaged meanwhile is left out.
  capsys.readouterr()
  paths = sorted((run / 'checkpoints').glob('ckpt-*.npz'))
  content = paths[0].read_bytes()
  paths[0].write_bytes(b'PK')
  try:
    rank_main([*command, '--outdir', str(tmp_path), '--force'])
  finally:
    paths[0].write_bytes(content)
  assert f'{paths[0]} is left out' in capsys.readouterr().err
  rows = json.loads((tmp_path / 'rank.json').read_text())['checkpoints']
  assert {row['gradient_step'] for row in rows} == {1, 2, 3}
  with pytest.raises(SystemExit, match="no score 'luck'; it is penalised, "):
    rank_main([*command, '--by', 'luck'])
  with pytest.raises(SystemExit, match='has no offline_data; name recorded'):
    rank_main([*command[:2], '--outdir', str(tmp_path / 'x')])
