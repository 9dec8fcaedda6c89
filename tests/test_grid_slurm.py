"""A grid as array jobs of Slurm: what is written, and what a job does."""

import os
import shlex
import subprocess

import pytest
from grid_helpers import TEXT, finish, grid_of, write
from waiting import until

from moto_tf.commands import settings
from moto_tf.commands import suite as command
from moto_tf.grid import GridError, slurm, spec


@pytest.mark.parametrize(
  'words', [['--dry-run'], ['--processes', '2'], ['--ray']]
)
def test_slurm_starts_nothing_that_other_options_are_of(
  tmp_path, words, capsys
):
  file, jobs = str(write(tmp_path)), str(tmp_path / 'jobs')
  with pytest.raises(SystemExit):
    command.main([file, '--slurm', jobs, *words])
  assert f'leave out {words[0]}' in capsys.readouterr().err
  assert not (tmp_path / 'jobs').exists()


def test_ray_starts_as_many_as_there_is_room_for(tmp_path, capsys):
  with pytest.raises(SystemExit):
    command.main([str(write(tmp_path)), '--processes', '2', '--ray'])
  assert 'leave out --processes' in capsys.readouterr().err


def test_slurm_refuses_runs_of_other_settings(tmp_path):
  grid = grid_of(tmp_path)
  finish(grid.runs[0])
  other = spec.load(write(tmp_path), tmp_path / 'runs', [{'horizon': 5}])
  with pytest.raises(GridError, match='has other settings than the suite'):
    slurm.write(other, tmp_path / 'jobs', 1)
  assert not (tmp_path / 'jobs').exists()


def test_slurm_gives_whole_gpus(tmp_path):
  grid = spec.load(write(tmp_path, TEXT + 'gpus: 0.5\n'), tmp_path / 'runs')
  with pytest.raises(GridError, match='whole GPUs only; .* gpus: 0.5'):
    slurm.write(grid, tmp_path / 'jobs', 1)
  assert not (tmp_path / 'jobs').exists()


def test_slurm(tmp_path):
  text = TEXT.replace('gym_Pendulum-v1', 'metaworld_hammer')
  text = text.replace('[gym,', '[metaworld,') + 'gpus: 1\ncores: 3\n'
  grid = spec.load(write(tmp_path, text), tmp_path / 'a b')
  out = tmp_path / 'jobs of mine'
  message = slurm.write(grid, out, 3)
  assert f'bash {out}/submit.sh --time' in message and '6 runs' in message
  for name in ('runs.sh', 'demonstrations.sh', 'submit.sh'):
    subprocess.run(['bash', '-n', str(out / name)], check=True)
  lines = (out / 'runs.txt').read_text().splitlines()
  assert shlex.split(lines[4])[:4] == ['python', '-m', 'moto_tf', 'train']
  for run, line in zip(grid.runs, lines, strict=True):
    assert settings.parse(shlex.split(line)[4:]).flat == run.config.flat
  script = (out / 'runs.sh').read_text()
  # Without a number of tasks, Slurm refuses GPUs per task.
  wanted = ('--array=1-6', '--ntasks=1', '--cpus-per-task=3')
  for text in (*wanted, '--gpus-per-task=1'):
    assert f'#SBATCH {text}\n' in script
  # One who renders by software says so.
  assert 'export MUJOCO_GL=${MUJOCO_GL:-egl}\n' in script
  words = shlex.split((out / 'demonstrations.sh').read_text().splitlines()[-1])
  assert (
    words[:6] == 'python -m moto_tf collect --task metaworld_hammer'.split()
  )
  assert str(tmp_path / 'a b/metaworld_hammer/demos') in words
  # What Slurm does: one line of the file, again if it fails, and a signal.
  bin_dir = tmp_path / 'bin'
  bin_dir.mkdir()
  fakes = {
    'python': 'echo "$@" >> $LOG\n'
    'trap "sleep 0.3; echo saved >> $LOG; exit 143" TERM\n'
    'if [ -n "$SLOW" ]; then touch $LOG.up; while :; do sleep 0.05; done; fi\n'
    'exit 3',
    'scontrol': 'echo "scontrol $@" >> $LOG',
  }
  for name, code in fakes.items():
    (bin_dir / name).write_text(f'#!/bin/bash\n{code}\n')
    (bin_dir / name).chmod(0o755)
  log = tmp_path / 'log'
  env = {**os.environ, 'PATH': f'{bin_dir}:{os.environ["PATH"]}'}
  env |= {
    'LOG': str(log),
    'SLURM_ARRAY_TASK_ID': '5',
    'SLURM_ARRAY_JOB_ID': '9',
  }
  job = ['bash', str(out / 'runs.sh')]
  assert subprocess.run(job, env=env).returncode == 3
  expected = shlex.join(shlex.split(lines[4])[1:])
  assert [shlex.join(shlex.split(x)) for x in log.read_text().splitlines()] == [
    shlex.join(expected.replace("'", '').split())
  ] * 2
  log.unlink()
  process = subprocess.Popen(job, env={**env, 'SLOW': '1'})
  until((tmp_path / 'log.up').exists)
  process.terminate()
  assert process.wait(timeout=60) == 143
  # It is waited for until it has saved.
  assert log.read_text().splitlines()[1:] == ['saved', 'scontrol requeue 9_5']
