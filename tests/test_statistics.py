"""Statistics over seeds and tasks: known values, plain loops, coverage."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from results_helpers import row, write_run, write_runs

from moto_tf.results import comparison, curves, plotting, statistics

# The score matrices of rliable's own test (google-research/rliable,
# tests/rliable/metrics_test.py), runs by tasks, with its values.
X = np.array([[1, 2], [2, 2], [1, 1], [2, 1]])
Y = np.array([[1, 1], [2, 2], [3, 3]])


def by_task(matrix):
  return list(np.asarray(matrix, float).T)


def by_seed(matrix):
  return [dict(enumerate(x)) for x in by_task(matrix)]


def test_constants_of_rliable():
  assert statistics.interquartile_mean(X.ravel()) == 1.5
  assert statistics.interquartile_mean(Y.ravel()) == 2
  found = statistics.improvement(by_task(X), by_task(Y))
  assert found == pytest.approx(1 / 3)
  assert statistics.improvement(by_task(X), by_task(X)) == 0.5


@pytest.mark.parametrize('count', [1, 2, 3, 4, 5, 7, 8, 10, 30])
def test_interquartile_mean_is_the_trimmed_mean(count):
  values = np.random.default_rng(count).normal(size=(3, count))
  expected = scipy.stats.trim_mean(values, 0.25, axis=1)
  np.testing.assert_allclose(statistics.interquartile_mean(values), expected)
  # By hand: of eight values the four in the middle.
  assert statistics.interquartile_mean([9, 0, 1, 2, 3, 4, 5, 0]) == 2.5


def test_improvement_counts_pairs():
  rng = np.random.default_rng(0)
  x = [rng.integers(0, 4, n) for n in (3, 5)]
  y = [rng.integers(0, 4, n) for n in (4, 2)]
  shares = []
  for a, b in zip(x, y):
    wins = [(i > j) + (i == j) / 2 for i, j in itertools.product(a, b)]
    shares.append(sum(wins) / len(wins))
    found = scipy.stats.mannwhitneyu(a, b).statistic / len(wins)
    assert shares[-1] == pytest.approx(found)
  assert statistics.improvement(x, y) == pytest.approx(np.mean(shares))


def test_profile():
  values = np.array([0.0, 0.5, 0.5, 1.0])
  found = statistics.profile(values, [-1, 0, 0.5, 0.9, 1])
  assert found.tolist() == [1, 0.75, 0.25, 0.25, 0]


@pytest.mark.parametrize('freedom', [1, 2, 3, 4, 9, 30, 200])
def test_t_quantile(freedom):
  for share in (0.5, 0.9, 0.975, 0.995):
    expected = scipy.stats.t.ppf(share, freedom)
    found = statistics.t_quantile(share, freedom)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_resamples_are_stratified():
  scores = [np.array([1.0, 2, 3]), np.array([10.0, 20])]
  first, second = statistics.resample(scores, 4000)
  assert first.shape == (4000, 3) and second.shape == (4000, 2)
  assert {*np.unique(first)} == {1, 2, 3} and {*np.unique(second)} == {10, 20}
  # Every seed as often, and independently.
  np.testing.assert_allclose(first.mean(0), 2, atol=0.05)
  assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.05


def test_band_of_few_seeds_is_their_range():
  scores = by_seed([[0.1, 0.9], [0.5, 0.7], [0.2, 0.2]])
  mean = lambda values: values.mean(-1)
  low, high, kind = statistics.band(scores, mean)
  assert kind == 'range'
  assert (low, high) == (pytest.approx(0.2), pytest.approx(0.6))
  one = [{0: 0.1}, {0: 0.9}]
  assert statistics.band(one, mean) == (None, None, None)
  many = by_task(np.random.default_rng(0).normal(size=(20, 6)))
  low, high, kind = statistics.band([dict(enumerate(x)) for x in many], mean)
  assert kind == 'bootstrap'
  # Stratified: only the spread within tasks counts.
  spread = np.mean([x.var() for x in many]) / 120
  assert high - low == pytest.approx(2 * 1.96 * spread**0.5, rel=0.1)


def test_both_methods_are_resampled_independently():
  """Else the seeds of equal methods would be paired, and the width be 0."""
  scores = [np.arange(6.0)]
  low, high = statistics.improvement_interval(scores, scores)
  assert low < 0.5 < high
  assert (low + high) / 2 == pytest.approx(0.5, abs=0.05)
  # Of 6 against 6 in no order the statistic of Mann and Whitney has a deviation
  # of about 0.17.
  assert 0.4 < high - low < 0.9
  assert statistics.improvement_interval(scores, [np.arange(4.0)]) == (
    None,
    None,
  )


def test_a_seed_that_a_task_lacks_is_left_out_of_the_range():
  """Seeds are not paired with others by their place."""
  scores = [{0: 0.0, 1: 0.5, 2: 1.0}, {1: 0.4, 2: 0.9}]
  mean = lambda values: values.mean(-1)
  low, high, kind = statistics.band(scores, mean)
  assert (low, high, kind) == (
    pytest.approx(0.45),
    pytest.approx(0.95),
    'range',
  )
  np.testing.assert_array_equal(
    statistics.of_each_seed(scores), [[0.5, 0.4], [1.0, 0.9]]
  )
  assert statistics.of_each_seed([{0: 1.0}, {1: 1.0}]).shape == (0, 2)
  apart = [{0: 0.0, 1: 0.5}, {2: 0.4, 3: 0.9}]
  assert statistics.band(apart, mean) == (None, None, None)


def test_the_band_is_called_after_its_own_seeds(tmp_path):
  for name, seeds in (('moto', (0, 1, 2)), ('no_bc', range(6))):
    for seed in seeds:
      for task in ('a', 'b'):
        if (name, seed, task) == ('moto', 0, 'b'):
          continue
        rows = [row(1000, eval_success=seed / 10)]
        path = tmp_path / task / name / str(seed)
        write_run(path, rows, f'metaworld_{task}')
  runs = curves.find_runs([tmp_path])
  panels = curves.aggregate_all(runs, ['eval/success'])['eval/success']
  found = comparison.compare(panels)
  moto = found['methods']['moto']
  assert moto['seeds'] == [3, 2] and moto['each'] == pytest.approx([0.1, 0.2])
  title = comparison.figure(found).get_suptitle()
  assert title.endswith('bands: range of 2 seeds, 95% bootstrap interval')
  assert '| moto | 2-3 | 0.12 | [0.10, 0.20] | range of 2 seeds |' in (
    comparison.table(found)
  )


def test_coverage_of_intervals():
  """In 3,000 experiments: what is called 95% covers so much, or is not."""
  rng = np.random.default_rng(0)

  def covered(interval, values, mean):
    low, high = interval(values)
    return np.mean((low <= mean) & (high >= mean))

  def bootstrap(values):
    (draws,) = statistics.resample([np.arange(len(values))], 400)
    return statistics.percentiles(values[draws].mean(1))

  for count, most in ((3, 0.78), (5, 0.87), (10, 0.93)):
    values = rng.normal(size=(count, 3000))
    assert 0.935 < covered(statistics.t_interval, values, 0) < 0.965
    # Why the bootstrap of few seeds is not called an interval of 95%.
    assert covered(bootstrap, values, 0) < most
  # That of three seeds reaches from the lowest to the highest, which leaves
  # the mean out where all lie on one side of it: 75% are left by a symmetric
  # distribution, and 72% by rates of success with this one.
  values = rng.normal(size=(3, 3000))
  assert covered(bootstrap, values, 0) == pytest.approx(0.75, abs=0.025)
  below = (5 / 6) ** 5
  expected = 1 - below**3 - (1 - below) ** 3
  assert expected == pytest.approx(0.72, abs=0.005)
  rates = rng.beta(5, 1, size=(3, 3000))
  assert covered(bootstrap, rates, 5 / 6) == pytest.approx(expected, abs=0.025)


def test_comparison(tmp_path, monkeypatch):
  write_runs(tmp_path / 'runs', ['door-open', 'hammer'])
  rows = [row(x, eval_success=1.0) for x in (1000, 2000)]
  write_run(tmp_path / 'runs' / 'x' / 'moto' / '0', rows, 'metaworld_x')
  paths = plotting.plot(
    [tmp_path / 'runs'], tmp_path, ['eval/success'], statistics=True
  )
  names = [path.name for path in paths]
  assert names[1:] == [
    'eval_success.png',
    'eval_success_statistics.png',
    'statistics.json',
    'table.md',
  ]
  found = json.loads(paths[3].read_text())['eval/success']
  # The third task has no run of the others.
  assert found['tasks'] == ['metaworld_door-open', 'metaworld_hammer']
  results = json.loads(paths[0].read_text())['results']['eval/success']
  finals = [results[x]['moto']['final']['values'] for x in found['tasks']]
  moto = found['methods']['moto']
  # Too few tasks for quarters of one seed.
  assert found['average'] == 'mean'
  assert moto['average']['value'] == pytest.approx(np.mean(finals))
  each = np.mean(finals, 0)
  assert moto['each'] == pytest.approx(each)
  assert moto['average']['low'] == pytest.approx(min(each))
  assert moto['average']['kind'] == 'range'
  pairs = [(x['first'], x['second']) for x in found['improvement']]
  assert pairs[0] == ('moto', 'no_bc') and len(pairs) == 3
  assert all(x['low'] is None for x in found['improvement'])
  text = paths[-1].read_text()
  assert '95% interval' not in text and '| range of 3 seeds |' in text
  figure = comparison.figure(found)
  title = figure.get_suptitle()
  assert title == '2 tasks that all methods have; bands: range of 2-3 seeds'
  styles = {(x.get_linestyle(), x.get_marker()) for x in figure.axes[1].lines}
  assert len(styles) == 3
  # The names of the lines stand beside their markers, in the first panel.
  left, middle, right = figure.axes
  points = [x for x in left.lines if x.get_markersize() == 8]
  looks = lambda lines: [(x.get_color(), x.get_marker()) for x in lines]
  assert looks(points) == looks(middle.lines)
  pairs = lambda axes: [x.get_text() for x in axes.get_yticklabels()]
  assert len(pairs(right)) == 3
  monkeypatch.setattr(comparison, 'PAIRS', 2)
  shown = pairs(comparison.figure(found).axes[2])
  assert len(shown) == 2 and all(x.startswith('MOTO > ') for x in shown)


def test_comparison_of_many_seeds(tmp_path):
  write_runs(tmp_path, ['door-open', 'hammer'], seeds=6)
  runs = curves.find_runs([tmp_path], methods='moto|no_bc')
  panels = curves.aggregate_all(runs, ['eval/success'])['eval/success']
  found = comparison.compare(panels)
  iqm = found['methods']['moto']['average']
  assert (
    found['average'] == 'iqm'
    and iqm['kind'] == 'bootstrap'
    and iqm['low'] < iqm['value'] < iqm['high']
  )
  (pair,) = found['improvement']
  assert 0.5 < pair['low'] <= pair['value'] <= pair['high'] == 1
  assert 'bands: 95% bootstrap' in comparison.figure(found).get_suptitle()
  assert '| 95% bootstrap interval |' in comparison.table(found)


def panels_of(tmp_path, scores):
  """Panels of scores[task][seed] of one method."""
  for task, values in enumerate(scores):
    for seed, score in enumerate(values):
      path = tmp_path / f'{task}' / 'moto' / f'{seed}'
      write_run(path, [row(1000, eval_success=score)], f'metaworld_{task}')
  runs = curves.find_runs([tmp_path])
  return curves.aggregate_all(runs, ['eval/success'])['eval/success']


# Of three tasks, of which one is not learned, as in the suite `laptop`.
APART = [[1.0, 0.98, 1.0], [0.95, 0.9, 0.97], [0.0, 0.05, 0.02]]


def test_the_average_of_few_seeds_lies_in_their_range(tmp_path):
  """Their interquartile mean does not: a single seed has no quarters."""
  found = comparison.compare(panels_of(tmp_path / 'three', APART))
  moto = found['methods']['moto']
  average = moto['average']
  assert average['low'] <= average['value'] <= average['high']
  pooled = scipy.stats.trim_mean(np.ravel(APART), 0.25)
  assert pooled > average['high'] and found['average'] == 'mean'
  assert 'the mean of final success' in comparison.table(found)
  figure = comparison.figure(found)
  assert figure.axes[0].get_xlabel() == 'mean of final success'
  four = [*APART, [0.5, 0.4, 0.6]]
  found = comparison.compare(panels_of(tmp_path / 'four', four))
  average = found['methods']['moto']['average']
  assert found['average'] == 'iqm'
  assert average['value'] == pytest.approx(
    scipy.stats.trim_mean(np.ravel(four), 0.25)
  )
  each = [scipy.stats.trim_mean(x, 0.25) for x in zip(*four)]
  assert found['methods']['moto']['each'] == pytest.approx(each)
  assert '| method | seeds | IQM |' in comparison.table(found)


def test_nothing_to_compare(tmp_path):
  rows = [row(1000, eval_success=1.0, eval_return=3.0)]
  write_run(tmp_path / 'a' / 'moto' / '0', rows, 'metaworld_a')
  write_run(tmp_path / 'b' / 'no_bc' / '0', rows, 'metaworld_b')
  with pytest.raises(curves.PlotError, match='No task has runs of all of moto'):
    plotting.plot([tmp_path], tmp_path, ['eval/success'], statistics=True)
  with pytest.raises(curves.PlotError, match='by success, such as'):
    plotting.plot([tmp_path], tmp_path, ['eval/return'], statistics=True)
