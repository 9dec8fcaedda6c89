"""Statistics over seeds and tasks, as in Agarwal et al., "Deep Reinforcement
Learning at the Edge of the Statistical Precipice", NeurIPS 2021.

Scores are a list of arrays, one [S] per task with a value per seed. An interval
of 95 % needs seeds: a bootstrap over three of them covers some 75 %. So below
FEW seeds the band is their range, and is called that.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

FEW = 5
LEVEL = 0.95
SAMPLES = 2000
NEAR = 0.95  # Of the longest: budgets that are taken for equal.

Statistic = Callable[[np.ndarray], np.ndarray]


def interquartile_mean(values: np.ndarray) -> np.ndarray:
  """Mean of the middle half of values [..., N], a quarter cut at each end."""
  ordered = np.sort(np.asarray(values, float), -1)
  count = ordered.shape[-1]
  cut = count // 4
  return ordered[..., cut : count - cut].mean(-1)


def running_mean(y: np.ndarray, count: int) -> np.ndarray:
  """Mean of every value [N] and up to count - 1 before it."""
  return np.array(
    [y[max(0, i - count + 1) : i + 1].mean() for i in range(len(y))]
  )


def profile(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """Performance profile [..., K]: share of values [..., N] above thresholds."""
  above = np.asarray(values)[..., None, :] > np.asarray(thresholds)[:, None]
  return above.mean(-1)


def improvement(
  first: Sequence[np.ndarray], second: Sequence[np.ndarray]
) -> float:
  """Probability that a run of the first is better, the mean over tasks.

  Of equal scores half counts, as in the statistic of Mann and Whitney.
  """
  shares = []
  for x, y in zip(first, second, strict=True):
    difference = np.subtract.outer(x, y)
    shares.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
  return float(np.mean(shares))


def resample(
  scores: Sequence[np.ndarray],
  samples: int = SAMPLES,
  rng: np.random.Generator | None = None,
) -> list[np.ndarray]:
  """Stratified bootstrap: for each task [samples, S], its own seeds drawn."""
  rng = rng or np.random.default_rng(0)
  return [
    np.asarray(x)[rng.integers(0, len(x), (samples, len(x)))] for x in scores
  ]


def band(
  scores: Sequence[Mapping[int, float]],
  statistic: Statistic,
  samples: int = SAMPLES,
) -> tuple[np.ndarray | None, np.ndarray | None, str | None]:
  """Band around a statistic over all tasks and seeds.

  Args:
    scores: of each task, by seed.
    statistic: from values [..., N] of all runs to [..., K] or [...].
    samples: of the bootstrap.

  Returns:
    Low, high and kind: below FEW seeds of a task the 'range' of the statistic
    over the tasks of each seed that all of them have, else the percentiles of
    the stratified 'bootstrap'. None below two such seeds.
  """
  if min(map(len, scores)) < FEW:
    each = of_each_seed(scores)
    if len(each) < 2:
      return None, None, None
    each = statistic(each)
    return each.min(0), each.max(0), 'range'
  scores = [np.array([*x.values()]) for x in scores]
  drawn = statistic(np.concatenate(resample(scores, samples), -1))
  return *percentiles(drawn), 'bootstrap'


def of_each_seed(scores: Sequence[Mapping[int, float]]) -> np.ndarray:
  """Scores [S, N] of the S seeds that all N tasks have."""
  seeds = sorted(set.intersection(*(set(x) for x in scores)))
  values = [[x[seed] for x in scores] for seed in seeds]
  return np.array(values, float).reshape(len(seeds), len(scores))


def improvement_interval(
  first: Sequence[np.ndarray],
  second: Sequence[np.ndarray],
  samples: int = SAMPLES,
) -> tuple[float | None, float | None]:
  """95 % of the bootstrap of `improvement`; None below FEW seeds."""
  if min(map(len, [*first, *second])) < FEW:
    return None, None
  rng = np.random.default_rng(0)
  x, y = resample(first, samples, rng), resample(second, samples, rng)
  values = [
    improvement([a[i] for a in x], [b[i] for b in y]) for i in range(samples)
  ]
  low, high = percentiles(np.array(values))
  return float(low), float(high)


def percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Ends of the central 95 % of draws [B, ...]."""
  tail = 50 * (1 - LEVEL)
  return tuple(np.percentile(drawn, (tail, 100 - tail), 0))


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """95 % interval of Student's t around the mean of values [S, ...], S > 1."""
  values = np.asarray(values, float)
  count = len(values)
  error = values.std(0, ddof=1) / math.sqrt(count)
  width = t_quantile((1 + LEVEL) / 2, count - 1) * error
  return values.mean(0) - width, values.mean(0) + width


def t_quantile(share: float, freedom: int) -> float:
  """The t, at least 0, below which a share >= 0.5 of Student's t lies.

  By bisection. With t = sqrt(freedom) tan(a) the density becomes a power of
  cos(a), which is summed by Simpson's rule.
  """
  scale = math.exp(
    math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
  ) / math.sqrt(math.pi)
  weights = np.ones(401)
  weights[1:-1:2], weights[2:-1:2] = 4, 2
  low, high = 0.0, math.pi / 2
  for _ in range(60):
    middle = (low + high) / 2
    heights = np.cos(np.linspace(0, middle, 401)) ** (freedom - 1)
    below = 0.5 + scale * middle / 1200 * float(weights @ heights)
    low, high = (middle, high) if below < share else (low, middle)
  return math.sqrt(freedom) * math.tan(low)


def unequal_budgets(panels: Mapping, unit: str) -> list[str]:
  """A sentence per task on which methods ended far apart.

  Args:
    panels: summaries of `curves.aggregate` as panels[task][method].
    unit: of their axis, in the plural.
  """
  said = []
  for task, panel in panels.items():
    ends = {method: found['grid'][-1] for method, found in panel.items()}
    if min(ends.values()) < NEAR * max(ends.values()):
      each = ', '.join(f'{k} {v:,.0f}' for k, v in ends.items())
      said.append(
        f'On {task} the final values are after unequal {unit}: {each}.'
      )
  return said


def shared_scores(
  panels: Mapping, methods: Sequence[str]
) -> tuple[list[str], dict[str, list[dict[int, float]]]]:
  """Tasks that all methods have, and final scores by method and task.

  Args:
    panels: summaries of `curves.aggregate` as panels[task][method].
    methods: to compare.

  Returns:
    Names of tasks, and by method the scores of each task, by seed.
  """
  tasks = [x for x, panel in panels.items() if {*methods} <= panel.keys()]
  final = lambda x: dict(zip(x['seeds'], x['final']['values'], strict=True))
  scores = {
    method: [final(panels[task][method]) for task in tasks]
    for method in methods
  }
  return tasks, scores
