"""Exports a trained policy: all formats, the runner, a card, and a check."""

import os
import shutil
from pathlib import Path

from moto_tf import files, rules
from moto_tf.deploy.protocol import DeployError

RUNNER = 'moto_policy.py'
CARD = 'card.json'
SEED = 1  # Of the check; 0 would hide how the runner counts it.


def export_policy(
  logdir: Path | str,
  outdir: Path | str,
  checkpoint: Path | str | None = None,
  data: Path | str | None = None,
  eval_action: str | None = None,
) -> dict:
  """Writes a policy for devices without TensorFlow, and checks what it wrote.

  Args:
    logdir: of the run.
    outdir: created; may be there if it is empty.
    checkpoint: file; by default the newest.
    data: directory of episodes to check the policy on; by default those of
      the run.
    eval_action: mean or mode; by default what the run evaluates by.

  Returns:
    The card, which is in card.json too.

  Raises:
    DeployError: the policy cannot be exported, or a format does not act as
      load_policy does; then all files are in `<outdir>.failed`.
    FileError: `outdir` is not empty, or cannot be written.
    CheckpointError: there is none, it is damaged, or of another run.
  """
  # Of '.' there is no name to put another beside.
  logdir, outdir = rules.expand(logdir), rules.expand(outdir).absolute()
  data = rules.expand(data) if data else None
  failed = outdir.with_name(f'{outdir.name}.failed')
  _check_free(outdir, failed)
  # After what needs no TensorFlow.
  from moto_tf.policy import load_agent

  # What a float16 or bfloat16 computes, LiteRT does not.
  settings = {'precision': 'float32'}
  settings |= {'eval_action': eval_action} if eval_action else {}
  agent, config, meta = load_agent(logdir, checkpoint, settings=settings)
  with files.appearing(outdir) as directory:
    card = _write(directory, logdir, agent, config, meta, data)
    wrong = [k for k, v in card['check']['formats'].items() if not v['passed']]
    if wrong:
      os.replace(directory, failed)
  if wrong:
    raise DeployError(
      f'The self-check failed: {", ".join(wrong)} of {outdir} did not act as '
      f'load_policy does. Nothing is in {outdir}; all files are in {failed}, '
      f'and CARD.md there says by how much they differ.'
    )
  return card


def _write(directory, logdir, agent, config, meta, data):
  """Writes everything into a directory, and returns the card."""
  from moto_tf.deploy import card, check, formats, runner
  from moto_tf.policy import Policy

  sequences, source = check.find_observations(logdir, config, agent, data)
  interface = formats.write(agent, directory)
  shutil.copyfile(runner.__file__, directory / RUNNER)
  content = card.make(logdir, config, meta, interface)
  files.write_json(directory / CARD, content)
  runs = {'saved_model': formats.load_saved_model(directory / 'saved_model')}
  for name, file in runner.FILES.items():
    runs[name], interpreter = formats.load_litert(directory / file)
  runners = {
    name: runner.ExportedPolicy(directory, seed=SEED, run=run)
    for name, run in runs.items()
  }
  content['bytes'] = card.sizes(directory)
  content['check'] = {
    'observations': source,
    'interpreter': interpreter,
    'formats': check.compare(Policy(agent, seed=SEED), runners, sequences),
  }
  files.write_json(directory / CARD, content)
  files.write_atomic(directory / 'CARD.md', card.text(content).encode())
  return content


def _check_free(outdir, failed):
  """Raises FileError where something is in the way of the files."""
  with files.writing(outdir):
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
      raise files.FileError(
        f'{outdir} is there and not empty; give another --out, or move it away.'
      )
    if failed.exists():
      raise files.FileError(
        f'{failed} is there, of an export whose check failed; look at its '
        'CARD.md, then move it away.'
      )
