"""Runs studies of a trained agent, and writes their numbers and figures."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from moto_tf import files, policy, rules
from moto_tf.bounded import read_json
from moto_tf.registry import resolve
from moto_tf.results.plotting import save_figure
from moto_tf.studies import STUDIES, StudyError, StudySkipped
from moto_tf.studies.context import Context


def diagnose(
  logdir: Path | str,
  studies: Iterable[str] | None = None,
  episodes: int = 20,
  envs: int = 2,
  checkpoint: Path | str | None = None,
  data: Path | str | None = None,
  outdir: Path | str | None = None,
  make_env: Callable | None = None,
  force: bool = False,
) -> Path:
  """Measures, prints, and writes diagnosis.json and figures.

  A study that does not fit the run says so in a line and is left out.

  Args:
    logdir: of the run.
    studies: names of STUDIES; None for all.
    episodes: rolled out, where a study needs them.
    envs: environments at the same time.
    checkpoint: file; by default the newest.
    data: directory of recorded episodes; by default the run's offline_data.
    outdir: by default LOGDIR/diagnosis.
    make_env: makes one environment; by default that of the run's task.
    force: replaces a diagnosis of another checkpoint.

  Raises:
    FileError: there is one, or none can be written; this is found before
      anything is rolled out.
    RegistryError: there is no such study.
    StudyError: no study fits, or the data cannot be used.

  Returns:
    The directory that holds the results.
  """
  named = {k: STUDIES[k] for k in (STUDIES if studies is None else studies)}
  chosen = {k: study for k, study in STUDIES.items() if k in named}
  logdir = rules.expand(logdir)
  outdir = rules.expand(outdir) if outdir else logdir / 'diagnosis'
  agent, config, meta = policy.load_agent(logdir, checkpoint, False)
  same = _facts(logdir, meta)
  files.reserve(
    outdir / 'diagnosis.json', force or _is_of(outdir / 'diagnosis.json', same)
  )
  given = Path(data) if data else None
  context = Context(
    agent, config, meta, logdir, episodes, envs, given, make_env
  )
  # Before the rollouts take their time: data that is not there.
  missing = {k: context.missing(study.needs) for k, study in chosen.items()}
  results = {}
  for name in sorted(chosen, key=lambda k: 'rollouts' in chosen[k].needs):
    study = chosen[name]
    try:
      if missing[name]:
        raise StudySkipped(missing[name])
      results[name] = result = resolve(study.run)(context)
    except StudySkipped as reason:
      what = f'{study.figure}.png' if study.figure else name
      print(f'No {what}: {str(reason).rstrip(".")}.')
      continue
    if result.text:
      print(result.text)
    _check_finite(name, result.numbers)
  if not results:
    raise StudyError(f'No study fits {logdir}; the lines above say why.')
  data = vars(context).get('data')  # None, too, where no study looked at it.
  numbers = {
    'task': config.task,
    **same,
    'data': str(data) if data else None,
    **{k: results[k].numbers if k in results else None for k in chosen},
  }
  print(f'Numbers: {files.write_json(outdir / "diagnosis.json", numbers)}')
  for result in results.values():
    for name, figure in result.figures.items():
      print(f'Figure: {save_figure(figure, outdir / f"{name}.png")}')
  return outdir


def _facts(logdir, meta):
  """What tells the checkpoint of a diagnosis from others."""
  return {
    'logdir': str(logdir),
    'checkpoint': meta.get('checkpoint'),
    **meta['counters'],
  }


def _is_of(path, facts):
  """Whether a file is a diagnosis of the same checkpoint."""
  try:
    content = read_json(path)
    return all(content.get(key) == value for key, value in facts.items())
  except (AttributeError, OSError, ValueError):
    return False


def _check_finite(name, numbers):
  """Raises a StudyError where the agent's numbers are none."""
  try:
    json.dumps(numbers, allow_nan=False)
  except ValueError as error:
    raise StudyError(
      f'The study {name!r} found numbers that are nan or infinite: the agent '
      'has diverged. Choose an earlier file by --checkpoint, or other studies '
      'by --studies.'
    ) from error
