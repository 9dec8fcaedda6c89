"""A page for one person on this machine, and what it asks for.

Whoever knows the token may look and label. It stands in the address behind #,
which a browser keeps to itself, and comes back in a header that pages of others
cannot send. Other names of this machine than its own are refused, so that no
page can reach it by a name that it makes point here.
"""

import hmac
import http.server
import json
import secrets
import sys
import urllib.parse
from pathlib import Path

from moto_tf import rules
from moto_tf.bounded import parse_json
from moto_tf.errors import MotoError
from moto_tf.files import FileError
from moto_tf.labelling.collection import Collection, UnknownEpisodeError
from moto_tf.labelling.labels import LabelError

HOST = '127.0.0.1'
# With any port, as of a tunnel.
NAMES = (HOST, 'localhost')
TOKEN = 'X-Label-Token'
LONGEST = 10_000  # Bytes of a request.
SCRIPT = 'text/javascript; charset=utf-8'
FILES = {
  '/': ('page.html', 'text/html; charset=utf-8'),
  '/page.css': ('page.css', 'text/css; charset=utf-8'),
  '/page.js': ('page.js', SCRIPT),
  '/player.js': ('player.js', SCRIPT),
}
JSON, BYTES = 'application/json', 'application/octet-stream'
HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; script-src 'self'; "
  "style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
}


class LabelServer(http.server.ThreadingHTTPServer):
  """Serves a Collection to browsers of this machine, by `serve_forever`.

  Attributes:
    collection: what it serves.
    token: what a request must know.
    url: of the page.
  """

  def __init__(self, collection: Collection, port: int = 0):
    """Listens on a port, on the loopback address alone.

    Args:
      collection: to serve.
      port: 0: one that is free.

    Raises:
      LabelError: the port cannot be had.
    """
    self.collection, self.token = collection, secrets.token_urlsafe(24)
    try:
      super().__init__((HOST, port), _Handler)
    except (OSError, OverflowError) as error:
      raise LabelError(
        f'Port {port} cannot be used ({error}); choose another --port, or '
        'leave it away for one that is free.'
      ) from None
    self.url = f'http://{HOST}:{self.server_port}/#{self.token}'

  def handle_error(self, request, client_address) -> None:
    """A traceback, unless the browser has just left."""
    if not isinstance(sys.exception(), ConnectionError | TimeoutError):
      super().handle_error(request, client_address)


class _Refused(Exception):
  """A request that is not answered, with its HTTP status."""

  def __init__(self, status, text):
    super().__init__(text)
    self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
  """One request; answers to errors are JSON with `error`."""

  timeout = 60.0
  server_version = 'moto_tf'
  sys_version = ''

  def do_GET(self):  # noqa: N802
    self._answer(self._get)

  def do_POST(self):  # noqa: N802
    self._answer(self._post)

  def log_message(self, *args):
    """Nothing: the terminal is for the person who labels."""

  def _answer(self, respond):
    status = 200
    try:
      self._check_host()
      kind, content = respond(urllib.parse.unquote(self.path))
    except (_Refused, MotoError) as error:
      status = getattr(error, 'status', 400)
      if isinstance(error, UnknownEpisodeError):
        status = 404
      elif isinstance(error, FileError):
        status = 500
      kind, content = JSON, _dump({'error': str(error)})
    self.send_response(status)
    headers = {'Content-Type': kind, 'Content-Length': len(content), **HEADERS}
    for key, value in headers.items():
      self.send_header(key, str(value))
    self.end_headers()
    self.wfile.write(content)

  def _get(self, path):
    if path in FILES:
      name, kind = FILES[path]
      return kind, Path(__file__).with_name(name).read_bytes()
    self._check_token()
    collection = self.server.collection
    if path == '/api/episodes':
      return JSON, _dump(
        {
          'directory': str(collection.directory),
          'key': collection.key,
          'reward': collection.reward,
          'episodes': collection.rows(),
        }
      )
    if path.startswith(head := '/api/frames/'):
      # The numbers themselves: every browser draws them, and none changes them.
      return BYTES, collection.frames(path.removeprefix(head)).data.cast('B')
    raise _Refused(404, 'There is no such page.')

  def _post(self, path):
    self._check_token()
    if path != '/api/label':
      raise _Refused(404, 'There is no such page.')
    values = self._body()
    name, label = values.get('episode'), values.get('label')
    start, reward = values.get('start'), values.get('reward')
    if (
      not isinstance(name, str)
      or values.keys() - {'episode', 'label', 'start', 'reward'}
      or 'label' not in values
      or label not in ('success', 'failure', None)
      or (start is not None and (type(start) is not int or label != 'success'))
      or not isinstance(reward, bool | None)
    ):
      raise _Refused(
        400,
        'Expected episode, a name; label, "success", "failure" or null; '
        'for a success start, a record; and reward, whether rewards follow; '
        f'got {rules.brief(values)}.',
      )
    said = name, label, start, reward
    return JSON, _dump(self.server.collection.label(*said))

  def _body(self):
    try:
      length = int(self.headers.get('Content-Length', ''))
    except ValueError:
      raise _Refused(411, 'A request needs a Content-Length.') from None
    if not 0 <= length <= LONGEST:
      raise _Refused(413, f'A request has at most {LONGEST} bytes.')
    try:
      values = parse_json(self.rfile.read(length).decode())
    except ValueError as error:
      raise _Refused(400, f'A request must be JSON ({error}).') from None
    if not isinstance(values, dict):
      raise _Refused(400, f'Expected an object, got {rules.brief(values)}.')
    return values

  def _check_host(self):
    hosts = self.headers.get_all('Host', [])
    try:
      (name,) = (urllib.parse.urlsplit(f'//{host}').hostname for host in hosts)
    except ValueError:
      name = None
    if name not in NAMES:
      raise _Refused(403, f'Only {" and ".join(NAMES)} are names of this page.')

  def _check_token(self):
    given = self.headers.get(TOKEN, '').encode('latin-1', 'replace')
    if not hmac.compare_digest(given, self.server.token.encode()):
      raise _Refused(
        403, 'Open the whole address that the command has printed, with its #.'
      )


def _dump(values):
  return json.dumps(values, allow_nan=False).encode()
