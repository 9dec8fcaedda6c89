"""Tables that show the numbers of datasets side by side."""

from collections.abc import Mapping

import numpy as np


def compare(infos: Mapping, paper: Mapping[str, tuple] | None = None) -> str:
  """Table of datasets, one row each.

  First is the mean agent step of the first success. Attempts that were dropped
  are known from dataset.json only.

  Args:
    infos: data.inspect.Info by the name to show.
    paper: mean return and success rate of a paper's data by the same names;
      None: there is none to compare with.
  """
  titles = f'{"transitions":>12}{"return":>8}{"success":>8}{"first":>8}'
  lines = [f'{"task":<14} {"episodes":<12}|{titles}']
  if paper:
    lines = [f'{"":<27}|{" ours ":-^36}|{" paper ":-^16}', lines[0]]
    lines[1] += f'|{"return":>8}{"success":>8}'
  for name, info in infos.items():
    first = info.first[info.successes]
    kept = f'{len(info.lengths)} of {info.tries}'
    line = (
      f'{name:<14} {kept:<12}|{info.lengths.sum():>12}{cell(info.returns, 1)}'
      f'{cell(info.successes, 2)}{cell(first, 1)}'
    )
    if paper:
      total, rate = paper.get(name, ((), ()))
      line += f'|{cell(total, 1)}{cell(rate, 2)}'
    lines.append(line)
  return '\n'.join(lines)


def cell(values: np.ndarray, digits: int) -> str:
  """Mean of values in eight columns, a dash without any."""
  return f'{np.mean(values):>8.{digits}f}' if np.size(values) else f'{"-":>8}'
