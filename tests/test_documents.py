"""The documents: links, commands, settings and names that exist.

Nothing here imports TensorFlow; commands are asked for their --help.
"""

import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import moto_tf
from moto_tf.commands import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / 'README.md'
PAGES = [README, ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md']
PAGES += sorted((ROOT / 'docs').glob('*.md'))
# Ends of names that are files, not settings, such as `rssm.py`.
SUFFIXES = ('py', 'md', 'yaml', 'json', 'jsonl', 'npz', 'png', 'gif', 'txt')
# Commands that take settings of configs.yaml, and which.
SETTINGS = {
  'train': '.+',
  'suite': '.+',
  'benchmark': '.+',
  'collect': r'env\..+',
  'dataset': r'env\..+',
}

each_page = pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)


@functools.cache
def configs():
  return moto_tf.load_configs()


def blocks(text: str, language: str) -> list[str]:
  """Contents of the fenced blocks of a language."""
  return re.findall(rf'(?ms)^ *```{language}\n(.*?)^ *```$', text)


def prose(text: str) -> str:
  """A page without its fenced blocks and comments."""
  text = re.sub(r'(?ms)^ *```.*?^ *```$', '', text)
  return re.sub(r'(?s)<!--.*?-->', '', text)


def anchors(page: Path) -> set[str]:
  """What links to headings of a page may end in, as GitHub names them."""
  found = re.findall(r'(?m)^#+ +(.*)$', prose(page.read_text()))
  names = [re.sub(r'[^\w\- ]', '', x.lower()).replace(' ', '-') for x in found]
  return set(names)


def commands(text: str) -> list[list[str]]:
  """Command lines of the shell blocks as words, comments left out."""
  found = []
  for block in blocks(text, 'sh'):
    for line in block.replace('\\\n', ' ').splitlines():
      found.append(shlex.split(line, comments=True))
  return [words for words in found if words]


def called(words: list[str]) -> tuple[str, list[str]] | None:
  """Command of moto_tf that a line runs, and its arguments."""
  while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
    words = words[1:]
  match = words[:3]
  if match[:1] != ['python']:
    return None
  if match[1:] == ['-m', 'moto_tf']:
    return words[3], words[4:]
  name = re.fullmatch(r'scripts/(\w+)\.py', words[1])
  return (name[1], words[2:]) if name else None


def used() -> list:
  """Every command line of moto_tf in the documents, with its page."""
  found = []
  for page in PAGES:
    for words in commands(page.read_text()):
      if call := called(words):
        label = f'{page.stem}: {" ".join([call[0], *call[1]])}'
        found.append(pytest.param(*call, id=label))
  return found


@functools.cache
def help_text(*command: str) -> str:
  """What --help of a command says."""
  line = [sys.executable, '-m', 'moto_tf', *command, '--help']
  done = subprocess.run(
    line, cwd=ROOT, text=True, capture_output=True, check=True, timeout=60
  )
  return done.stdout


@each_page
def test_links(page):
  """Relative links and images lead to files, and to headings in them."""
  broken = []
  for link in re.findall(r'\]\(([^)\s]+)\)', prose(page.read_text())):
    if re.match('https?:|mailto:', link):
      continue
    path, _, anchor = link.partition('#')
    target = (page.parent / path) if path else page
    if not target.exists() or (anchor and anchor not in anchors(target)):
      broken.append(link)
  assert not broken


def test_readme_is_short_and_leads_to_every_page():
  text = README.read_text()
  assert len(text.splitlines()) <= 200
  index = (ROOT / 'docs' / 'index.md').read_text()
  for page in PAGES:
    if page.parent.name == 'docs':
      assert f'(docs/{page.name})' in text, page.name
      assert f'({page.name})' in index or page.name == 'index.md', page.name


@each_page
def test_python_blocks_compile(page):
  for block in blocks(page.read_text(), 'python'):
    compile(block, page.name, 'exec')


@pytest.mark.parametrize('name, args', used())
def test_options_exist(name, args):
  """Options are those of --help or settings; presets are in configs.yaml.

  Code of one's own, named by --plugins, may add settings and presets.
  """
  assert name in COMMANDS
  assert (ROOT / 'scripts' / f'{name}.py').is_file()
  text, rest = help_text(name), list(args)
  parts = re.search(r'\{([\w,]+)\}', text)
  if parts and rest and rest[0] in parts[1].split(','):
    text += help_text(name, rest[0])
  options = set(re.findall(r'--[\w.-]+', text))
  own = '--plugins' in args
  pattern = SETTINGS.get(name, '')
  while rest:
    option = rest.pop(0).partition('=')[0]
    if option == '--configs':
      assert option in options
      while rest and not rest[0].startswith('--'):
        preset = rest.pop(0)
        assert own or preset in configs().presets, preset
    elif option.startswith('--') and option not in options and not own:
      keys = [k for k in configs().defaults.flat if re.fullmatch(pattern, k)]
      assert any(re.fullmatch(option[2:], key) for key in keys), option


def test_scripts_exist():
  for page in PAGES:
    for words in commands(page.read_text()):
      for word in words:
        if re.match(r'(scripts|examples|tests)/', word):
          assert (ROOT / word).exists(), (page.name, word)


@each_page
def test_settings_exist(page):
  """Names in backticks whose first part is a group of settings are settings.

  A function is written with brackets, as in `rssm.imagine()`, or with its
  class, as in `EnsembleRSSM.imagine`.
  """
  keys = configs().defaults.flat
  groups = {key.split('.')[0] for key in keys if '.' in key}
  for text in re.findall(r'`([^`\n]+)`', prose(page.read_text())):
    name = text.removeprefix('--').split(' ')[0].rstrip(':')
    if not re.fullmatch(r'[a-z_]+(\.[a-z_]+)+', name):
      continue
    parts = name.split('.')
    if parts[0] in groups and parts[-1] not in SUFFIXES:
      assert name in keys, name


def test_equations_are_where_the_readme_says():
  """Each row of the table names a file, and functions or names in it."""
  row = r'(?m)^\| .*\| `(moto_tf/\S+)` \| (.*) \|$'
  rows = re.findall(row, README.read_text())
  assert len(rows) >= 10
  for path, names in rows:
    text = (ROOT / path).read_text()
    for name in re.findall(r'`(\w+)`', names):
      assert re.search(rf'def {name}\(', text), (path, name)


def test_citation():
  found = YAML(typ='safe').load((ROOT / 'CITATION.cff').read_text())
  assert found['cff-version'] == '1.2.0'
  assert found['message'] and found['title']
  assert found['version'] == moto_tf.__version__
  assert found['license'] == 'MIT'
  assert (ROOT / 'LICENSE').read_text().startswith('MIT License')
  for part in [found, *found['references']]:
    assert part['title']
    for author in part['authors']:
      person = {'family-names', 'given-names'} <= author.keys()
      assert person or author.keys() == {'name'}
  titles = [part['title'] for part in found['references']]
  assert any(title.startswith('MOTO: Offline Pre-training') for title in titles)
  for part in found['references']:
    assert part['type'] in ('conference-paper', 'article')


def test_the_changelog_names_this_version():
  text = (ROOT / 'CHANGELOG.md').read_text()
  assert f'## [{moto_tf.__version__}]' in text


def test_examples_are_complete():
  """They compile, and the notebook shows a run without an error."""
  scripts = sorted((ROOT / 'examples').glob('*.py'))
  assert len(scripts) == 2
  for path in scripts:
    compile(path.read_text(), str(path), 'exec')
  path = ROOT / 'examples' / 'moto_in_ten_minutes.ipynb'
  cells = json.loads(path.read_text())['cells']
  code = [cell for cell in cells if cell['cell_type'] == 'code']
  compile('\n'.join(''.join(x['source']) for x in code), str(path), 'exec')
  kinds = {output['output_type'] for x in code for output in x['outputs']}
  assert 'stream' in kinds and 'error' not in kinds
  assert path.stat().st_size < 300_000
