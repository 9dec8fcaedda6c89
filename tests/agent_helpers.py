"""Agents of MOTO and DreamerV2 by name, and steps of them."""

from helpers import make_agent, make_batch, tiny_config

PRESETS = {
  'moto': {'method': 'moto'},
  'dreamer': {'method': 'dreamerv2', 'rssm__ensemble': 1},
}


def make(behavior='moto', **overrides):
  config = tiny_config(**{**PRESETS[behavior], **overrides})
  return make_agent(config), config


def train(agent, config, steps, first=0):
  """Metrics of `steps` gradient steps, each on a batch of its own."""
  return [
    agent.train(make_batch(config, step, ((1, 2),)), step)
    for step in range(first, first + steps)
  ]
