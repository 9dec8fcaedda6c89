"""The plug-in with the real LeRobot: it acts as the exported policy does."""

import importlib.metadata
import json
import time

import gymnasium
import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.configs.types import FeatureType
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import (
  get_policy_class,
  make_policy,
  make_policy_config,
  make_pre_post_processors,
)
from lerobot.utils.import_utils import register_third_party_plugins

from lerobot_policy_moto import MotoConfig, MotoPolicy
from lerobot_policy_moto.__main__ import main
from lerobot_policy_moto.runner import ExportedPolicy

IMAGE, STATE = 'observation.images.image', 'observation.state'


def batch(*records):
  """Observations as LeRobot has them, of (episode, record) pairs."""
  images = np.stack([e['image'][i] for e, i in records])
  images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
  state = np.stack([e['state'][i] for e, i in records])
  return {IMAGE: images, STATE: torch.from_numpy(state)}


def direct(exported, episode, seed=0, resets=1):
  policy = ExportedPolicy(exported, seed=seed)
  for _ in range(resets):
    policy.reset()
  count = len(episode['image'])
  keys = ('image', 'state')
  return [policy({k: episode[k][i] for k in keys}) for i in range(count)]


@pytest.fixture(scope='module')
def saved(exported, tmp_path_factory):
  path = tmp_path_factory.mktemp('saved') / 'policy'
  main([str(exported), str(path)])
  return path


def test_it_acts_as_the_exported_policy(exported, episodes):
  """Over an episode, to the last digit, in the first and the second one."""
  policy = MotoPolicy.from_pretrained(exported)
  for resets in (1, 2):
    policy.reset()
    for i, wanted in enumerate(direct(exported, episodes[0], 0, resets)):
      action = policy.select_action(batch((episodes[0], i)))
      assert action.shape == (1, 4) and action.dtype == torch.float32
      np.testing.assert_array_equal(action[0], wanted)
  assert np.abs(wanted).max() > 0


def test_actions_are_held_as_in_training(exported, episodes):
  """Where the environment makes single steps of a policy of double ones."""
  with pytest.warns(UserWarning, match='held for 2 steps.*Set repeat to 2'):
    MotoPolicy.from_pretrained(exported)
  policy = MotoPolicy(MotoConfig.from_export(exported, repeat=2), exported)
  a, b = episodes[:2]
  for resets in (1, 2):
    policy.reset()
    wanted = [direct(exported, x, i, resets) for i, x in enumerate((a, b))]
    for i in range(8):
      # What is seen between two steps of the policy does not matter.
      seen = i // 2 if i % 2 == 0 else 15
      found = policy.select_action(batch((a, seen), (b, seen)))
      np.testing.assert_array_equal(found, [x[i // 2] for x in wanted])
      found.zero_()  # Nor what is done with an action.
    found = policy.select_action(batch((a, 4), (b, 4)))
  for repeat in (0, 1.5, True):
    with pytest.raises(ValueError, match='repeat is'):
      MotoPolicy(MotoConfig.from_export(exported, repeat=repeat), exported)


def test_an_environment_has_a_policy_of_its_own(exported, episodes):
  policy = MotoPolicy.from_pretrained(exported)
  policy.reset()
  a, b = episodes[:2]
  wanted = direct(exported, a, 0), direct(exported, b, 1)
  for i in range(20):
    found = policy.select_action(batch((a, i), (b, i)))
    np.testing.assert_array_equal(found, [wanted[0][i], wanted[1][i]])
  with pytest.raises(ValueError, match='3 environments, and had 2.*reset'):
    policy.select_action(batch((a, 0), (a, 0), (a, 0)))
  policy.reset()
  assert policy.select_action(batch((a, 0))).shape == (1, 4)


def test_lerobot_finds_and_makes_it(saved, data, episodes, exported):
  """By its own discovery, registry and factories, with processors."""
  assert importlib.metadata.distribution('lerobot_policy_moto')
  register_third_party_plugins()
  assert 'moto' in PreTrainedConfig.get_known_choices()
  assert get_policy_class('moto') is MotoPolicy
  made = make_policy_config('moto', seed=3, device='cpu')
  assert isinstance(made, MotoConfig) and made.type == 'moto'
  # As lerobot-eval and lerobot-train do with --policy.path.
  config = PreTrainedConfig.from_pretrained(saved)
  config.pretrained_path = saved
  assert config.input_features[IMAGE].type is FeatureType.VISUAL
  meta = LeRobotDatasetMetadata('moto/png', root=data / 'datasets/moto/png')
  policy = make_policy(config, ds_meta=meta)
  pre, post = make_pre_post_processors(config, pretrained_path=str(saved))
  policy.reset()
  for i, wanted in enumerate(direct(exported, episodes[0])):
    # A robot gives observations without the axis of a batch.
    obs = {k: v[0] for k, v in batch((episodes[0], i)).items()}
    action = post(policy.select_action(pre(obs)))
    np.testing.assert_array_equal(action[0], wanted)


def test_it_acts_on_frames_of_a_dataset(saved, data, episodes, exported):
  """What LeRobot's DataLoader gives of our export as PNG."""
  dataset = LeRobotDataset('moto/png', root=data / 'datasets/moto/png')
  policy = MotoPolicy.from_pretrained(saved)
  policy.reset()
  loader = torch.utils.data.DataLoader(dataset, batch_size=1)
  for i, (item, wanted) in enumerate(
    zip(loader, direct(exported, episodes[0]))
  ):
    np.testing.assert_array_equal(policy.select_action(item)[0], wanted)
    if i == 20:
      break


class Playback(gymnasium.Env):
  """Shows a recorded episode, whatever is done."""

  metadata = {'render_fps': 40}
  _max_episode_steps = 30
  task_description = 'open the drawer'
  task = 'drawer'

  def __init__(self, episode):
    self._episode, self.actions = episode, []
    box = gymnasium.spaces.Box
    self.observation_space = gymnasium.spaces.Dict(
      {
        'pixels': box(0, 255, (64, 64, 3), np.uint8),
        'agent_pos': box(-np.inf, np.inf, (39,), np.float32),
      }
    )
    self.action_space = box(-1, 1, (4,), np.float32)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.actions = []
    return self._observe(), {}

  def step(self, action):
    self.actions.append(np.array(action))
    return self._observe(), 0.0, False, False, {'is_success': False}

  def _observe(self):
    i = len(self.actions)
    return {
      'pixels': self._episode['image'][i],
      'agent_pos': self._episode['state'][i],
    }


def test_rollouts_of_lerobot(saved, episodes, exported):
  """Those of lerobot-eval, in two environments at a time."""
  from lerobot.scripts.lerobot_eval import rollout

  config = PreTrainedConfig.from_pretrained(saved)
  policy = MotoPolicy.from_pretrained(saved)
  pre, post = make_pre_post_processors(config, pretrained_path=str(saved))
  # LeRobot's bridge of simulators calls an only camera observation.image.
  envs = gymnasium.vector.SyncVectorEnv(
    [lambda e=e: Playback(e) for e in episodes[:2]]
  )
  identity = lambda x: x
  found = rollout(envs, policy, identity, identity, pre, post, seeds=[0, 1])
  assert found['action'].shape == (2, 30, 4)
  for lane in range(2):
    wanted = direct(exported, episodes[lane], lane)[:30]
    np.testing.assert_array_equal(found['action'][lane], wanted)


def test_saved_and_loaded(saved, exported, episodes, tmp_path):
  policy = MotoPolicy.from_pretrained(saved)
  names = {x.name for x in saved.iterdir()}
  assert {'config.json', 'card.json', 'policy.tflite'} <= names
  assert {'policy_preprocessor.json', 'policy_postprocessor.json'} <= names
  policy.save_pretrained(tmp_path / 'again')
  again = MotoPolicy.from_pretrained(tmp_path / 'again')
  for x in (policy, again):
    x.reset()
  same = batch((episodes[0], 0))
  np.testing.assert_array_equal(
    again.select_action(same), policy.select_action(same)
  )
  # Nothing of a directory is executed.
  (tmp_path / 'again' / 'moto_policy.py').write_text('raise SystemExit')
  MotoPolicy.from_pretrained(tmp_path / 'again')


def test_devices_and_chunks(exported, episodes):
  policy = MotoPolicy.from_pretrained(exported).to('cpu').eval()
  policy.reset()
  found = policy.predict_action_chunk(batch((episodes[0], 0)))
  assert found.shape == (1, 1, 4)
  np.testing.assert_array_equal(found[0, 0], direct(exported, episodes[0])[0])
  policy.to('meta')  # There is nothing to move.
  assert not list(policy.parameters())


def test_units_of_a_robot(exported, episodes, tmp_path):
  """Scaled back, number by number, and those within are as they were."""
  low, high = [-1.0, 0.0, -30.0, 5.0], [1.0, 2.0, 50.0, 5.0]
  config = MotoConfig.from_export(exported, action_low=low, action_high=high)
  policy = MotoPolicy(config, exported)
  policy.reset()
  found = policy.select_action(batch((episodes[0], 0)))[0].numpy()
  raw = direct(exported, episodes[0])[0]
  np.testing.assert_allclose(found[1:3], [raw[1] + 1, 40 * raw[2] + 10], 1e-5)
  assert found[0] == raw[0] and found[3] == 5
  for settings in (
    {'action_low': low},
    {'action_low': low[:3], 'action_high': high[:3]},
    {'action_low': low, 'action_high': high[:3]},
  ):
    with pytest.raises(ValueError, match='action_low and action_high'):
      MotoPolicy(MotoConfig.from_export(exported, **settings), exported)
  # As moto_tf writes it into the card of a run with scaled demonstrations.
  card = json.loads((exported / 'card.json').read_text())
  card['action'] |= {'data_low': low, 'data_high': high}
  (tmp_path / 'card.json').write_text(json.dumps(card))
  assert MotoConfig.from_export(tmp_path).action_high == high


def test_images_of_cameras(exported, episodes):
  """Of another size, as uint8, under another name, or what is none."""
  config = MotoConfig.from_export(exported, keys={'image': 'observation.top'})
  policy = MotoPolicy(config, exported)
  assert 'observation.top' in config.input_features
  good = batch((episodes[0], 0))
  large = good[IMAGE].repeat_interleave(2, -1).repeat_interleave(3, -2)
  state = {STATE: good[STATE]}
  found = []
  for image in (good[IMAGE], large, (good[IMAGE] * 255).round().byte()):
    policy.reset()
    found.append(policy.select_action({'observation.top': image, **state}))
  wanted = direct(exported, episodes[0])[0]
  policy = MotoPolicy(config, exported)
  policy.reset()
  # The noise depends on the episode, so each is compared with its own.
  for resets, action in enumerate(found, 1):
    np.testing.assert_array_equal(
      action[0], direct(exported, episodes[0], 0, resets)[0]
    )
  only = policy.select_action({'observation.image': good[IMAGE], **state})
  np.testing.assert_array_equal(only[0], wanted)
  for broken, message in (
    ({'observation.top': good[IMAGE]}, "'observation.state' is missing"),
    ({'observation.top': 3 * good[IMAGE], **state}, 'must not be normalised'),
    ({'observation.top': good[IMAGE][:, 0], **state}, 'has shape'),
    ({'observation.top': good[IMAGE], STATE: state[STATE][:, :3]}, 'shape'),
  ):
    with pytest.raises((ValueError, RuntimeError), match=message):
      policy.select_action(broken)


def test_training_is_elsewhere(exported, tmp_path):
  policy = MotoPolicy.from_pretrained(exported)
  for call in (
    lambda: policy.forward({}),
    policy.get_optim_params,
    policy.config.get_optimizer_preset,
    policy.config.get_scheduler_preset,
  ):
    with pytest.raises(NotImplementedError, match='trained by moto_tf'):
      call()
  with pytest.raises(ValueError, match='--policy.path'):
    MotoPolicy(make_policy_config('moto', device='cpu'))
  with pytest.raises(FileNotFoundError, match='export_policy.py'):
    MotoPolicy.from_pretrained(tmp_path)


def test_time_of_an_action(exported, episodes, capsys):
  """Shown, and bounded generously."""
  policy = MotoPolicy.from_pretrained(exported)
  runner = ExportedPolicy(exported)
  obs = batch((episodes[0], 0))
  raw = {k: episodes[0][k][0] for k in ('image', 'state')}
  times = {}
  for name, act in (
    ('LeRobot', lambda: policy.select_action(obs)),
    ('ExportedPolicy', lambda: runner(raw)),
  ):
    spans = []
    for _ in range(200):
      begin = time.perf_counter()
      act()
      spans.append(1e3 * (time.perf_counter() - begin))
    times[name] = min(spans), float(np.median(spans))
  with capsys.disabled():
    print(f'\nms per action, fastest and median: {times}')
  assert times['LeRobot'][0] < 100
