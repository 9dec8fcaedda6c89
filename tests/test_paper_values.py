"""The paper's numbers, and DreamerV2's defaults, as settings.

C.1 and C.3 print the first; for all else C.3 says that hyperparameters "are the
default values in the DreamerV2 repository".
"""

import pytest

from moto_tf.presets import make_config

LAYERS = (400, 400, 400, 400)
# Of every suite, by where it is said.
ARCHITECTURE = {
  # C.3.
  'encoder.cnn_depth': 48,
  'encoder.cnn_kernels': (4, 4, 4, 4),
  'decoder.cnn_depth': 32,
  'decoder.cnn_kernels': (5, 5, 6, 6),
  'encoder.mlp_layers': LAYERS,
  'decoder.mlp_layers': LAYERS,
  'reward_head.layers': LAYERS,
  'discount_head.layers': LAYERS,
  'actor.layers': LAYERS,
  'critic.layers': LAYERS,
  'rssm.ensemble': 7,
  # DreamerV2.
  'rssm.stoch': 32,
  'rssm.discrete': 32,
  'rssm.deter': 1024,
  'rssm.hidden': 1024,
  **{
    f'{part}.{key}': value
    for part in (
      *('encoder', 'decoder', 'rssm', 'reward_head', 'discount_head'),
      *('actor', 'critic'),
    )
    for key, value in (('act', 'elu'), ('norm', 'none'))
  },
  'actor.min_std': 0.1,
}
OPTIMISERS = {
  # C.3.
  'model_opt.lr': 1e-4,
  'actor_opt.lr': 8e-5,
  'critic_opt.lr': 8e-5,
  # DreamerV2.
  **{
    f'{part}_opt.{key}': value
    for part in ('model', 'actor', 'critic')
    for key, value in (('eps', 1e-5), ('clip', 100), ('wd', 1e-6))
  },
}
TRAINING = {
  # C.3: batch sizes of model and agent, penalty, cloning.
  'replay.batch': 16,
  'moto.start_states': 128,
  'moto.alpha': 10,
  'moto.beta': 10,
  # DreamerV2.
  'replay.length': 50,
  'horizon': 15,
  'discount': 0.99,
  'discount_lambda': 0.95,
  'actor_ent': 1e-4,
  'slow_target_update': 100,
  'slow_target_fraction': 1,
  'kl.balance': 0.8,
  'kl.free': 0,
  'kl.forward': False,
  'kl.free_avg': True,
  **{
    f'loss_scales.{key}': 1
    for key in ('kl', 'image', 'vector', 'reward', 'discount')
  },
  # A single image of 64 x 64 (C.1), the newest policy, and all of its noise.
  'env.image_size': 64,
  'env.extra_size': 0,
  'policy_average': 0,
  'collect_std': 1,
  # Uniform over all transitions (Algorithm 1).
  'replay.offline_share': -1,
  'replay.success_share': 0,
  'replay.offline_episodes': 0,
}
# C.1: gradient steps offline, online and per episode, and the action repeat.
METAWORLD = 1_000, 20_000, 20, 2
KITCHEN = 10_000, 66_300, 50, 1
SUITES = {
  (): METAWORLD,
  ('metaworld',): METAWORLD,
  ('kitchen',): KITCHEN,
  ('kitchen_partial',): KITCHEN,
}
STEPS = (
  *('offline_steps', 'online_steps', 'updates_per_episode'),
  'env.action_repeat',
)
# C.3: learning rates of model, policy and critics, batch sizes, lambda, alpha.
LATENT = {
  'model_opt.lr': 6e-4,
  'actor_opt.lr': 3e-4,
  'critic_opt.lr': 3e-4,
  'replay.batch': 64,
  'latent.batch': 256,
  'encoder.cnn_depth': 32,
  'encoder.cnn_kernels': (4, 4, 4, 4),
  'decoder.cnn_depth': 32,
  'decoder.cnn_kernels': (5, 5, 6, 6),
  'rssm.ensemble': 7,
  'lompo.lmbd': 5,
  'combo.conservatism': 2.5,
}
# C.4 and, of the stack of images, C.1.
MODEL_FREE = {
  'model_free.frames': 3,
  'model_free.channels': (32, 64, 128, 256),
  'model_free.latent': 50,
  'model_free.layers': (256, 256),
  'model_free.tau': 0.005,
  'model_free_opt.lr': 3e-4,
  'cql.alpha': 5,
  'iql.expectile': 0.5,
  'iql.temperature': 3,
  'replay.batch': 256,
  'discount': 0.99,
}


def differences(config, table):
  """Settings that are others than those of a table: found and wanted."""
  return {k: (config[k], v) for k, v in table.items() if config[k] != v}


@pytest.mark.parametrize('suite', SUITES)
def test_moto(suite):
  config = make_config(*suite)
  for table in (ARCHITECTURE, OPTIMISERS, TRAINING):
    assert not differences(config, table)
  assert not differences(config, dict(zip(STEPS, SUITES[suite], strict=True)))
  # What is printed beyond that is in one more preset.
  paper = make_config(*suite, 'paper')
  assert paper.encoder.cnn_layers == paper.decoder.cnn_layers == LAYERS
  assert paper.moto.penalty == 'logit_std'


@pytest.mark.parametrize('suite', SUITES)
def test_ablations_and_dreamer_have_the_same(suite):
  """But for the two factors, says C.3."""
  factors = ('moto.alpha', 'moto.beta')
  rest = {k: v for k, v in TRAINING.items() if k not in factors}
  for method, alpha, beta in (
    ('no_unc', 0, 10),
    ('no_bc', 10, 0),
    ('no_bc_no_unc', 0, 0),
    ('dreamerv2_paper', None, None),
  ):
    config = make_config(*suite, method)
    for table in (ARCHITECTURE, OPTIMISERS, rest):
      assert not differences(config, table), method
    if alpha is not None:
      assert (config.moto.alpha, config.moto.beta) == (alpha, beta)


@pytest.mark.parametrize('method', ['lompo', 'combo'])
@pytest.mark.parametrize('suite', SUITES)
def test_latent_methods(suite, method):
  config = make_config(*suite, 'latent_paper', method)
  assert not differences(config, LATENT)
  assert not differences(config, dict(zip(STEPS, SUITES[suite], strict=True)))


@pytest.mark.parametrize('method', ['bc', 'sac', 'cql', 'iql'])
@pytest.mark.parametrize('suite', SUITES)
def test_model_free_methods(suite, method):
  config = make_config(*suite, method)
  assert not differences(config, MODEL_FREE)
  # Windows of a stack and the image after it, so one step of each.
  assert config.replay.length - config.model_free.frames == 1
  assert not differences(config, dict(zip(STEPS, SUITES[suite], strict=True)))
