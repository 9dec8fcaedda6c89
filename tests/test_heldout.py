"""Reports of a run: on what data, when, and never on what is trained on.

With the toy method, whose report is replaced by one that keeps its batches.
"""

import numpy as np
import pytest
from test_collectors import Point, configure

from moto_tf.data.episodes import save_episode
from moto_tf.training import rows
from moto_tf.training.algorithm import algorithm_1
from moto_tf.training.monitor import HELDOUT_BATCHES
from moto_tf.training.run import Run

# What no state of the environment is.
MARK = 77

pytestmark = pytest.mark.usefixtures('toy')


@pytest.fixture
def heldout(tmp_path):
  """A directory of episodes with the mark, and the record, in the state."""
  index = np.arange(12)
  for number in range(3):
    mark = np.full(12, MARK)
    episode = {
      'state': np.stack([mark, 12 * number + index], -1),
      'action': np.zeros((12, 1)),
      'reward': np.zeros(12),
      'is_first': index == 0,
      'is_last': index == 11,
      'is_terminal': np.zeros(12, bool),
      'success': np.zeros(12, bool),
    }
    save_episode(tmp_path / 'heldout', str(number), episode)
  return tmp_path / 'heldout'


def train(logdir, **settings):
  """Trains for nine steps.

  Returns:
    Batches of the reports and of the gradient steps, by step, and the rows.
  """
  settings = {'collect': 'turns', 'online_steps': 9, **settings}
  reports, batches = {}, {}
  with Run(configure(logdir, **settings), Point) as run:
    learn = run.agent.train

    def report(batches, step):
      reports.setdefault(run.gradient_step, []).append(batches)
      return {'first': float(batches[0]['state'][..., 0].max())}, {}

    def keep(batch, step):
      batches[step + 1] = batch
      return learn(batch, step)

    run.agent.report, run.agent.train = report, keep
    algorithm_1(run)
  return reports, batches, rows.read(logdir / 'metrics.jsonl')[0]


def logged(found, prefix):
  """Values of the keys that begin so, by gradient step."""
  return {
    row['gradient_step']: value
    for row in found
    for key, value in row.items()
    if key.startswith(prefix)
  }


def test_held_out_metrics_are_of_held_out_data(tmp_path, heldout):
  """Four batches of it, not four times the same, and it is never learned."""
  reports, batches, found = train(
    tmp_path / 'run', report_every=4, heldout_data=str(heldout)
  )
  assert reports.keys() == {4, 8, 9} and len(batches) == 9
  for (seen,) in reports.values():
    assert len(seen) == HELDOUT_BATCHES == 4
    states = np.array([batch['state'] for batch in seen])
    assert (states[..., 0] == MARK).all()
    assert len(np.unique(states[..., 1].reshape(4, -1), axis=0)) == 4
  for batch in batches.values():
    assert not (batch['state'] == MARK).any()
  assert logged(found, 'heldout/') == {4: MARK, 8: MARK, 9: MARK}
  assert not logged(found, 'report/')


def test_without_held_out_data_the_batch_of_the_step_is_reported(tmp_path):
  reports, batches, found = train(tmp_path / 'run', report_every=4)
  assert reports.keys() == {4, 8, 9}
  for step, ((batch,),) in reports.items():
    for key, value in batches[step].items():
      np.testing.assert_array_equal(batch[key], value)
  assert logged(found, 'report/').keys() == {4, 8, 9}
  assert not logged(found, 'heldout/')


def test_no_report_at_all(tmp_path, heldout):
  """Also not where a phase ends, at which there is an evaluation."""
  for name, data in (('without', ''), ('with', str(heldout))):
    reports, _, found = train(
      tmp_path / name, report_every=0, heldout_data=data
    )
    assert not reports
    assert not logged(found, ('report/', 'heldout/'))
    assert logged(found, 'eval/success').keys() == {9}
