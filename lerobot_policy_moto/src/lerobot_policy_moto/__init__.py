"""Policies that moto_tf has exported, as policies of LeRobot of type `moto`."""

from lerobot_policy_moto.configuration_moto import MotoConfig
from lerobot_policy_moto.modeling_moto import MotoPolicy
from lerobot_policy_moto.processor_moto import make_moto_pre_post_processors

__all__ = ['MotoConfig', 'MotoPolicy', 'make_moto_pre_post_processors']
