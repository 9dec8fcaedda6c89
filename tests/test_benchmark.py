"""Traces of known events, tables, and all that is measured on tiny nets."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from helpers import ACT, SPACES, make_agent, tiny_config
from latent_helpers import latent_config
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from moto_tf import make_config
from moto_tf.benchmark import (
  BenchmarkError,
  child,
  data,
  gpu,
  profile,
  report,
  steps,
)
from moto_tf.commands import benchmark as script
from moto_tf.policy import spaces_to_meta
from moto_tf.training import machine

ROOT = Path(__file__).resolve().parent.parent


def make_space(name, events):
  """An XSpace with (name, milliseconds) on the host, or kernels of a GPU."""
  space = xplane_pb2.XSpace()
  plane = space.planes.add(name=name)
  plane.stat_metadata[99].name = 'tf_op'
  line = plane.lines.add()
  for i, (text, ms) in enumerate(events):
    event = line.events.add(metadata_id=i, duration_ps=int(ms * 1e9))
    plane.event_metadata[i].name = text
    if name != '/host:CPU':
      plane.event_metadata[i].name = 'kernel'
      plane.stat_metadata[i].name = text
      event.stats.add(metadata_id=99, ref_value=i)
  return space


@pytest.mark.parametrize('name', ['/host:CPU', '/device:GPU:0'])
def test_profile_adds_up_ops(name):
  events = [
    ('encoder/conv:Conv2D', 2),
    ('gradient_tape/encoder/conv:Conv2D', 4),
    ('heads/MatMul:MatMul', 1),
    (':AddV2', 1),
  ]
  if name == '/host:CPU':
    events += [('EagerLocalExecute: f', 50), ('Kernel::Run', 50), ('step', 50)]
  found = profile.summarise(make_space(name, events), steps=2)
  assert found['sum_of_ops_seconds'] == pytest.approx(4e-3)
  assert found['shares'] == {'encoder': 0.75, 'heads': 0.125, 'other': 0.125}
  assert list(found['op_types'])[0] == 'Conv2D'
  assert found['op_types']['Conv2D'] == {'share': 0.75, 'calls': 1}
  assert not found['remarks']
  # The GPU's events are what was launched, those of the host are not.
  kernels = found.get('kernels_per_step')
  assert kernels == (None if name == '/host:CPU' else 2)


def test_profile_says_what_it_cannot_know():
  compiled = make_space('/host:CPU', [('cluster:XlaLaunch', 5)])
  found = profile.summarise(compiled, steps=1)
  assert found['shares'] == {} and '--jit' in found['remarks'][0]
  empty = profile.summarise(xplane_pb2.XSpace(), steps=1)
  assert 'no ops' in empty['remarks'][0]


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """Results of all that TensorFlow takes part in, on tiny networks."""
  config = tiny_config(eager=False)
  directory = tmp_path_factory.mktemp('episodes')
  data.write_episodes(directory, 3, SPACES, ACT)
  now = time.time()
  return steps.measure(
    lambda text: None,
    {'spawned': now - 2, 'begin': now - 1},
    config.flat,
    spaces_to_meta(SPACES, ACT),
    str(directory),
    ['first', 'step', 'policy'],
    repeats=3,
    tf32=False,
  )


def test_first_step_is_the_sum_of_its_parts(measured):
  first = dict(measured['figures']['first'])
  assert first.pop('traces') == {'model': 1, 'behavior': 1}
  assert 'remarks' not in first
  total, second = first.pop('total_seconds'), first.pop('second_step_seconds')
  assert sum(first.values()) == pytest.approx(total)
  assert first['interpreter_seconds'] == pytest.approx(1)
  assert 0 < second < first['compile_and_run_seconds']


def test_steady_step(measured):
  step = measured['figures']['step']
  assert step['min_seconds'] <= step['median_seconds'] <= step['max_seconds']
  parts = step['train_seconds'] + step['data_wait_seconds']
  assert 0 < parts <= step['max_seconds']
  assert step['repeats'] == 3 and step['cores_busy'] > 0
  replay = tiny_config().replay
  records = step['records_per_second'] * step['median_seconds']
  assert records == pytest.approx(replay.batch * replay.length)
  assert 0.1 < step['peak_memory_gib'] < 100
  scopes = step['scopes'].values()
  assert sum(s.get('gflop', 0) for s in scopes) == pytest.approx(step['gflop'])
  speed = step['gflop'] / step['median_seconds']
  assert step['gflop_per_second'] == pytest.approx(speed)
  assert 0 < step['sum_of_ops_seconds'] and len(step['op_types']) == profile.TOP


def test_policy_and_environment(measured):
  policy = measured['figures']['policy']
  for mode in ('eval', 'train'):
    assert (
      0 < policy[f'{mode}_median_ms'] <= policy[f'{mode}_95th_percentile_ms']
    )
  environment = measured['environment']
  assert environment['precision'] == 'float32' and not environment['jit']
  assert environment['tf32'] is False  # As it was asked for.
  json.dumps(measured)


def test_matrix_products_and_memory():
  assert machine.matmul_gflop_per_second(64, 3) > 0
  largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  assert 0.1 < machine.peak_memory_gib() <= largest + 0.01


def test_replay_on_synthetic_episodes(tmp_path):
  config = tiny_config()
  data.write_episodes(tmp_path, data.DISTINCT + 2, SPACES, ACT)
  figures = data.measure(
    lambda text: None,
    {},
    config.flat,
    spaces_to_meta(SPACES, ACT),
    str(tmp_path),
  )
  assert figures['files'] == figures['episodes_held'] == data.DISTINCT + 2
  assert figures['transitions_held'] == 100 * (data.DISTINCT + 2)
  assert figures['batches_per_second'] > 0


def test_spaces_are_those_that_a_replay_holds():
  """Both images, and nothing that is only logged."""
  config = make_config('kitchen', 'small', **{'env.extra_size': 32})
  spaces, _ = data.task_spaces(config)
  assert {'image', 'image_extra', 'state'} <= spaces.keys()
  assert spaces['image_extra'].shape == (32, 32, 3)
  assert not [key for key in spaces if key.startswith('log_')]


@pytest.mark.parametrize('method', ['moto', 'lompo'])
def test_what_is_measured_is_all_that_learns(method, tmp_path, monkeypatch):
  """Of a run whose first steps train less."""
  from moto_tf.benchmark import steps

  monkeypatch.setattr(steps, 'LAST', 4)
  if method == 'lompo':
    config = latent_config(method, online_steps=9)
  else:
    stages = {'moto__critic_start': 2, 'moto__model_start': 4}
    config = tiny_config(offline_steps=8, online_steps=9, **stages)
  agent = make_agent(config)
  data.write_episodes(tmp_path, 2, SPACES, ACT)
  replay = data.open_replay(config, tmp_path, SPACES, ACT)
  agent.fit(replay.records)
  learner = steps.Learner(agent, config, replay)
  seen = []
  train = agent.train
  agent.train = lambda batch, step: seen.append(train(batch, step))
  learner.step()
  learner.close()
  wanted = {'model_loss', 'actor_loss', 'critic_model_loss'}
  assert wanted <= seen[0].keys()
  # With all demonstrations of a run, however few are synthetic.
  few = config.replace({'replay.offline_episodes': 100})
  assert data.open_replay(few, tmp_path, SPACES, ACT).stats()['episodes'] == 2


def make_result(**figures):
  run = {
    'overrides': {'seed': 3},
    'settings': {'seed': 3},
    'environment': {'precision': 'float32', 'gpus': []},
    'figures': figures,
  }
  return {
    'format': 1,
    'date': '2025-01-31',
    'machine': {
      'processor': 'chip',
      'cores': 2,
      'system': 'Linux',
      'versions': {'python': '3.12'},
    },
    'runs': {'metaworld': run},
  }


def test_tables():
  text = report.tables(
    make_result(
      step={
        'median_seconds': 1.23456,
        'gflop': 1234.5,
        'repeats': 10,
        'scopes': {'encoder': {'share': 0.25}, 'other': {'gflop': 2.0}},
        'remarks': ['No ops.'],
      },
      simulator={'remarks': ['No OpenGL.']},
    )
  )
  lines = text.splitlines()
  assert lines[0] == 'chip, 2 cores, Linux; python 3.12; 2025-01-31.'
  assert lines[2] == '`metaworld`: precision float32, gpus none, seed 3.'
  for line in (
    '|  | metaworld |',
    '| median s | 1.23 |',
    '| GFLOP | 1,234 |',
    '| repeats | 10 |',
    '| metaworld | share | GFLOP |',
    '| encoder | 0.25 | - |',
    '`metaworld`: No ops.',
    '`metaworld`: No OpenGL.',
  ):
    assert line in lines


def test_modes_of_a_gpu():
  case = script.make_case(['metaworld', 'small'], ['--seed', '3'], 'benchmark')
  modes = gpu.cases(case)
  assert [mode.tf32 for mode in modes].count(False) == 1
  for mode in modes:
    assert mode.name.startswith('metaworld small, ')
    assert ('XLA' in mode.name) == mode.config.jit
    assert mode.config.precision in mode.name and mode.config.seed == 3
    assert mode.overrides['precision'] == mode.config.precision
  assert len({mode.name for mode in modes}) == len(modes) == len(gpu.MODES)


def test_table_of_a_gpu():
  figures = {'median_seconds': 0.5, 'kernels_per_step': 1200.0}
  result = make_result(
    step=figures | {'sum_of_ops_seconds': 0.25, 'gflop_per_second': 3000.0}
  )
  result['gpu'] = {'name': 'card', 'products': {'tf32_gflop_per_second': 4e5}}
  lines = report.tables(result).splitlines()
  assert lines[2] == 'name card.'
  assert '| tf32 | 400 |' in lines
  assert lines[-1] == '| metaworld | 0.5 | - | 3 | 1,200 | 250 | - | - | - |'


def test_yardsticks_of_a_gpu_run_on_any_device():
  speeds = gpu.products(64)
  assert len(speeds) == 4 and min(speeds.values()) > 0
  assert tf.config.experimental.tensor_float_32_execution_enabled()
  assert gpu.launch_microseconds(5) > 0


def test_without_a_gpu_nothing_is_measured(monkeypatch):
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [])
  with pytest.raises(BenchmarkError, match=r'finds no GPU.*moto_tf\[gpu\]'):
    gpu.describe(lambda text: None, {})


def test_comparison_says_what_is_better_and_corrects_for_drift():
  speed = lambda value: {'gflop_per_second': value}
  old = make_result(
    peak=speed(100.0),
    step={'median_seconds': 2.0, 'gflop_per_second': 30.0, 'repeats': 9},
    replay={'memory_growth_mib': 50.0},
  )
  new = make_result(
    peak=speed(200.0),
    step={'median_seconds': 1.0, 'gflop_per_second': 60.0, 'repeats': 9},
    replay={'memory_growth_mib': 25.0},
    policy={'eval_median_ms': 1.0},
  )
  new['runs']['metaworld']['settings'] = {'seed': 4}
  lines = report.compare(old, new).splitlines()
  assert '- seed: 3 before, 4 now' in lines
  assert [line for line in lines if line.startswith('| ')][2:] == [
    '| peak GFLOP/s | 100 | 200 | 2 | - | higher |',
    '| step median s | 2 | 1 | 0.5 | 1 | lower |',
    '| step GFLOP/s | 30 | 60 | 2 | 1 | higher |',
    '| replay memory growth MiB | 50 | 25 | 0.5 | - | lower |',
  ]


@pytest.mark.parametrize(
  'content, options, message',
  [
    ('{', [], 'no valid JSON'),
    ('[1]', [], 'no results'),
    ('{"runs": {}, "format": 0}', [], 'format 0'),
    ('{"runs": {"gym": {}}, "format": 1}', [], "'gym' and not of 'metaworld'"),
    ('{"runs": {"metaworld": {}}, "format": 1}', ['--out', 'old'], 'replaced'),
    ('', ['--replicas', '2'], 'replicas: 2 cannot be measured'),
    ('', ['--replicas', '2', '--gpu'], 'replicas: 2 cannot be measured'),
    ('', ['--parts', 'speed'], "no part 'speed'; parts are peak, first"),
  ],
)
def test_script_explains_mistakes(
  tmp_path, monkeypatch, content, options, message
):
  monkeypatch.chdir(tmp_path)
  Path('old').write_text(content)
  with pytest.raises(SystemExit, match=message):
    script.main(['--configs', 'metaworld', '--compare', 'old', *options])


def test_failed_children_are_named(capfd):
  with pytest.raises(BenchmarkError, match='gym could not.* code 1, see above'):
    child.call('simulator.collect', 'gym', time.time())
  assert 'TypeError' in capfd.readouterr().err


def test_script_measures_in_processes_of_its_own(tmp_path):
  """The parent never imports TensorFlow, and results hold no paths."""
  code = (
    'import sys; from moto_tf.commands.benchmark import main; '
    'main(sys.argv[1:]); '
    'assert "tensorflow" not in sys.modules'
  )
  options = '--configs gym debug proprio --parts replay simulator --seed 7'
  out = tmp_path / 'new' / 'results.json'
  done = subprocess.run(
    [sys.executable, '-c', code, *options.split(), '--out', out],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert '| batches per s |' in done.stdout
  assert 'no task of Meta-World' in done.stdout
  assert 'gym debug proprio: replay' in done.stderr
  result = report.load(out)
  run = result['runs']['gym debug proprio']
  assert run['overrides'] == {'seed': 7}
  assert run['settings']['task'] == 'gym_Pendulum-v1'
  assert 'logdir' not in run['settings']
  assert str(tmp_path) not in out.read_text()
  assert str(ROOT) not in out.read_text()
