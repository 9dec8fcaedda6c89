"""The page of labels in a headless browser, by its keys and buttons."""

import json

import browser as browsers
import numpy as np
import pytest
from label_helpers import load, make_directory, make_episode, serving

from moto_tf.data.episodes import save_episode
from moto_tf.labelling.collection import RECORD

pytestmark = pytest.mark.skipif(
  not all(browsers.find()),
  reason='needs chromium and chromedriver on the PATH, as of the packages '
  'chromium and chromium-driver of Debian',
)

TEXT = "return document.getElementById('{}').textContent"
PIXELS = """
const canvas = document.getElementById('video');
const {width, height} = canvas;
const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
return [height, width, ...data];
"""


@pytest.fixture(scope='module')
def window(tmp_path_factory):
  with browsers.browser(tmp_path_factory.mktemp('profile')) as window:
    yield window


def show(window, url, record='6 / 6'):
  """Opens the page anew, and waits for the end of the first video."""
  window.open('about:blank')
  window.open(url)
  window.wait(TEXT.format('record'), record)


def pixels(window):
  height, width, *values = window.run(PIXELS)
  return np.array(values, np.uint8).reshape(height, width, 4)


def text(window, name):
  return window.run(TEXT.format(name))


def test_a_person_labels_by_keys(window, tmp_path):
  make_directory(tmp_path)
  image = load(tmp_path / 'a-6.npz')['image']
  with serving(tmp_path) as client:
    show(window, client.url)
    assert text(window, 'count') == '0 of 3 labelled'
    # The frames, every number of them.
    for keys, record in ((), 6), ((browsers.LEFT,), 5), ((browsers.HOME,), 0):
      window.press(*keys)
      found = pixels(window)
      np.testing.assert_array_equal(found[..., :3], image[record])
      assert (found[..., 3] == 255).all()
    # At the reset, success has not begun.
    window.press('h', browsers.RIGHT, browsers.RIGHT, browsers.RIGHT)
    assert text(window, 'record') == '3 / 6'
    window.press('h')
    window.wait(TEXT.format('name'), 'b-7.npz')
    assert 'success from record 3' in text(window, 'message')
    window.wait(TEXT.format('record'), '7 / 7')
    window.press('f')
    window.wait(TEXT.format('name'), 'c-8.npz')
    window.wait(TEXT.format('record'), '8 / 8')
    window.press('s')
    window.wait(TEXT.format('count'), '3 of 3 labelled')
    assert 'All episodes are labelled.' in text(window, 'message')
    success = [load(path)['success'] for path in sorted(tmp_path.glob('*.npz'))]
    assert [int(x.sum()) for x in success] == [4, 0, 1] and success[2][-1]
    # Back, twice.
    window.press('u')
    window.wait(TEXT.format('count'), '2 of 3 labelled')
    window.press('u')
    window.wait(TEXT.format('count'), '1 of 3 labelled')
    window.wait(TEXT.format('name'), 'b-7.npz')
    assert text(window, 'state') == 'Not labelled; no success was recorded'
    # What the server says after the page was loaded again is the same.
    show(window, client.url, '7 / 7')
    assert text(window, 'count') == '1 of 3 labelled'
    assert text(window, 'name') == 'b-7.npz'
    assert [row['labelled'] for row in client.rows().values()] == [1, 0, 0]


def test_rewards_of_labels_that_had_none(window, tmp_path):
  """They are open until they have them, and undo puts back what was there."""
  path = make_directory(tmp_path, 2) / 'a-6.npz'
  with serving(tmp_path) as client:
    client.label(episode='a-6.npz', label='success', start=3)
    client.label(episode='b-7.npz', label='failure', reward=True)
  before = load(path)
  with serving(tmp_path, reward=True) as client:
    show(window, client.url)
    assert text(window, 'count') == '1 of 2 labelled'
    assert text(window, 'name') == 'a-6.npz'
    wanted = 'Labelled success from record 3, without rewards'
    assert text(window, 'state').startswith(wanted)
    window.press('f')
    window.wait(TEXT.format('count'), '2 of 2 labelled')
    assert not load(path)['reward'].any()
    window.press('u')
    window.wait(TEXT.format('count'), '1 of 2 labelled')
    for key, value in load(path).items():
      np.testing.assert_array_equal(value, before[key])
  with serving(tmp_path) as client:
    # In a session without rewards, too.
    path, key = tmp_path / 'b-7.npz', 'log_reward_recorded'
    assert key in load(path)
    show(window, client.url)
    assert text(window, 'count') == '2 of 2 labelled'
    window.press('n')
    window.wait(TEXT.format('record'), '7 / 7')
    window.press('s')
    window.wait(
      TEXT.format('state'),
      'Labelled success at the last record; no success was recorded',
    )
    assert key not in load(path)
    window.press('u')
    window.wait(
      TEXT.format('state'), 'Labelled failure; no success was recorded'
    )
    assert key in load(path) and not load(path)['reward'].any()


def test_ways_through_the_episodes(window, tmp_path):
  make_directory(tmp_path)
  with serving(tmp_path) as client:
    client.label(episode='b-7.npz', label='failure')
    show(window, client.url)
    window.press('n')
    assert text(window, 'name') == 'b-7.npz'
    window.press('o', 'n')  # Only unlabelled ones.
    assert text(window, 'name') == 'c-8.npz'
    shown = 'return [...document.querySelectorAll("li")].map((x) => x.hidden)'
    assert window.run(shown) == [False, True, False]
    window.press('p')
    assert text(window, 'name') == 'a-6.npz'
    window.wait(TEXT.format('record'), '6 / 6')
    window.press('-', '-')
    assert text(window, 'speed') == '0.25\u00d7'
    window.press(' ')
    assert text(window, 'play') == 'Pause Space'
    window.press(' ', '+', '+')
    assert text(window, 'play') == 'Play Space'
    assert text(window, 'speed') == '1\u00d7'
    window.run('document.getElementById("failure").click()')
    window.wait(TEXT.format('name'), 'c-8.npz')
    # A key that is held labels once, and those of the browser do nothing.
    window.wait(TEXT.format('record'), '8 / 8')
    key = 'document.dispatchEvent(new KeyboardEvent("keydown", {}))'
    for options in ({'repeat': True}, {'ctrlKey': True}):
      options |= {'key': 's', 'bubbles': True}
      target = key.replace('document', 'document.body')
      window.run(target.replace('{}', json.dumps(options)))
    window.press('x')  # It has no label to be removed.
    assert text(window, 'count') == '2 of 3 labelled'
  assert len((tmp_path / RECORD).read_text().splitlines()) == 2


def test_what_cannot_be_done_is_said(window, tmp_path):
  grey = make_episode(image=np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1))
  save_episode(tmp_path, 'a', grey)
  (tmp_path / '<b>.npz').write_bytes(b'no episode')
  with serving(tmp_path) as client:
    show(window, client.url.partition('#')[0], '')
    window.wait(
      TEXT.format('message'),
      'Open the whole address that the command has printed, with its #.',
    )
    window.open('about:blank')
    window.open(client.url)
    window.wait(TEXT.format('record'), '6 / 6')
    assert pixels(window).tolist() == [[[6, 6, 6, 255]]]
    window.press('n')
    assert '<b>.npz: unreadable' in text(window, 'message')
    assert window.run('return document.getElementById("success").disabled')
    window.press('s', 'p')
    window.wait(TEXT.format('record'), '6 / 6')
    (tmp_path / 'a-6.npz').unlink()
    window.press('s')
    no_file = 'return document.getElementById("message").className'
    window.wait(no_file, 'error')
    assert 'Not saved. ' in text(window, 'message')
  window.press('s')
  gone = 'Not saved. The command that serves this page does not answer.'
  window.wait(TEXT.format('message'), gone)
