"""The committed results: readable, complete, and what the documents say."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from moto_tf import make_config
from moto_tf.agents import METHODS
from moto_tf.config import without_effect
from moto_tf.renames import upgrade
from moto_tf.results import curves, plotting

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'results'
PAGE = ROOT / 'docs' / 'results.md'
RUNS = sorted(path.relative_to(ROOT) for path in RESULTS.glob('*/*/*/*.json'))
CHOSEN = [path for path in RUNS if path.parts[1] == 'choices']
# The same commands a second time.
REPEATED = [path for path in RUNS if path.parts[1] == 'repeat']
GROUPS = sorted({path.parts[1] for path in RUNS} - {'repeat'})
# What scripts/plot.py got as --metrics and --xaxis, where it is not this.
DRAWN = (['eval/success'], 'env_step')
OTHERS = dict.fromkeys(
  ('kitchen', 'kitchen_pixels'),
  (['eval/return', 'eval/success'], 'gradient_step'),
)
# Runs of MOTO that the choices are compared with.
BASE = 'proprio/drawer-open/moto'
# Runs of others that are drawn beside those of a group, and where all end.
BESIDE = {
  'choices': [BASE],
  'methods_pixels': ['pixels/door-open', 'pixels/drawer-open'],
  'precision': ['pixels/drawer-open/moto', 'pixels_again/drawer-open/moto'],
  'precision_state': [BASE],
  'methods_state': [
    f'proprio/{task}/{method}'
    for task in ('door-open', 'drawer-open')
    for method in ('moto', 'dreamerv2')
  ],
}
UNTIL = {'methods_state': 40000}
# Settings in which runs of a group differ, as the documents say there.
STAGED = {
  key
  for key, source in make_config('kitchen', 'staged').sources.items()
  if source == 'staged'
}
SAID = {
  'kitchen_pixels': {'bc_onward', 'collect', 'variant', *STAGED},
  'precision': {'precision', 'variant'},
  'precision_state': {'precision', 'variant'},
}
CHOICES = {
  'alpha_1': {'alpha': 1},
  'logit_std': {'penalty': 'logit_std'},
  'log_prob_std': {'penalty': 'log_prob_std'},
  'all_starts': {'start_states': 0},
  'uniform_data': {'replay.offline_share': -1},
  'free_1': {'kl.free': 1},
  'entropy_0': {'actor_ent': 0},
  'entropy_1e-3': {'actor_ent': 1e-3},
  'rssm_512': {
    'rssm.deter': 512,
    'rssm.hidden': 512,
    'rssm.stoch': 32,
    'rssm.discrete': 32,
  },
  'eval_mode': {'eval_action': 'mode'},
  'eval_sample': {'eval_action': 'sample'},
}


@pytest.mark.parametrize('path', RUNS, ids=str)
def test_a_run_can_be_repeated(path):
  """Command, commit and machine are there, and every evaluation episode."""
  content = json.loads((ROOT / path).read_text())
  task, method, seed = path.parts[-3:]
  assert content['task'].partition('_')[2] == task
  assert content['method'] == method and f'{content["seed"]}.json' == seed
  for session in content['sessions']:
    start = r'python (scripts/train.py|-m moto_tf train) .*--configs '
    assert re.match(start, session['command'])
    assert re.fullmatch('[0-9a-f]{40}', session['commit'])
    assert session['machine']['processor']
  config = content['config']
  steps = config['offline_steps'] + config['online_steps']
  assert content['curve']['gradient_step'][-1] == steps
  for found in content['evaluations']:
    assert len(found['success']) == len(found['return'])
    assert len(found['success']) == config['eval_episodes']
  assert content['evaluations'][-1]['gradient_step'] == steps
  assert content['wall_clock_seconds'] > 0


# What does not reach the training.
IDLE = {
  *('logdir', 'seed', 'offline_data', 'envs', 'eval_every', 'report_every'),
  'checkpoint_milestones',
}


@pytest.mark.parametrize('path', RUNS, ids=str)
def test_settings_stay_throughout_a_run(path):
  for session in json.loads((ROOT / path).read_text())['sessions']:
    changed = session.get('changes', {}).keys() - IDLE
    assert changed <= {'online_steps', 'eval_episodes'}


def own_settings(group: str) -> set[str]:
  """Keys that the presets of the group's methods set, now or before."""
  methods = {path.parts[3] for path in RUNS if path.parts[1] == group}
  keys = {
    key
    for method in methods & METHODS.keys()
    for key, source in make_config(method).sources.items()
    if source == method
  }
  return keys | {'moto.start_states', 'moto.alpha', 'moto.beta'}


@pytest.mark.parametrize('group', sorted(set(GROUPS) - {'choices'}))
def test_settings_are_equal(group):
  """Between methods that read them, but for what makes them."""
  found, made = {}, own_settings(group)
  for path in RESULTS.glob(f'{group}/*/*/*.json'):
    content = json.loads(path.read_text())
    config = upgrade(content['config'])
    task, method = config['task'], content['method']
    said = IDLE | SAID.get(group, set())
    settings = {
      k: v
      for k, v in config.items()
      if k not in made | said and not without_effect(config['method'], k)
    }
    known = found.setdefault(task, {})
    shared = settings.keys() & known.keys()
    assert {k: settings[k] for k in shared} == {k: known[k] for k in shared}
    known.update(settings)
    own = {k: config.get(k) for k in made}
    assert found.setdefault(method, own) == own, path


@pytest.mark.parametrize('path', CHOSEN, ids=str)
def test_a_choice_changes_its_own_settings(path):
  content = json.loads((ROOT / path).read_text())
  base = json.loads((RESULTS / BASE / path.name).read_text())['config']
  assert content['config'].keys() == base.keys()
  changed = {k: v for k, v in content['config'].items() if v != base[k]}
  changed = {k: v for k, v in changed.items() if k not in IDLE}
  assert changed == CHOICES[content['method']]


def test_every_choice_has_a_run():
  assert {path.parts[3] for path in CHOSEN} == CHOICES.keys()


@pytest.mark.parametrize('path', REPEATED, ids=str)
def test_a_run_repeats_itself(path):
  """Losses, episodes and evaluations are equal, as far as it goes."""
  repeated = json.loads((ROOT / path).read_text())
  group = 'pixels' if repeated['config']['env.image'] else 'proprio'
  first = json.loads(RESULTS.joinpath(group, *path.parts[2:]).read_text())
  other = {k for k, v in repeated['config'].items() if v != first['config'][k]}
  assert other <= {'online_steps'}
  # A file holds means of stretches of rows, to five digits; a longer run has
  # longer stretches.
  before, now = first['curve'], repeated['curve']
  steps = np.array(now['gradient_step'])
  ends = [x for x in before['gradient_step'] if x <= steps[-1]]
  assert ends[-1] == steps[-1] and len(ends) >= 10
  assert before.keys() == now.keys()
  stretches = np.searchsorted(ends, steps)
  for name in now.keys() - {'gradient_step', 'env_step'}:
    values, found = np.array(now[name], float), []
    for i in range(len(ends)):
      stretch = values[(stretches == i) & np.isfinite(values)]
      found.append(stretch.mean() if stretch.size else np.nan)
    expected = np.array(before[name][: len(ends)], float)
    np.testing.assert_allclose(found, expected, 1e-4, err_msg=name)
  names = ('gradient_step', 'env_step', 'first_seed', 'success', 'return')
  pairs = list(zip(repeated['evaluations'], first['evaluations'], strict=False))
  assert len(pairs) == len(repeated['evaluations']) >= 3
  for pair in pairs:
    now, before = ([found[name] for name in names] for found in pair)
    assert now == before


@pytest.mark.parametrize('group', GROUPS)
def test_budgets_are_equal(group):
  """Per group and task, methods and seeds differ only in what they are."""
  budgets, made = {}, own_settings(group)
  for path in RESULTS.glob(f'{group}/*/*/*.json'):
    config = json.loads(path.read_text())['config']
    names = ('offline_steps', 'online_steps', 'updates_per_episode')
    names += ('eval_episodes', 'replay.batch', 'replay.length', 'horizon')
    budget = tuple(config[name] for name in names if name not in made)
    budgets.setdefault(config['task'], set()).add(budget)
  assert budgets and all(len(found) == 1 for found in budgets.values())


@pytest.mark.parametrize('group', GROUPS)
def test_tables_are_those_of_the_files(group, tmp_path):
  """Of table.md, of the page of results and of the README."""
  indirs = [RESULTS / indir for indir in (group, *BESIDE.get(group, []))]
  metrics, xaxis = OTHERS.get(group, DRAWN)
  until = UNTIL.get(group, math.inf)
  plotting.plot(indirs, tmp_path, metrics, xaxis=xaxis, until=until)
  table = (tmp_path / 'table.md').read_text()
  assert (RESULTS / group / 'figures' / 'table.md').read_text() == table
  runs = curves.find_runs(indirs)
  tasks = tuple(f'| {run.task} ' for run in runs)
  rows = [x for x in table.splitlines() if x.startswith(tasks)]
  shown = [
    [line for line in block.splitlines() if line.startswith(tasks)]
    for page in (PAGE, ROOT / 'README.md')
    for block in re.findall(
      rf'(?s)<!-- results/{group} -->(.*?)<!-- end -->', page.read_text()
    )
  ]
  assert rows and f'<!-- results/{group} -->' in PAGE.read_text()
  for found in shown:
    assert found == rows


def test_final_evaluations_are_those_of_the_files():
  """The page's row of MOTO from pixels, whose heads are the tasks."""
  tasks = sorted(
    p.name for p in (RESULTS / 'pixels').glob('*/') if (p / 'moto').exists()
  )
  lines = PAGE.read_text().splitlines()
  first = '| door-open | drawer-open |'
  (head,) = (i for i, x in enumerate(lines) if x.startswith(first))
  heads, cells = (
    [y.strip() for y in lines[i].split('|')[1:-1]] for i in (head, head + 2)
  )
  assert sorted(heads) == tasks
  for task, cell in zip(heads, cells, strict=True):
    content = json.loads((RESULTS / f'pixels/{task}/moto/0.json').read_text())
    final = content['final']
    assert final['episodes'] == 50
    assert final['first_seed'] != content['evaluations'][-1]['first_seed']
    assert sum(final['success']) == int(cell), task


def rows_of(path: Path, start: str) -> list[list[str]]:
  """Cells of the lines of a page that begin with a cell."""
  lines = [x for x in path.read_text().splitlines() if x.startswith(start)]
  return [[y.strip(' `') for y in x.split('|')[1:-1]] for x in lines]


@pytest.mark.parametrize('method', ['moto', 'dreamerv2'])
def test_pages_of_methods_repeat_the_final_success(method):
  """As it stands in the tables of the files."""
  final = {}
  for source, group in (('pixels', 'pixels'), ('state', 'proprio')):
    table = RESULTS / group / 'figures' / 'table.md'
    for task, name, seeds, _, value, *_ in rows_of(table, '| metaworld_'):
      final[source, task.partition('_')[2], name] = seeds, value
  page, compared = ROOT / 'docs' / f'{method}.md', 0
  if method == 'moto':
    for name in ('moto', 'no_unc', 'no_bc', 'no_bc_no_unc', 'dreamerv2'):
      for row in rows_of(page, f'| `{name}` | '):
        if len(row) == 3 and row[1][0].isdigit():
          assert row[1] == final['state', 'door-open', name][1]
          assert row[2] == final['state', 'drawer-open', name][1]
          compared += 1
    assert compared == 5
  else:
    for task in ('door-open', 'drawer-open', 'window-open'):
      for _, source, seeds, ours, other in rows_of(page, f'| {task} | '):
        assert (seeds, ours) == final[source, task, 'dreamerv2']
        assert (seeds, other) == final[source, task, 'moto']
        compared += 1
    assert compared == 5


@pytest.mark.parametrize('task', ['kitchen_mixed', 'kitchen_partial'])
def test_recorded_kitchen_data_is_that_of_its_file(task):
  text = (RESULTS / 'kitchen' / 'data' / 'data.txt').read_text()
  section = text.split(f'TASK {task}\n')[1].split('\n\n')[0]
  found = dict(re.findall(r'(?m)^(\S.*?)  +([\d.]+)', section))
  cells = [
    found['episodes'],
    f'{int(found["transitions"]):,}',
    found['steps per episode'],
    found['mean return, targets'],
    found['objects per episode'],
    f'{float(found["share of full successes"]):.0%}'.replace('%', ' %'),
  ]
  row = f'| `{task}` | {" | ".join(cells)} |'
  assert row in (ROOT / 'docs' / 'kitchen.md').read_text()
