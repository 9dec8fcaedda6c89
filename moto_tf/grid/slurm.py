"""Files that run a grid as array jobs of Slurm."""

import math
import re
import shlex
from pathlib import Path

from moto_tf import files, memory
from moto_tf.grid import GridError, demonstrations, local, schedule, slots
from moto_tf.grid.spec import Grid

# Gibibytes of libraries, beyond what the settings need.
LIBRARIES = 2
# Seconds before its time is up at which a job saves.
WARNING = 180

DEMOS = """\
#!/bin/bash
#SBATCH --job-name={name}-demonstrations
#SBATCH --cpus-per-task={cores}
#SBATCH --output={output}/slurm-%x-%j.txt
{exports}
set -e
{lines}
"""

# A run that is out of time has saved, and is queued again. One that fails is
# tried once more, from its checkpoint.
RUNS = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=1-{count}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cores}
#SBATCH --mem={memory}G
{gpus}#SBATCH --output={output}/slurm-%x-%a.txt
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{warning}
{exports}
line=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {runs})
asked=
trap 'asked=1; kill -TERM "$pid"' TERM
for attempt in 1 2; do
  eval "exec $line" &
  pid=$!
  wait "$pid"
  code=$?
  # A signal ends the waiting, not the run, which saves.
  while [ -n "$asked" ] && kill -0 "$pid" 2> /dev/null; do
    wait "$pid"
    code=$?
  done
  [ -n "$asked" ] && break
  [ "$code" -eq 0 ] && break
done
if [ -n "$asked" ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""

SUBMIT = """\
#!/bin/bash
# Options are given to the array job, such as --time=24:00:00 --partition=long.
set -e
first=$(sbatch --parsable {demos})
sbatch --dependency=afterok:"$first" "$@" {runs}
"""


def write(grid: Grid, directory: Path, cores: int) -> str:
  """Writes the files; nothing is started.

  Args:
    grid: of the runs.
    directory: of the files; it and the grid's are the same on all machines.
    cores: of each run.

  Returns:
    What to do with them.

  Raises:
    GridError: demonstrations are missing and cannot be recorded, a directory
      has a run of other settings, or a run wants a part of a GPU.
    FileError: the directory cannot be written.
  """
  if grid.gpus % 1:
    raise GridError(
      f'Slurm gives whole GPUs only; the suite says gpus: {grid.gpus:g}.'
    )
  schedule.look(grid)  # Before anything is written.
  directory = directory.absolute()
  output = grid.root.absolute() / 'output'
  with files.writing(output):
    output.mkdir(parents=True, exist_ok=True)
  python = 'python'
  runs = [shlex.join(local.command(x, python)) for x in grid.runs]
  common = {
    'name': re.sub(r'[^\w-]', '_', grid.name),
    'cores': cores,
    'output': output,
    'exports': _exports(cores),
  }
  need = max(sum(memory.estimate(x.config).values()) for x in grid.runs)
  gpus = f'#SBATCH --gpus-per-task={grid.gpus:g}\n' if grid.gpus else ''
  demos = directory / 'demonstrations.sh'
  content = {
    directory / 'runs.txt': '\n'.join(runs) + '\n',
    directory / 'runs.sh': RUNS.format(
      count=len(runs),
      memory=math.ceil(need / memory.GIB) + LIBRARIES,
      gpus=gpus,
      warning=WARNING,
      runs=shlex.quote(str(directory / 'runs.txt')),
      **common,
    ),
    demos: DEMOS.format(lines='\n'.join(_collect(grid, cores)), **common),
    directory / 'submit.sh': SUBMIT.format(
      demos=shlex.quote(str(demos)),
      runs=shlex.quote(str(directory / 'runs.sh')),
    ),
  }
  for path, text in content.items():
    files.write_atomic(path, text.encode())
  return (
    f'Wrote {", ".join(x.name for x in content)} for {len(runs)} runs to '
    f'{directory}. Look at them, activate the environment of moto_tf, and run: '
    f'bash {directory / "submit.sh"} --time=24:00:00'
  )


def _exports(cores):
  values = {**slots.threads(cores), 'MUJOCO_GL': '${MUJOCO_GL:-egl}'}
  lines = [f'export {name}={value}' for name, value in values.items()]
  home = shlex.quote(str(local.HOME))
  lines.append(f'export PYTHONPATH={home}${{PYTHONPATH:+:$PYTHONPATH}}')
  return '\n'.join(lines)


def _collect(grid, cores):
  """Commands that record what is missing, one per task."""
  plugins = grid.runs[0].config.plugins
  lines = []
  for state in demonstrations.look(grid):
    made = state.recording
    if made is None:
      continue
    words = ['python', '-m', 'moto_tf', 'collect', '--task', state.task]
    words += ['--outdir', str(state.directory.absolute())]
    words += ['--episodes', str(state.want), '--seed', str(made.seed)]
    words += ['--noise', str(made.noise), '--workers', str(cores)]
    words += [f'--order={made.order}'] if made.order else []
    words += [f'--plugins={plugins}'] if plugins else []
    words += [f'--env.{key}={value}' for key, value in made.env.items()]
    lines.append(shlex.join(words))
  return lines or ['echo "There is nothing to record."']
