"""Short runs whose every number is on file, made before a change of the code.

  python tests/golden_runs.py OUTDIR [CASE ...]

writes OUTDIR/<case>.json for each of CASES, or for those named: 20 offline and
30 online gradient steps with all metrics, and a digest of every array of the
final checkpoint.
It uses nothing but the public names of moto_tf, so that the same file runs in
older and newer versions.
"""

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import gymnasium
import numpy as np

import moto_tf
from moto_tf.training import machine

SIZE = 16
# As small as the others, with buffers that wrap.
LATENT = {
  r'(reward_head|actor|critic)\.layers': [16],
  'rssm.deter': 16,
  'rssm.hidden': 16,
  'rssm.stoch': 4,
  'latent.batch': 16,
  'latent.capacity': 100,
  'latent.add_every': 5,
}
CASES = {
  'moto': ('moto', {}),
  'dreamerv2': ('dreamerv2', {}),
  'no_unc': ('no_unc', {}),
  'no_bc': ('no_bc', {}),
  'no_bc_no_unc': ('no_bc_no_unc', {}),
  # The branches that the others leave out.
  'moto_discount': (
    'moto',
    {
      'pred_discount': True,
      '.*penalty': 'logit_std',
      '.*start_states': 0,
      r'.+\.norm': 'layer',
      'replay.offline_share': 0.5,
    },
  ),
  'dreamerv2_paper': ('dreamerv2_paper', {}),
  'lompo': ('lompo', LATENT),
  'combo': ('combo', LATENT),
  'dreamerv2_discount': ('dreamerv2', {'pred_discount': True}),
  'bc': ('bc', {}),
  'sac': ('sac', {}),
  'cql': ('cql', {}),
  'iql': ('iql', {}),
}
# Those without a world model, and what they need instead of its settings.
MODEL_FREE = 'bc', 'sac', 'cql', 'iql'
SMALL = {'replay.batch': 8, 'model_free.channels': [4, 4], '.*_keys': '.+'}


class Reach(gymnasium.Env):
  """A square that moves along a line to a goal, as a vector and an image."""

  observation_space = gymnasium.spaces.Dict(
    {
      'state': gymnasium.spaces.Box(-2, 2, (2,), np.float32),
      'image': gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
    }
  )
  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    self._state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
    self._steps = 0
    return self._observe(), {}

  def step(self, action):
    self._steps += 1
    self._state[0] = np.clip(self._state[0] + 0.4 * action[0], -2, 2)
    near = abs(self._state[0] - self._state[1]) < 0.2
    done = bool(near) and self._steps > 5
    last = self._steps >= 8
    return self._observe(), float(near), done, last, {'success': bool(near)}

  def _observe(self):
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    for channel, place in enumerate(self._state):
      left = int((place + 2) / 4 * (SIZE - 4))
      image[6:10, left : left + 4, channel] = 255
    return {'state': self._state.copy(), 'image': image}


def make_config(case: str, logdir: Path, demos: Path):
  """Settings of a case; keys of it that were renamed are given as patterns."""
  method, overrides = CASES[case]
  presets = ['gym', 'debug', *([method] if method != 'moto' else [])]
  model = {
    'report_every': 25,
    'pred_discount': False,
    r'(en|de)coder\.mlp_keys': 'state',
    r'encoder\.cnn_kernels': [4, 4],
    r'decoder\.cnn_kernels': [5, 8],
  }
  # Which all of them had when the golden files were written.
  added = {'actor.sample_grad': 'exact'}
  if method in ('lompo', 'combo'):
    added = {}  # On which it has no effect.
  known = moto_tf.make_config(*presets).actor
  model_based = method not in MODEL_FREE
  return moto_tf.make_config(
    *presets,
    {
      'task': 'custom_reach',
      'logdir': str(logdir),
      'offline_data': str(demos),
      'precision': 'float32',
      'eager': False,
      'env_workers': 'none',
      'envs': 1,
      'offline_steps': 20,
      'online_steps': 30,
      'updates_per_episode': 5,
      'prefill_episodes': 0,
      'log_every': 1,
      'eval_every': 25,
      'eval_episodes': 2,
      'checkpoint_every': 25,
      'env.image_size': SIZE,
      r'.+_opt\.lr': 1e-3,
      **(model if model_based else SMALL),
      **(added if model_based and 'sample_grad' in known else {}),
      **overrides,
    },
  )


def write_demos(directory: Path, config) -> None:
  """Six episodes, four of which go to the goal."""
  from moto_tf.data.episodes import save_episode
  from moto_tf.envs.gym import wrap_gym

  env = wrap_gym(Reach(), config.env)
  for number in range(6):
    rng = np.random.default_rng(number)
    records = [{**env.reset(number), 'action': np.zeros(1, np.float32)}]
    while not records[-1]['is_last']:
      place, goal = records[-1]['state']
      action = 2 * (goal - place) if number % 3 else 0.0
      action = np.clip([action + rng.normal(0, 0.2)], -1, 1).astype(np.float32)
      records.append({**env.step(action), 'action': action})
    episode = {k: np.stack([r[k] for r in records]) for k in records[0]}
    save_episode(directory, f'{number:06d}', episode)


def run_case(case: str, directory: Path) -> dict:
  """Trains a case in a directory and returns what is compared."""
  from moto_tf.envs.gym import wrap_gym

  logdir, demos = directory / case / '0', directory / 'demos'
  config = make_config(case, logdir, demos)
  if not demos.exists():
    write_demos(demos, config)
  make_env = lambda: wrap_gym(Reach(), config.env)
  with moto_tf.Run(config, make_env=make_env) as run:
    run.prefill()
    for _ in run.offline_steps():
      run.update(run.sample())
    for episode in run.online_episodes():
      run.collect_episode(episode)
      for _ in run.updates(episode):
        run.update(run.sample())
    weights = run.agent.save()
  lines = (logdir / 'metrics.jsonl').read_text().splitlines()
  groups = ('train/', 'episode/', 'eval/', 'report/', 'replay/')
  counters = ('gradient_step', 'agent_step', 'env_step', 'episode', 'phase')
  rows = [
    {k: v for k, v in row.items() if k.startswith(groups) or k in counters}
    for row in map(json.loads, lines)
  ]
  return {'rows': rows, 'weights': {k: describe(weights[k]) for k in weights}}


def describe(array: np.ndarray) -> dict:
  """Digest of an array, and numbers to compare where the digest differs."""
  flat = np.ascontiguousarray(array).ravel()
  text = f'{array.dtype} {array.shape}'.encode()
  values = flat.astype(np.float64)
  return {
    'sha256': hashlib.sha256(text + flat.tobytes()).hexdigest()[:16],
    'norm': float(np.linalg.norm(values)),
    'first': [float(f'{x:.7g}') for x in values[:2]],
  }


def fingerprint() -> dict:
  """What decides the order of floating point operations."""
  import tensorflow as tf

  info = Path('/proc/cpuinfo')
  text = info.read_text() if info.exists() else ''
  lines = [
    x for x in text.splitlines() if x.startswith(('model name', 'flags'))
  ]
  return {
    'tensorflow': tf.__version__,
    'numpy': np.__version__,
    'machine': platform.machine(),
    'cores': len(machine.cores()),
    'processor': hashlib.sha256('\n'.join(lines[:2]).encode()).hexdigest()[:16],
  }


def main() -> None:
  outdir, *cases = Path(sys.argv[1]), *sys.argv[2:]
  outdir.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as directory:
    for case in cases or CASES:
      result = run_case(case, Path(directory))
      lines = ',\n'.join(f'  {json.dumps(row)}' for row in result['rows'])
      arrays = ',\n'.join(
        f'  {json.dumps(k)}: {json.dumps(v)}'
        for k, v in result['weights'].items()
      )
      (outdir / f'{case}.json').write_text(
        f'{{"fingerprint": {json.dumps(fingerprint())},\n"rows": [\n{lines}\n'
        f'],\n"weights": {{\n{arrays}\n}}}}\n'
      )
      print(f'Wrote {outdir / case}.json.')


if __name__ == '__main__':
  main()
