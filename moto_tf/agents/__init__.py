"""Behaviors: what trains the policy. A new one is a file and a line here.

A behavior is built as Behavior(config, world_model, action_size, layers) and
has
  actor                        maps features to the distribution of actions
  train(post, data, seed)      one gradient step on a batch, returns metrics
  state()                      variables to save, by name
It best derives from ActorCritic, which has all but `train`.
"""

from moto_tf.agents import dreamer, moto

BEHAVIORS = {
  'moto': moto.MOTO,
  'dreamer': dreamer.Dreamer,
}
