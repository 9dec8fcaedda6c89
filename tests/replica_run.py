"""A short run of two replicas, of one process or of several.

  python tests/replica_run.py DIRECTORY [PID_FILE]

With TF_CONFIG in two processes, without it on two CPU devices of one. The
environment, which only the chief has, kills the process that the file names at
the start of the second online episode.
"""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import golden_runs  # noqa: E402

import moto_tf  # noqa: E402

SETTINGS = {
  'replicas': 2,
  'offline_steps': 6,
  'online_steps': 6,
  'updates_per_episode': 3,
  'eval_every': 6,
  'checkpoint_every': 4,
  'encoder.cnn_keys': '$^',
}


def main():
  directory, *kill = map(Path, sys.argv[1:])
  config = golden_runs.make_config(
    'bc', directory / 'bc/0', directory / 'demos'
  )
  config = config.update(SETTINGS)
  chief = '"index": 0' in os.environ.get('TF_CONFIG', '"index": 0')
  if chief and not (directory / 'demos').exists():
    golden_runs.write_demos(directory / 'demos', config)
  if 'TF_CONFIG' not in os.environ:
    from replica_cases import two_devices

    two_devices()
  episodes = []

  class Deadly(golden_runs.Reach):
    def reset(self, seed=None, options=None):
      # Those of evaluation have smaller seeds.
      episodes.extend([seed] if seed >= 2_000_000 else [])
      if kill and len(set(episodes)) == 2:
        os.kill(int(kill.pop().read_text()), signal.SIGKILL)
      return super().reset(seed=seed, options=options)

  def make_env():
    from moto_tf.envs.gym import wrap_gym

    return wrap_gym(Deadly(), config.env)

  with moto_tf.explain_errors():
    moto_tf.train(config, make_env)


if __name__ == '__main__':
  main()
