"""Behaviors: what trains the policy. A new one is a file and a line here.

A behavior is a Module built as Behavior(config, world_model, action_size,
layers) with
  actor               maps features to the distribution of actions
  train(post, data, seed) -> metrics   one gradient step on a batch
  state()             variables and optimizers to save, by name
"""

from . import dreamer, moto

BEHAVIORS = {
  'moto': moto.MOTO,
  'dreamer': dreamer.Dreamer,
}
