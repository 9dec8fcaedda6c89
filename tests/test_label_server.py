"""The server of labels over HTTP: what it tells, takes and refuses."""

import json

import numpy as np
import pytest
from label_helpers import load, make_directory, make_episode, serving

from moto_tf.data.episodes import EpisodeError, save_episode
from moto_tf.labelling.collection import RECORD, Collection
from moto_tf.labelling.labels import LabelError
from moto_tf.labelling.server import LabelServer
from moto_tf.ownership import OwnedError, Owner


def flags(records, start):
  return np.arange(records) >= (records if start is None else start)


def test_the_page_and_its_parts(tmp_path):
  with serving(make_directory(tmp_path)) as client:
    files = '/', '/page.css', '/page.js', '/player.js'
    for path, kind in zip(files, ('html', 'css', 'javascript', 'javascript')):
      # A page says nothing of the episodes, so it needs no token.
      headers = {'X-Label-Token': ''}
      status, found, content = client.ask('GET', path, headers=headers)
      assert status == 200 and kind in found['Content-Type'] and content
      assert "default-src 'none'" in found['Content-Security-Policy']
      assert client.token.encode() not in content


def test_frames_are_those_of_the_episode(tmp_path):
  grey = make_episode(wrist=np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1))
  save_episode(make_directory(tmp_path), 'd', grey)
  with serving(tmp_path) as client:
    rows = client.rows()
    assert list(rows) == ['a-6.npz', 'b-7.npz', 'c-8.npz', 'd-6.npz']
    for name, row in rows.items():
      status, _, content = client.ask('GET', f'/api/frames/{name}')
      frames = np.frombuffer(content, np.uint8)
      frames = frames.reshape(row['records'], *row['shape'])
      assert status == 200
      np.testing.assert_array_equal(frames, load(tmp_path / name)['image'])
  with serving(tmp_path, key='wrist') as client:
    rows = client.rows()
    assert 'no images' in rows['a-6.npz']['problem']
    assert client.ask('GET', '/api/frames/a-6.npz')[0] == 400
    _, _, content = client.ask('GET', '/api/frames/d-6.npz')
    assert content == bytes(range(7)) and rows['d-6.npz']['shape'] == [1, 1, 1]


def test_labels_are_written_and_read_again(tmp_path):
  make_directory(tmp_path)
  with serving(tmp_path, who='Ada') as client:
    assert not any(row['labelled'] for row in client.rows().values())
    status, row = client.label(episode='a-6.npz', label='success')
    assert status == 200 and (row['labelled'], row['start']) == (True, 6)
    assert client.label(episode='b-7.npz', label='success', start=3)[0] == 200
    assert client.label(episode='c-8.npz', label='failure')[0] == 200
    shown = client.rows()
    assert shown['b-7.npz']['start'] == 3
  for name, start in (('a-6', 6), ('b-7', 3), ('c-8', None)):
    success = load(tmp_path / f'{name}.npz')['success']
    np.testing.assert_array_equal(success, flags(len(success), start))
  lines = (tmp_path / RECORD).read_text().splitlines()
  said = [json.loads(line) for line in lines]
  assert [x['start'] for x in said] == [6, 3, None]
  assert {x['who'] for x in said} == {'Ada'}
  with serving(tmp_path) as client:
    assert client.rows() == shown
    _, row = client.label(episode='b-7.npz', label=None)
    assert not row['labelled'] and row['start'] is row['recorded'] is None
    # Files that come and go while the page is open.
    save_episode(tmp_path, 'd', make_episode())
    (tmp_path / 'a-6.npz').unlink()
    assert list(client.rows()) == ['b-7.npz', 'c-8.npz', 'd-6.npz']
    assert client.label(episode='a-6.npz', label='failure')[0] == 404


def test_a_label_may_have_its_own_rewards(tmp_path):
  """So that what it replaced can be put back, whatever the collection does."""
  path = make_directory(tmp_path) / 'a-6.npz'
  recorded = load(path)['reward']
  with serving(tmp_path, reward=True) as client:
    label = lambda **values: client.label(episode=path.name, **values)[1]
    row = label(label='success', start=3)
    assert row['rewarded'] and load(path)['reward'].sum() == 4
    row = label(label='failure', reward=False)
    assert row['labelled'] and not row['rewarded']
    np.testing.assert_array_equal(load(path)['reward'], recorded)
  with serving(tmp_path) as client:
    row = label(label='success', start=2, reward=True)
    assert row['rewarded'] and load(path)['reward'].sum() == 5
    assert not label(label='success', start=2)['rewarded']
  said = [json.loads(x) for x in (tmp_path / RECORD).read_text().splitlines()]
  assert [x['reward'] for x in said] == [True, False, True, False]


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  """A Client, whose requests must change nothing, and its two episodes."""
  root = tmp_path_factory.mktemp('shared')
  other = make_directory(root / 'other', 1) / 'a-6.npz'
  with serving(make_directory(root / 'these', 1)) as client:
    yield client, (root / 'these' / 'a-6.npz', other)


@pytest.fixture
def client(shared):
  client, paths = shared
  before = [path.read_bytes() for path in paths]
  yield client
  assert [path.read_bytes() for path in paths] == before
  assert not paths[0].with_name(RECORD).exists()


@pytest.mark.parametrize(
  'values, status, text',
  [
    ({'label': 'success', 'start': 0}, 400, 'is the reset'),
    ({'label': 'success', 'start': 7}, 400, 'give 1 to 6'),
    ({'label': 'success', 'start': True}, 400, 'Expected'),
    ({'label': 'success', 'start': 2.0}, 400, 'Expected'),
    ({'label': 'failure', 'start': 2}, 400, 'Expected'),
    ({'label': 'failure', 'reward': 1}, 400, 'Expected'),
    ({'label': 'failure', 'reward': 'yes'}, 400, 'Expected'),
    ({'label': 'maybe'}, 400, "got {'episode': 'a-6.npz', 'label': 'maybe'}"),
    ({'label': []}, 400, 'Expected'),
    ({}, 400, 'Expected'),
    ({'episode': ['a-6.npz'], 'label': None}, 400, 'Expected'),
    ({'label': None, 'x': 1}, 400, 'Expected'),
    ({'episode': 'z-6.npz', 'label': None}, 404, "no episode 'z-6.npz'"),
    ({'episode': '../other/a-6.npz', 'label': 'failure'}, 404, 'no episode'),
    ({'episode': '.', 'label': 'failure'}, 404, 'no episode'),
  ],
)
def test_bad_labels(client, values, status, text):
  found, answer = client.label(**{'episode': 'a-6.npz'} | values)
  assert found == status and text in answer['error']


@pytest.mark.parametrize(
  'path, body, headers, status',
  [
    ('label', '{"episode"', {}, 400),
    ('label', '[]', {}, 400),
    ('label', '[' * 9000, {}, 400),
    ('label', b'\xff', {}, 400),
    ('label', 'x' * 20_000, {}, 413),
    ('label', '', {'Content-Length': 'many'}, 411),
    ('label', '', {'Content-Length': '-1'}, 413),
    ('other', '{}', {}, 404),
  ],
)
def test_bad_requests(client, path, body, headers, status):
  found, _, content = client.ask('POST', f'/api/{path}', body, headers)
  assert found == status and json.loads(content)['error']


@pytest.mark.parametrize(
  'path',
  [
    '/api/frames/../a-6.npz',
    '/api/frames/..%2fother%2Fa-6.npz',
    '/api/frames//etc/passwd',
    '/api/frames/%00',
    '/api/frames/',
    '/../labels.py',
    '/server.py',
    '/page.html',
  ],
)
def test_paths_stay_in_the_directory(client, path):
  assert client.ask('GET', path)[0] == 404


def test_links_to_elsewhere_are_not_followed(tmp_path):
  other = make_directory(tmp_path / 'other', 1) / 'a-6.npz'
  directory = make_directory(tmp_path / 'these', 2)
  (directory / 'z-6.npz').symlink_to(other)
  before = other.read_bytes()
  with serving(directory) as client:
    assert f'is a link to {other}' in client.rows()['z-6.npz']['problem']
    assert client.ask('GET', '/api/frames/z-6.npz')[0] == 400
    status, answer = client.label(episode='z-6.npz', label='success')
    assert status == 400 and 'is a link' in answer['error']
  assert other.read_bytes() == before and (directory / 'z-6.npz').is_symlink()


@pytest.mark.parametrize(
  'headers',
  [
    {'Host': 'evil.example'},
    {'Host': 'evil.example:80'},
    {'Host': '127.0.0.1.evil.example'},
    {'Host': 'localhost@evil.example'},
    {'Host': '[::1'},
    {'Host': ''},
    {'X-Label-Token': ''},
    {'X-Label-Token': 'guess'},
    {'X-Label-Token': '\u00fc'},
  ],
)
def test_pages_of_others_are_refused(client, headers):
  body = json.dumps({'episode': 'a-6.npz', 'label': 'success'})
  for method, path in (
    ('GET', '/api/episodes'),
    ('GET', '/api/frames/a-6.npz'),
    ('POST', '/api/label'),
  ):
    status, found, content = client.ask(method, path, body, headers)
    assert status == 403 and set(json.loads(content)) == {'error'}
    assert 'Access-Control-Allow-Origin' not in found
  if 'Host' in headers:
    assert client.ask('GET', '/', headers=headers)[0] == 403
  # What a browser asks first, before it sends the header of another page.
  assert client.ask('OPTIONS', '/api/label', headers=headers)[0] == 501


def test_a_tunnel_may_have_another_port(client):
  tunnel = {'Host': f'localhost:{client.port + 1}'}
  assert client.ask('GET', '/', headers=tunnel)[0] == 200


def test_only_this_machine_is_served(tmp_path):
  with Collection(make_directory(tmp_path)) as collection:
    with LabelServer(collection) as first, LabelServer(collection) as second:
      assert first.server_address[0] == '127.0.0.1'
      assert first.token != second.token and len(first.token) >= 32
      with pytest.raises(LabelError, match=f'Port {first.server_port} cannot'):
        LabelServer(collection, first.server_port)
      with pytest.raises(LabelError, match='Port 99999 cannot'):
        LabelServer(collection, 99999)


# Directories.


def test_episodes_without_images(tmp_path):
  episode = make_episode()
  del episode['image']
  save_episode(tmp_path, 'a', episode)
  message = 'no images to look at, only state. Record them with images'
  with pytest.raises(LabelError, match=message):
    Collection(tmp_path)
  assert not (tmp_path / '.lock').exists()
  deep = {'image': np.zeros((7, 4, 4, 9), np.uint8)}
  save_episode(tmp_path, 'b', make_episode(**deep))
  with serving(tmp_path) as client:
    problems = [row['problem'] for row in client.rows().values()]
  assert problems == [
    "a-6.npz: there are no images 'image'.",
    'b-6.npz: images have 9 channels, expected 1 or 3.',
  ]


def test_the_images_are_chosen_by_their_key(tmp_path):
  wrist = np.zeros((7, 4, 4, 3), np.uint8)
  save_episode(tmp_path, 'a', make_episode(awrist=wrist))
  with Collection(tmp_path) as collection:
    assert collection.key == 'awrist' and collection.keys == ['awrist', 'image']
  with pytest.raises(LabelError, match=r"'hand'; image keys here: awrist, im"):
    Collection(tmp_path, 'hand')
  with Collection(tmp_path, 'image') as collection:
    assert collection.frames('a-6.npz').shape == (7, 12, 16, 3)


def test_directories_without_episodes(tmp_path):
  with pytest.raises(EpisodeError, match='no such directory'):
    Collection(tmp_path / 'no')
  make_directory(tmp_path / 'task' / 'demos')
  with pytest.raises(EpisodeError, match='with episodes are task/demos'):
    Collection(tmp_path)
  (tmp_path / 'a-6.npz').write_bytes(b'PK')
  with pytest.raises(LabelError, match=r'can be used.*a-6\.npz: unreadable'):
    Collection(tmp_path)
  save_episode(tmp_path, 'b', make_episode())
  with serving(tmp_path) as client:
    assert 'unreadable' in client.rows()['a-6.npz']['problem']
    assert client.label(episode='a-6.npz', label='failure')[0] == 400
    assert client.label(episode='b-6.npz', label='failure')[0] == 200


def test_a_run_and_its_labels_exclude_each_other(tmp_path):
  run = tmp_path / 'run'
  episodes = make_directory(run / 'episodes')
  (run / 'config.yaml').write_text('')
  with Owner(run):
    for directory in (run, episodes):
      with pytest.raises(OwnedError, match=f'{run} is in use'):
        Collection(directory)
  for directory in (run, episodes):
    with serving(directory) as client:
      with pytest.raises(OwnedError, match=f'{run} is in use'):
        Owner(run)
      # Somebody removed the file of the lock, and training began.
      (run / '.lock').unlink()
      with Owner(run):
        before = (episodes / 'a-6.npz').read_bytes()
        status, answer = client.label(episode='a-6.npz', label='failure')
        assert status == 400 and 'is in use' in answer['error']
      assert (episodes / 'a-6.npz').read_bytes() == before
  with Owner(run):  # It is free again.
    assert not (episodes / '.lock').exists()
