"""Statistics of features, as LeRobot normalises by them."""

import numpy as np

QUANTILES = {'q01': 0.01, 'q10': 0.1, 'q50': 0.5, 'q90': 0.9, 'q99': 0.99}
LEVELS = np.arange(256) / 255  # Of images, as LeRobot has them.


class Statistics:
  """Smallest, largest, mean, deviation, quantiles and count by feature."""

  def __init__(self):
    self._found = {}

  def add(self, values: dict[str, np.ndarray]) -> dict[str, dict]:
    """Takes the arrays [T, ...] of an episode; returns its own statistics."""
    result = {}
    for name, value in values.items():
      part = _Pixels(value) if value.ndim == 4 else _Numbers(value)
      before = self._found.get(name)
      self._found[name] = before.joined(part) if before else part
      result[name] = part.summary()
    return result

  def total(self) -> dict[str, dict]:
    """Those of all episodes, plain values."""
    return {name: part.summary() for name, part in self._found.items()}


class _Numbers:
  """Vectors, kept as they are."""

  def __init__(self, value, parts=()):
    self._parts = parts or (value.reshape(len(value), -1).astype(np.float32),)

  def joined(self, other):
    return _Numbers(None, (*self._parts, *other._parts))

  def summary(self):
    value = np.concatenate(self._parts).astype(np.float64)
    return {
      'min': value.min(0).tolist(),
      'max': value.max(0).tolist(),
      'mean': value.mean(0).tolist(),
      'std': value.std(0).tolist(),
      'count': [len(value)],
      **{k: np.quantile(value, q, 0).tolist() for k, q in QUANTILES.items()},
    }


class _Pixels:
  """Images, of which is kept how often each colour has each level."""

  def __init__(self, value, frames=0):
    if frames:
      self._counts, self._frames = value, frames
      return
    channels = np.moveaxis(value, -1, 0).reshape(value.shape[-1], -1)
    counts = [np.bincount(x, minlength=len(LEVELS)) for x in channels]
    self._counts, self._frames = np.stack(counts), len(value)

  def joined(self, other):
    return _Pixels(self._counts + other._counts, self._frames + other._frames)

  def summary(self):
    share = self._counts / self._counts.sum(-1, keepdims=True)
    mean = share @ LEVELS
    seen = self._counts > 0
    found = {
      'min': LEVELS[seen.argmax(-1)],
      'max': LEVELS[::-1][seen[:, ::-1].argmax(-1)],
      'mean': mean,
      'std': np.sqrt((share * (LEVELS - mean[:, None]) ** 2).sum(-1)),
    }
    below = np.cumsum(share, -1)
    for key, q in QUANTILES.items():
      found[key] = LEVELS[(below >= q - 1e-12).argmax(-1)]
    # A number for each colour, shaped as to divide images [C, H, W] by.
    shaped = {k: v.reshape(-1, 1, 1).tolist() for k, v in found.items()}
    return {**shaped, 'count': [self._frames]}
