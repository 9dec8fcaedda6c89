"""What happens to observations and actions around a policy of moto_tf."""

from typing import Any

from lerobot.processor.factory import make_default_pre_post_processors

from lerobot_policy_moto.configuration_moto import MotoConfig


def make_moto_pre_post_processors(
  config: MotoConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[Any, Any]:
  """Processors that rename, add the axis of a batch, move, and change nothing.

  Statistics are not used: config.normalization_mapping says so.
  """
  return make_default_pre_post_processors(config, dataset_stats)
