"""Training gives the numbers it gave before the code was rearranged.

tests/golden holds 50 gradient steps of every method, made by golden_runs.py at
commit c2d045d, but for moto_discount (biases before layer norm),
dreamerv2_paper, lompo, combo and those without a world model, which came later.
On the kind of machine that made them everything is equal bit for bit; with
another order of floating point operations (oneDNN off, no AVX-512) the largest
relative difference of a metric was 1.4e-5.
"""

import json
from pathlib import Path

import golden_runs
import numpy as np
import pytest

GOLDEN = Path(__file__).parent / 'golden'
# What is no longer computed where it has no effect, or means nothing.
PENALTY = {'train/imag_disagreement', 'train/imag_penalty'}
CLONING = {'train/actor_bc_loss', 'train/bc_share'}
SUCCESS = {'report/reward_precision', 'report/reward_recall'}
GONE = {'no_unc': PENALTY, 'no_bc': CLONING, 'no_bc_no_unc': PENALTY | CLONING}
# What has come since, and is not on file.
VALUES = {'eval/overestimation', 'eval/value_predicted', 'eval/value_real'}
CONTRAST = {'report/penalty_recorded', 'report/penalty_negated'}
COUNT = {'train/bc_records'}
NEW = {
  'moto': CONTRAST | COUNT,
  'moto_discount': CONTRAST | COUNT,
  'no_unc': COUNT,
  'no_bc': CONTRAST,
  **dict.fromkeys(('lompo', 'combo'), {'train/buffer_broken'}),
}
TOLERANCE = 1e-3


@pytest.mark.parametrize('case', golden_runs.CASES)
def test_golden(case, tmp_path):
  expected = json.loads((GOLDEN / f'{case}.json').read_text())
  found = golden_runs.run_case(case, tmp_path)
  here = golden_runs.fingerprint()
  # Older files do not say on how many cores they were made, so they are exact
  # nowhere.
  exact = here == expected['fingerprint']
  missing, added, before = set(), set(), set()
  for old, new in zip(expected['rows'], found['rows'], strict=True):
    missing |= old.keys() - new.keys()
    added |= new.keys() - old.keys()
    before |= old.keys()
    for key in old.keys() & new.keys():
      where = f'{key} at gradient step {new["gradient_step"]}'
      if exact or not isinstance(old[key], float):
        assert new[key] == old[key], where
      else:
        assert new[key] == pytest.approx(old[key], TOLERANCE, TOLERANCE), where
  free = case in golden_runs.MODEL_FREE
  expected_new = VALUES | NEW.get(case, set())
  assert added == (set() if free else expected_new - before)
  # Files that were written later lack them, too.
  assert missing == before & (SUCCESS | GONE.get(case, set()))
  assert found['weights'].keys() == expected['weights'].keys()
  for name, old in expected['weights'].items():
    new = found['weights'][name]
    if exact:
      assert new == old, name
    np.testing.assert_allclose(new['norm'], old['norm'], TOLERANCE, 1e-6)
    np.testing.assert_allclose(new['first'], old['first'], 0.01, 1e-4)
