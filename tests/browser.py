"""A headless Chromium, driven through ChromeDriver's web API."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
ARGS = (
  '--headless=new',
  '--no-sandbox',  # Of root in a container there is none.
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--window-size=800,600',
)
# What the protocol calls keys that are no characters.
LEFT, RIGHT, HOME, END = '\ue012', '\ue014', '\ue011', '\ue010'


def find():
  """Paths of ChromeDriver and of a browser, None where one is not there."""
  browsers = filter(None, map(shutil.which, NAMES))
  return shutil.which('chromedriver'), next(browsers, None)


class Browser:
  """One window."""

  def __init__(self, base, session):
    self._base, self._session = base, session

  def open(self, url):
    self._call('POST', 'url', {'url': url})

  def run(self, script):
    """What a script returns."""
    return self._call('POST', 'execute/sync', {'script': script, 'args': []})

  def press(self, *keys):
    """Presses keys, one after the other, wherever the focus is."""
    kinds = ('keyDown', 'keyUp')
    actions = [{'type': kind, 'value': key} for key in keys for kind in kinds]
    source = {'type': 'key', 'id': 'keys', 'actions': actions}
    self._call('POST', 'actions', {'actions': [source]})

  def wait(self, script, wanted, seconds=20):
    """Waits until a script returns what is wanted."""
    end = time.monotonic() + seconds
    while (found := self.run(script)) != wanted:
      assert time.monotonic() < end, f'{script}: {found!r}, not {wanted!r}'
      time.sleep(0.05)

  def screenshot(self, path):
    path.write_bytes(base64.b64decode(self._call('GET', 'screenshot')))

  def _call(self, method, name, values=None):
    return _ask(method, f'{self._base}/session/{self._session}/{name}', values)


@contextlib.contextmanager
def browser(directory):
  """A Browser that keeps its profile in a directory, and is closed."""
  driver, binary = find()
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  base = f'http://127.0.0.1:{port}'
  process = subprocess.Popen(
    [driver, f'--port={port}'],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    _wait_for(base)
    options = {
      'binary': binary,
      'args': [*ARGS, f'--user-data-dir={directory}'],
    }
    wanted = {'alwaysMatch': {'goog:chromeOptions': options}}
    made = _ask('POST', f'{base}/session', {'capabilities': wanted})
    try:
      yield Browser(base, made['sessionId'])
    finally:
      _ask('DELETE', f'{base}/session/{made["sessionId"]}')
  finally:
    process.terminate()
    process.wait(30)


def _wait_for(base):
  end = time.monotonic() + 30
  while True:
    with contextlib.suppress(OSError):
      if _ask('GET', f'{base}/status')['ready']:
        return
    assert time.monotonic() < end, 'ChromeDriver does not start.'
    time.sleep(0.1)


def _ask(method, url, values=None):
  data = None if values is None else json.dumps(values).encode()
  request = urllib.request.Request(url, data, method=method)
  try:
    with urllib.request.urlopen(request, timeout=60) as answer:
      return json.load(answer)['value']
  except urllib.error.HTTPError as error:
    raise AssertionError(error.read().decode()) from None
