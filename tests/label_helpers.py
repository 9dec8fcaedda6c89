"""Small episodes with images, and requests to the page that labels them."""

import http.client
import json
import threading
import zipfile
from contextlib import contextmanager

import numpy as np

from moto_tf.data.episodes import save_episode
from moto_tf.labelling.collection import Collection
from moto_tf.labelling.server import LabelServer


def make_episode(length=6, seed=0, **others):
  """Random content that has never succeeded; others replace or add arrays."""
  rng = np.random.default_rng(seed)
  index = np.arange(length + 1)
  return {
    'image': rng.integers(0, 256, (length + 1, 12, 16, 3), np.uint8),
    'state': rng.standard_normal((length + 1, 5)).astype(np.float32),
    'log_kettle': (index > 2).astype(np.float32),
    'action': 0.1 * np.eye(length + 1, 2, -1, np.float32),
    'reward': rng.uniform(0, 0.5, length + 1).astype(np.float32),
    'is_first': index == 0,
    'is_last': index == length,
    'is_terminal': np.zeros(length + 1, bool),
    'success': np.zeros(length + 1, bool),
    **others,
  }


def make_directory(path, count=3):
  """Episodes a-6.npz, b-7.npz and so on."""
  for i in range(count):
    save_episode(path, 'abcdef'[i], make_episode(6 + i, i))
  return path


def members(path):
  """Content of an npz file, as bytes by name."""
  with zipfile.ZipFile(path) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


def load(path):
  with np.load(path) as file:
    return {key: file[key] for key in file}


class Client:
  """Requests to a server, over a connection each."""

  def __init__(self, port, token):
    self.port, self.token = port, token

  def ask(self, method, path, body=None, headers=None):
    """Status, headers and content; headers replace those of the page."""
    connection = self.connect(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content

  def connect(self, method, path, body=None, headers=None):
    """A connection with a request that is not answered yet."""
    usual = {'X-Label-Token': self.token}
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=30)
    connection.request(method, path, body, usual | (headers or {}))
    return connection

  def rows(self):
    """The episodes by name."""
    status, _, content = self.ask('GET', '/api/episodes')
    assert status == 200, content
    return {row['name']: row for row in json.loads(content)['episodes']}

  def label(self, **values):
    """Status and answer."""
    status, _, content = self.ask('POST', '/api/label', json.dumps(values))
    return status, json.loads(content)


@contextmanager
def serving(directory, **options):
  """A Client of a server in a thread."""
  with (
    Collection(directory, **options) as collection,
    LabelServer(collection) as server,
  ):
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
      client = Client(server.server_port, server.token)
      client.url = server.url
      yield client
    finally:
      server.shutdown()
      thread.join()
