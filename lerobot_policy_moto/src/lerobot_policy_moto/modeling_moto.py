"""A policy that moto_tf has exported, behind the interface of LeRobot."""

import shutil
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from PIL import Image
from torch import Tensor

from lerobot_policy_moto.configuration_moto import TRAINING, MotoConfig
from lerobot_policy_moto.processor_moto import make_moto_pre_post_processors
from lerobot_policy_moto.runner import FILES, ExportedPolicy

# What an export has and acting needs; of CARD.md people read.
COPIED = ('card.json', 'CARD.md', 'moto_policy.py', *FILES.values())
IMAGE = 'observation.image'


class MotoPolicy(PreTrainedPolicy):
  """Acts as `ExportedPolicy` does, one for each environment of a batch.

  It acts by its own copy of the runner, so nothing that lies in the directory
  is executed.
  """

  config_class = MotoConfig
  name = 'moto'

  def __init__(
    self, config: MotoConfig, directory: str | Path | None = None, **unused: Any
  ):
    """Takes settings and the directory of an export.

    Args:
      config: settings.
      directory: of card.json; by default config.pretrained_path.
      unused: what LeRobot's factory gives to all policies, such as statistics.

    Raises:
      ValueError: there is no directory, or the settings cannot be.
      FileNotFoundError: it has no export.
    """
    del unused
    super().__init__(config)
    config.validate_features()
    directory = directory or config.pretrained_path
    if directory is None:
      raise ValueError(
        'A policy of type moto is read from a directory; give its path, as by '
        f'--policy.path. {TRAINING}'
      )
    self._directory = Path(directory).expanduser()
    if not (self._directory / 'card.json').is_file():
      raise FileNotFoundError(
        f'{self._directory}: there is no card.json here. Expected a directory '
        'of moto_tf, written by python scripts/export_policy.py; one on the '
        'Hub is downloaded first: hf download USER/NAME --local-dir DIRECTORY.'
      )
    if config.format not in FILES:
      raise ValueError(f'format is one of {[*FILES]}, got {config.format!r}.')
    self._resets, self._acted = 0, False
    self._held, self._left = None, 0  # An action, and calls that repeat it.
    self._lanes = [self._lane(0)]
    card = self._lanes[0].card
    trained = card['action']['repeat']
    if config.repeat is None and trained > 1:
      warnings.warn(
        f'{self._directory}: was trained with each action held for {trained} '
        'steps of its environment, and here each call gives a new one. Set '
        f'repeat to {trained} where an environment of LeRobot makes single '
        'steps, else to 1.',
        stacklevel=2,
      )
    self._parts = card['interface']['observations']
    for end in (config.action_low, config.action_high):
      if end is not None and len(end) != card['action']['size']:
        raise ValueError(
          f'action_low and action_high have {len(end)} numbers, an action has '
          f'{card["action"]["size"]}.'
        )

  @classmethod
  def from_pretrained(
    cls,
    pretrained_name_or_path: str | Path,
    *,
    config: MotoConfig | None = None,
    **unused: Any,
  ) -> Self:
    """The policy of a directory: an export, or what `save_pretrained` wrote.

    Args:
      pretrained_name_or_path: the directory.
      config: settings; by default those of config.json there, or of the card.
      unused: settings of downloads and weights, which it has none of.

    Raises:
      FileNotFoundError: there is no such directory.
    """
    del unused
    path = Path(pretrained_name_or_path).expanduser()
    if config is None and (path / 'config.json').is_file():
      config = MotoConfig.from_pretrained(path)
    config = config or MotoConfig.from_export(path)
    return cls(config, path).eval()

  def _save_pretrained(self, save_directory: Path, state_dict=None) -> None:
    """Copies the export, and writes settings and processors beside it."""
    del state_dict
    for name in COPIED:
      source, target = self._directory / name, Path(save_directory) / name
      if source.is_file() and source.resolve() != target.resolve():
        shutil.copyfile(source, target)
    self.config._save_pretrained(Path(save_directory))
    for processor in make_moto_pre_post_processors(self.config):
      processor.save_pretrained(save_directory)

  def reset(self) -> None:
    """Forgets the past; the next observations start episodes."""
    self._resets, self._acted = self._resets + 1, False
    self._held, self._left = None, 0
    for lane in self._lanes:
      lane.reset()

  @torch.no_grad()
  def select_action(self, batch: dict[str, Tensor], **unused: Any) -> Tensor:
    """Actions [B, A] for observations of B environments.

    Of `repeat` calls the first one acts, and the others return the same.

    Args:
      batch: images [B, C, H, W], as floats within 0 and 1 or as uint8, and
        vectors [B, N]. Images of other sizes are resized.
      unused: settings of policies that draw chunks.

    Raises:
      ValueError: an observation is missing or of another shape or range, or
        B has changed within an episode.
    """
    del unused
    found = {key: batch[self._find(key, batch)] for key in self._parts}
    device = next(iter(found.values())).device
    count = len(next(iter(found.values())))
    if len(self._lanes) != count:
      self._resize(count)
    if self._left:
      self._left -= 1
      return self._held.clone().to(device)
    self._acted, actions = True, []
    for i, lane in enumerate(self._lanes):
      obs = {k: self._convert(k, v[i]) for k, v in found.items()}
      actions.append(lane(obs))
    self._held = torch.from_numpy(self._scale(np.stack(actions)))
    self._left = (self.config.repeat or 1) - 1
    return self._held.clone().to(device)

  def predict_action_chunk(
    self, batch: dict[str, Tensor], **unused: Any
  ) -> Tensor:
    """A chunk of the one next action [B, 1, A]; see `select_action`.

    Each call is one of `select_action`: the policy remembers what it has seen.
    """
    return self.select_action(batch, **unused)[:, None]

  def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
    """Raises NotImplementedError: LeRobot does not train it."""
    raise NotImplementedError(TRAINING)

  def get_optim_params(self) -> dict:
    """Raises NotImplementedError: LeRobot does not train it."""
    raise NotImplementedError(TRAINING)

  def _lane(self, index):
    """The policy of environment `index`, in the episode of the others."""
    lane = ExportedPolicy(
      self._directory,
      self.config.format,
      self.config.seed + index,
      self.config.threads,
    )
    for _ in range(self._resets):
      lane.reset()
    return lane

  def _resize(self, count):
    if self._acted:
      raise ValueError(
        f'The batch has {count} environments, and had {len(self._lanes)} '
        'before in this episode; call reset() first.'
      )
    more = range(len(self._lanes), count)
    self._lanes = self._lanes[:count] + [self._lane(i) for i in more]

  def _find(self, key, batch):
    """Name in a batch of an observation of the policy.

    LeRobot calls the only camera of an environment otherwise than those of a
    robot, so where one image is needed and one is there, it is taken.
    """
    name = self.config.keys.get(key, f'observation.{key}')
    if name in batch:
      return name
    images = [x for x in batch if x.startswith(IMAGE)]
    needed = [k for k, v in self._parts.items() if v['dtype'] == 'uint8']
    if needed == [key] and len(images) == 1:
      return images[0]
    raise ValueError(
      f'Observation {name!r} is missing, found {sorted(map(str, batch))}. '
      f'Which one is {key!r} is said by the setting keys, or by renaming.'
    )

  def _convert(self, key, value):
    """A tensor as the array that the policy was made for."""
    part = self._parts[key]
    value = value.detach().cpu()
    if part['dtype'] != 'uint8':
      return value.reshape(part['shape']).numpy()
    height, width, channels = part['shape']
    if value.ndim != 3 or value.shape[0] != channels:
      raise ValueError(
        f'Observation {key!r} has shape {[*value.shape]}, expected '
        f'[{channels}, height, width].'
      )
    image = value.permute(1, 2, 0).numpy()
    if image.dtype != np.uint8:
      if not (
        np.isfinite(image).all() and 0 <= image.min() <= image.max() <= 1
      ):
        raise ValueError(
          f'Observation {key!r} has numbers beyond 0 and 1; images must not be '
          'normalised, as the policy does it itself.'
        )
      image = np.rint(image * 255).astype(np.uint8)
    if image.shape[:2] != (height, width):
      # As moto_tf resizes the images of demonstrations.
      picture = Image.fromarray(image)
      picture = picture.resize((width, height), Image.Resampling.BOX)
      image = np.array(picture)
    return image

  def _scale(self, action):
    """Actions [B, A] within -1 and 1 in units of the robot."""
    if self.config.action_low is None:
      return action
    low, high = (
      np.array(x, np.float32)
      for x in (self.config.action_low, self.config.action_high)
    )
    scaled = low + (action + 1) / 2 * (high - low)
    # Numbers that were left as they were are left again, to the last digit.
    same = (low == -1) & (high == 1)
    return np.where(same, action, scaled).astype(np.float32)
