"""Replay: which episodes succeed and are cloned, and their share of batches."""

import re
import types

import numpy as np
import pytest
from replay_helpers import (
  ACT_SPACE,
  OBS_SPACE,
  fill,
  held,
  make_episode,
  make_replay,
  numbers,
)

from moto_tf.data import episodes as files
from moto_tf.data.cloning import Cloning
from moto_tf.presets import make_config
from moto_tf.training.session import open_replay


@pytest.mark.parametrize('offline_share', [-1, 0.5])
@pytest.mark.parametrize('share, count', [(0.2, 2), (0.25, 2), (1, 10)])
def test_success_share_is_exact(tmp_path, offline_share, share, count):
  """The first lanes are of successes of both kinds, the others as without."""
  fill(tmp_path / 'a', [9, 40, 20])
  fill(tmp_path / 'a', [5, 6], 10, success=True)
  fill(tmp_path / 'b', [15, 7], 100)
  fill(tmp_path / 'b', [8], 110, success=True)
  replay = make_replay(
    tmp_path / 'a',
    tmp_path / 'b',
    success_share=share,
    offline_share=offline_share,
    batch=10,
    length=20,
  )
  seen, offline = set(), 0
  for step in range(40):
    batch = replay.sample(step)
    assert batch['success'][:count].all()
    seen |= set(numbers(batch)[:count].flat)
    others = numbers(batch)[count:, 0] < 100
    offline += others.sum()
    if offline_share > 0:
      assert others.sum() == round(0.5 * (10 - count))
  assert seen == {10, 11, 110}
  if offline_share < 0 and count < 10:
    assert 0 < offline < 40 * (10 - count)


def test_success_share_begins_with_the_first_success(tmp_path):
  fill(tmp_path / 'a', [9, 40])
  replay = make_replay(tmp_path / 'a', tmp_path / 'b', success_share=0.5)
  assert not replay.sample(0)['success'].any()
  replay.add(make_episode(100, 5), 'failure')
  assert held(replay) == [0, 1, 100]
  replay.add(make_episode(101, 5, success=True), 'success')
  for step in range(5):
    assert (numbers(replay.sample(step))[:2] == 101).all()


def test_success_of_episodes(tmp_path):
  fill(tmp_path, [5, 6])
  fill(tmp_path, [7, 8], 2, success=True)
  fill(tmp_path, [9], 4, terminal=True)
  # Rewards of episode n lie in [n, n + 1).
  for threshold, expected in ((0, {2, 3}), (3, {3, 4}), (1.006, {1, 2, 3, 4})):
    replay = make_replay(tmp_path, cloning=Cloning(threshold), length=20)
    assert replay.stats()['successes'] == len(expected)
    seen = set()
    for step in range(20):
      batch = replay.sample(step)
      marked = np.isin(numbers(batch), list(expected))
      np.testing.assert_array_equal(batch['success'], marked)
      ends = batch['state'][..., 1] == 9
      np.testing.assert_array_equal(
        batch['is_terminal'], (numbers(batch) == 4) & ends
      )
      seen |= set(numbers(batch).flat)
    assert seen == {0, 1, 2, 3, 4}


def test_success_by_targets(tmp_path, capsys):
  """For offline and online episodes alike, also after a reload."""
  offline, online = tmp_path / 'demos', tmp_path / 'online'

  def episode(number, *targets):
    made = make_episode(number, 5)
    for name in ('kettle', 'lamp', 'door'):
      made[f'log_{name}'] = (made['state'][:, 1] >= 2) & (name in targets)
    return made

  files.save_episode(offline, 'a', episode(0, 'kettle', 'lamp'))
  files.save_episode(offline, 'b', episode(1, 'kettle', 'door'))
  cloning = Cloning(targets=('log_kettle', 'log_lamp'))
  settings = dict(cloning=cloning, batch=64)
  replay = make_replay(offline, online, **settings)
  replay.add(episode(2, 'door', 'lamp'), 'c')
  replay.add(episode(3, 'kettle', 'lamp', 'door'), 'd')
  for found in (replay, make_replay(offline, online, **settings)):
    assert found.stats()['successes'] == 2
    batch = found.sample(0)
    assert not any(key.startswith('log_') for key in batch)
    np.testing.assert_array_equal(
      batch['success'], np.isin(numbers(batch), [0, 3])
    )
  # Of what is cloned, the records until both are in place.
  settings['cloning'] = cloning._replace(whole=False)
  found = make_replay(offline, online, **settings)
  batch = found.sample(0)
  both, record = np.isin(numbers(batch), [0, 3]), batch['state'][..., 1]
  np.testing.assert_array_equal(batch['success'], both & (record <= 2))
  problem = "'log_kettle' is missing, which bc_targets asks for"
  with pytest.raises(files.EpisodeError, match=problem):
    replay.add(make_episode(4, 5), 'e')
  assert not list(online.glob('e-*'))
  fill(offline, [5], 5)
  assert make_replay(offline, **settings).stats()['episodes'] == 2
  assert problem in ' '.join(capsys.readouterr().err.split())


def test_ways_to_a_further_target_are_cloned(tmp_path):
  """Of episodes that are not cloned otherwise, and in windows of their own."""
  rows = {
    # kettle, lamp, door first in place at these records; records to clone
    0: ((2, 3, None), range(0, 4)),
    1: ((None, 9, 25), range(10, 26)),
    2: ((None, 9, 4), range(0)),
    3: ((4, None, 9), range(0)),
    4: ((3, 5, 12), range(0, 6)),
    # Marked successful, though its targets were never in place at once.
    5: ((None, 9, 25), range(10, 26)),
  }
  for number, (places, _) in rows.items():
    episode = make_episode(number, 30)
    for name, place in zip(('kettle', 'lamp', 'door'), places, strict=True):
      row = np.zeros(31)
      row[30 if place is None else place :] = place is not None
      episode[f'log_{name}'] = row
    episode['success'][:] = number == 5
    files.save_episode(tmp_path, f'e{number}', episode)
  cloning = Cloning(
    targets=('log_kettle', 'log_lamp'), whole=False, onward='log_door'
  )
  replay = make_replay(
    tmp_path, cloning=cloning, batch=64, length=12, success_share=0.5
  )
  assert replay.stats()['successes'] == 2
  seen = {number: set() for number in rows}
  for step in range(20):
    batch = replay.sample(step)
    number, record = numbers(batch), batch['state'][..., 1].astype(int)
    expected = np.zeros(number.shape)
    for row, (_, cloned) in rows.items():
      expected += (number == row) & np.isin(record, cloned)
    np.testing.assert_array_equal(batch['success'], expected)
    # The first half has whole episodes and the way, eight records before it.
    assert set(number[:32].flat) <= {0, 1, 4, 5}
    for row in (1, 5):
      seen[row] |= set(record[:32][number[:32] == row].flat)
    # A new piece begins wherever records do not follow one another.
    breaks = (np.diff(number) != 0) | (np.diff(record) != 1)
    np.testing.assert_array_equal(batch['is_first'][:, 1:], breaks)
    assert batch['is_first'][:, 0].all()
  assert seen[1] == seen[5] == set(range(2, 26))
  for number in (0, 4):
    (tmp_path / f'e{number}-30.npz').unlink()
  # What is left to clone are ways alone.
  assert not make_replay(tmp_path, cloning=cloning).uncloned
  assert make_replay(tmp_path, cloning=cloning._replace(onward='')).uncloned


def test_half_of_what_is_cloned_achieves_the_task(tmp_path):
  """While only some of it does."""

  def lanes(cloning, share=0.5):
    replay = make_replay(
      tmp_path, cloning=cloning, batch=16, length=4, success_share=share
    )
    return [numbers(replay.sample(i)) for i in range(20)]

  fill(tmp_path, [30, 30, 30])
  fill(tmp_path, [30], 3, success=True)
  fill(tmp_path, [30], 4)
  # Rewards of episode n lie in [n, n + 1), so three are cloned.
  found = np.array(lanes(Cloning(2.0)))
  assert set(found[:, :4].flat) == {3}
  assert set(found[:, 4:8].flat) == {2, 3, 4}
  assert set(found[:, 8:].flat) == {0, 1, 2, 3, 4}
  assert set(np.array(lanes(Cloning(2.0), 0.06))[:, 0].flat) == {2, 3, 4}
  # What achieves the task without being cloned is not preferred.
  assert set(np.array(lanes(Cloning(4.0)))[:, :8].flat) == {4}
  assert set(np.array(lanes(Cloning()))[:, :8].flat) == {3}


def test_demonstrations_that_are_not_cloned(tmp_path, capsys):
  """Those of DreamerV2 have no flags of success."""
  fill(tmp_path / 'a', [3, 4], first=5)
  for threshold, wanted in (
    (0.0, 'none of 2 demonstrations .* Set --bc_threshold .* largest is 6.004'),
    (7.0, 'largest reward is 6.004, below bc_threshold 7'),
    (6.0, '^$'),
  ):
    replay = make_replay(tmp_path / 'a', cloning=Cloning(threshold))
    assert re.search(wanted, replay.uncloned)
  fill(tmp_path / 'b', [3], success=True)
  assert not make_replay(tmp_path / 'b').uncloned
  agent = types.SimpleNamespace(obs_keys=['state'])
  driver = types.SimpleNamespace(obs_space=OBS_SPACE, act_space=ACT_SPACE)
  drawn = {'replay.success_share': 0.5}
  for name, more, said in (
    ('moto', {}, True),
    ('dreamerv2', {}, False),
    ('no_bc', {}, False),
    ('dreamerv2', drawn, True),
  ):
    config = make_config(name, more)
    open_replay(config, agent, driver, tmp_path / 'a', None, None)
    assert ('Set --bc_threshold' in capsys.readouterr().err) == said
