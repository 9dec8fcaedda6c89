"""What LeRobot knows of a policy of moto_tf before it acts."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lerobot.configs import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

TRAINING = (
  'A policy of type moto has been trained by moto_tf, and LeRobot cannot train '
  'it further. Train it there: python scripts/train.py, then '
  'python scripts/export_policy.py.'
)


def _nothing():
  return {x.name: NormalizationMode.IDENTITY for x in FeatureType}


@PreTrainedConfig.register_subclass('moto')
@dataclass
class MotoConfig(PreTrainedConfig):
  """Settings of an exported policy.

  Attributes:
    format: float32, or int8 for weights of eight bits.
    seed: of the noise; environment i of a batch has seed + i.
    threads: that LiteRT may use.
    repeat: calls that an action is held for. A policy that was trained with
      `env.action_repeat` 2 in a simulator needs 2 where LeRobot steps that
      simulator, and 1 where each call is a step of the policy, as at the rate
      of a dataset that moto_tf exported. None is 1, with a warning where the
      card says more.
    keys: the observation of LeRobot that each one of the policy is.
    action_low, action_high: what -1 and 1 of an action are in units of the
      robot, a number for each of its numbers; None: actions are left as they
      are.
  """

  format: str = 'float32'
  seed: int = 0
  threads: int = 1
  repeat: int | None = None
  keys: dict[str, str] = field(default_factory=dict)
  action_low: list[float] | None = None
  action_high: list[float] | None = None
  # Nothing is normalised: the policy does it itself.
  normalization_mapping: dict[str, NormalizationMode] = field(
    default_factory=_nothing
  )

  @classmethod
  def from_export(cls, directory: str | Path, **settings: Any) -> Self:
    """Settings for a directory of moto_tf's export_policy.

    Args:
      directory: of card.json.
      settings: take the place of what the card says; of keys, those given.

    Raises:
      FileNotFoundError: there is no card.json.
    """
    path = Path(directory).expanduser() / 'card.json'
    if not path.is_file():
      raise FileNotFoundError(
        f'{path}: there is no such file. Expected a directory that moto_tf has '
        'written by python scripts/export_policy.py.'
      )
    card = json.loads(path.read_text('utf-8'))
    keys, inputs = dict(settings.pop('keys', {})), {}
    for key, part in card['interface']['observations'].items():
      shape = part['shape']
      if part['dtype'] == 'uint8':
        keys.setdefault(key, f'observation.images.{key}')
        kind, shape = FeatureType.VISUAL, (shape[2], *shape[:2])
      else:
        keys.setdefault(key, f'observation.{key}')
        kind = FeatureType.STATE
      inputs[keys[key]] = PolicyFeature(type=kind, shape=tuple(shape))
    action = card['action']
    shape = (action['size'],)
    found = {
      'keys': keys,
      'input_features': inputs,
      'output_features': {
        'action': PolicyFeature(type=FeatureType.ACTION, shape=shape)
      },
      'action_low': action.get('data_low'),
      'action_high': action.get('data_high'),
      # LiteRT runs on the CPU.
      'device': 'cpu',
      'push_to_hub': False,
    }
    return cls(**found | settings)

  def validate_features(self) -> None:
    """Raises ValueError where `repeat` or the range of an action is none."""
    whole = self.repeat is None or type(self.repeat) is int
    if not whole or (self.repeat is not None and self.repeat < 1):
      raise ValueError(
        f'repeat is {self.repeat!r}, expected a number of calls from 1.'
      )
    ends = [self.action_low, self.action_high]
    if ends == [None, None]:
      return
    if None in ends or len(self.action_low) != len(self.action_high):
      raise ValueError(
        'action_low and action_high go together, with a number for each '
        f'number of an action; got {self.action_low} and {self.action_high}.'
      )

  @property
  def observation_delta_indices(self) -> None:
    """Frames beside the one of now: none, as the policy remembers."""
    return None

  @property
  def action_delta_indices(self) -> None:
    """Actions to learn from: none."""
    return None

  @property
  def reward_delta_indices(self) -> None:
    """Rewards to learn from: none."""
    return None

  def get_optimizer_preset(self) -> None:
    """Raises NotImplementedError: LeRobot does not train it."""
    raise NotImplementedError(TRAINING)

  def get_scheduler_preset(self) -> None:
    """Raises NotImplementedError: LeRobot does not train it."""
    raise NotImplementedError(TRAINING)
