"""The agent: acts, learns from a batch, and reports what it has learned."""

import time

import numpy as np
import tensorflow as tf

from moto_tf.agents import BEHAVIORS
from moto_tf.model.world_model import CONTEXT, WorldModel, success_metrics
from moto_tf.nn import tfutils
from moto_tf.nn.layers import Layers
from moto_tf.train.checkpoint import CheckpointError


class Agent:
  """World model and behavior behind policy, train and report.

  All randomness derives from seeds given as arguments, never from a hidden
  generator, so equal inputs give equal outputs and a run can be resumed.

  Args:
    config: the run's configuration.
    obs_space: observation spaces by key.
    act_space: Box of shape [A] on [-1, 1].

  Attributes:
    functions: the two halves of a gradient step.
    seconds: spent in `train` so far.
  """

  def __init__(self, config, obs_space: dict, act_space):
    self._config = config
    precision = tfutils.setup(config.precision, config.eager)
    jit = config.jit and not config.eager
    cpu = not jit and not tf.config.list_logical_devices('GPU')
    layers = Layers(config.seed, precision, cpu)
    shapes = {k: tuple(v.shape) for k, v in obs_space.items()}
    self._size = act_space.shape[0]
    self.model = WorldModel(config, shapes, self._size, layers)
    self.behavior = BEHAVIORS[config.behavior](
      config, self.model, self._size, layers
    )
    encoder, decoder = self.model.encoder, self.model.decoder
    self.obs_space = obs_space
    self.act_space = act_space
    self.input_keys = [*encoder.cnn_keys, *encoder.mlp_keys]
    self.obs_keys = sorted(
      {*self.input_keys, *decoder.cnn_keys, *decoder.mlp_keys}
    )
    function = tfutils.function
    self.functions = {
      'model': function(self._model_step, jit),
      'behavior': function(self._behavior_step, jit),
    }
    self._policy = function(self._policy_step)
    self._report = function(self._report_step)
    self.seconds = 0.0

  def policy(
    self,
    obs: dict[str, np.ndarray],
    state: dict | None,
    lanes: tuple[np.ndarray, np.ndarray],
    mode: str = 'train',
  ) -> tuple[np.ndarray, dict]:
    """Actions for N environments; what a lane does depends on it alone.

    Args:
      obs: observations [N, ...] with is_first [N].
      state: what the previous call returned, or None.
      lanes: seed [N] of each lane's episode and its agent step [N].
      mode: train samples the action, eval takes what `eval_action` says.

    Raises:
      ValueError: there is no such mode.

    Returns:
      Actions [N, A] within [-1, 1], and the next state.
    """
    if mode not in ('train', 'eval'):
      raise ValueError(f"mode is 'train' or 'eval', got {mode!r}.")
    count = len(obs['is_first'])
    rssm = self.model.rssm
    stoch = int(np.prod(rssm.shape))
    uniform = np.stack(
      [
        np.random.default_rng([int(seed), int(step)]).random(
          stoch + self._size, np.float32
        )
        for seed, step in zip(*lanes, strict=True)
      ]
    )
    uniform = np.clip(uniform, 1e-7, 1 - 1e-7)
    noise = -np.log(-np.log(uniform[:, :stoch]))
    if state is None:
      state = {
        **rssm.initial(count),
        'action': tf.zeros([count, self._size], tf.float32),
      }
    action, state = self._policy(
      {k: tf.convert_to_tensor(obs[k]) for k in (*self.input_keys, 'is_first')},
      state,
      tf.reshape(noise, [count, *rssm.shape]),
      tf.convert_to_tensor(uniform[:, stoch:]),
      mode,
    )
    return action.numpy(), state

  def act(
    self, feat: tf.Tensor, uniform: tf.Tensor, mode: str = 'train'
  ) -> tf.Tensor:
    """Actions [..., A] that `policy` takes in states it has come to know.

    Args:
      feat: [..., F] of the states.
      uniform: noise [..., A] within (0, 1), where actions are sampled.
      mode: as of `policy`.
    """
    dist = self.behavior.actor(feat)
    how = 'sample' if mode == 'train' else self._config.eval_action
    return dist.sample(uniform) if how == 'sample' else getattr(dist, how)()

  def fit(self, data: dict[str, np.ndarray]) -> None:
    """Fixes the units of vector observations, by records [N, ...] of them.

    Before the first gradient step, and never again.
    """
    self.model.standardize.fit(data)

  def train(self, data: dict[str, np.ndarray], step: int) -> dict[str, float]:
    """One gradient step of model, actor and critics (Algorithm 1).

    Args:
      data: batch of Replay.sample, [B, T, ...].
      step: number of the gradient step; together with the configured seed it
        fixes all randomness.

    Returns:
      Scalar metrics by name.
    """
    begin = time.perf_counter()
    data = self._tensors(data)
    model, behavior = self.functions['model'], self.functions['behavior']
    seeds = [tfutils.make_seed(self._config.seed, k, step) for k in (1, 2)]
    post, metrics = model(data, tf.convert_to_tensor(seeds[0]))
    mets = behavior(post, data, tf.convert_to_tensor(seeds[1]))
    metrics = _fetch({**metrics, **mets})
    self.seconds += time.perf_counter() - begin
    return metrics

  def report(
    self, data: dict[str, np.ndarray], step: int
  ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Losses, success prediction and open-loop videos without learning.

    Returns:
      Scalar metrics, and videos [T, H, W, C] uint8 by key, whose first frames
      have a green border: there the model saw the image.
    """
    seed = tfutils.make_seed(self._config.seed, 3, step)
    metrics, videos = self._report(
      self._tensors(data), tf.convert_to_tensor(seed)
    )
    return _fetch(metrics), {k: _mark(v.numpy()) for k, v in videos.items()}

  def state(self) -> dict[str, tf.Variable]:
    """Every variable that learning or the data change, by name."""
    return {
      **self.model.named_variables('model/'),
      **self.model.standardize.state('model/standardize/'),
      **self.model.optimizer.named_variables('model_opt/'),
      **self.behavior.state(),
    }

  def save(self) -> dict[str, np.ndarray]:
    """Arrays for a checkpoint."""
    return {k: v.numpy() for k, v in self.state().items()}

  def load(
    self, arrays: dict[str, np.ndarray], policy_only: bool = False
  ) -> None:
    """Restores what `save` returned, at any precision.

    Args:
      arrays: of a checkpoint.
      policy_only: leaves out critics and optimizers, for acting alone.

    Raises:
      CheckpointError: names or shapes differ from this agent's.
    """
    state = self.state()
    if policy_only:
      wanted = lambda name: name.startswith(('model/', 'actor/'))
      state = {k: v for k, v in state.items() if wanted(k)}
      arrays = {k: v for k, v in arrays.items() if wanted(k)}
    # A run may change its precision; a new loss scale adapts by itself.
    common = lambda name: '/loss_scale/' not in name or name in arrays
    state = {k: v for k, v in state.items() if common(k)}
    arrays = {
      k: v for k, v in arrays.items() if '/loss_scale/' not in k or k in state
    }
    wrong = sorted(set(state) ^ set(arrays)) or [
      f'{k} {arrays[k].shape}, expected {tuple(v.shape)}'
      for k, v in state.items()
      if arrays[k].shape != tuple(v.shape)
    ]
    if wrong:
      raise CheckpointError(
        f'The checkpoint does not fit this configuration: {len(wrong)} of '
        f"{len(state)} arrays differ, such as {wrong[:3]}. Use the logdir's "
        'own config.yaml, or a new --logdir for other sizes.'
      )
    for key, var in state.items():
      var.assign(arrays[key])

  def _model_step(self, data, seed):
    return self.model.train(self.model.preprocess(data), seed)

  def _behavior_step(self, post, data, seed):
    data = {k: v for k, v in data.items() if k not in self.obs_keys}
    return self.behavior.train(post, self.model.preprocess(data), seed)

  def _policy_step(self, obs, state, noise, uniform, mode):
    obs = self.model.preprocess(obs)
    embed = self.model.encoder(obs)
    state = dict(state)
    action = state.pop('action')
    state = self.model.rssm.obs_step(
      state, action, embed, obs['is_first'], noise
    )
    action = self.act(self.model.rssm.get_feat(state), uniform, mode)
    return action, {**state, 'action': action}

  def _report_step(self, data, seed):
    loss_seed, video_seed = tfutils.split(seed, 2)
    data = self.model.preprocess(data)
    loss, post, metrics = self.model.loss(data, loss_seed)
    reward = self.model.predict_reward(post['feat'])
    metrics = {
      'model_loss': loss,
      **metrics,
      **success_metrics(reward, data['reward']),
    }
    return metrics, self.model.video(data, video_seed)

  def _tensors(self, data):
    return {k: tf.convert_to_tensor(v) for k, v in data.items()}


def _fetch(metrics):
  """Scalars to floats, in one transfer from the device."""
  values = tf.stack([tf.cast(v, tf.float32) for v in metrics.values()])
  return dict(zip(metrics, values.numpy().tolist(), strict=True))


def _mark(video, border=2):
  """To uint8, with a green border on the frames the model has seen."""
  video = (np.clip(video, 0, 1) * 255).astype(np.uint8)
  green = np.zeros(video.shape[-1], np.uint8)
  green[1:2] = 200
  frames = video[: min(CONTEXT, len(video) - 1)]
  frames[:, :border] = frames[:, -border:] = green
  frames[:, :, :border] = frames[:, :, -border:] = green
  return video
