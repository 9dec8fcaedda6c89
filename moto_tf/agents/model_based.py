"""Agents that learn a world model, and the policy from it."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from moto_tf.agents.actor_critic import Actor, EpisodeValues
from moto_tf.agents.assessment import compare_values, overestimation, windows
from moto_tf.agents.averages import AveragedPolicy
from moto_tf.agents.base import (
  Agent,
  check_mode,
  fetch,
  lane_noise,
  to_tensors,
)
from moto_tf.deploy.protocol import ActingStep
from moto_tf.envs import rewards_are_successes
from moto_tf.model.world_model import CONTEXT, WorldModel, success_metrics
from moto_tf.nn import tfutils


class ModelBasedAgent(Agent):
  """World model and behavior: a gradient step trains first one, then the other.

  Args:
    config, obs_space, act_space: as of Agent.
    behavior: makes what trains the policy, as behavior(config, model, A,
      layers), a subclass of moto_tf.agents.actor_critic.ActorCritic.

  Attributes:
    model: WorldModel.
    behavior: what `behavior` made.
  """

  def __init__(self, config, obs_space: dict, act_space, behavior: Callable):
    super().__init__(config, obs_space, act_space)
    shapes = {k: tuple(v.shape) for k, v in obs_space.items()}
    self._size = act_space.shape[0]
    self.model = WorldModel(config, shapes, self._size, self.layers)
    self.behavior = behavior(config, self.model, self._size, self.layers)
    self.remarks = self.behavior.remarks
    self.input_keys = self.model.input_keys
    self.obs_keys = self.model.obs_keys
    self.functions = {
      'model': self.compile(self._model_step, jit=True),
      'behavior': self.compile(self._behavior_step, jit=True),
    }
    nets = self.model.encoder, self.model.rssm, self.behavior.actor
    self._acting, self._average = nets, None
    if config.policy_average:
      self._average = AveragedPolicy(
        *(config, shapes, self._size, self.layers, nets),
        self.behavior.make_actor,
      )
      average = self._average
      self._acting = average.encoder, average.rssm, average.actor
      self._follow = self.compile(average.update)
    self._policy = self.compile(self._policy_step)
    self._report = self.compile(self._report_step)
    self._values = self.compile(self._values_step)

  def policy(
    self,
    obs: dict[str, np.ndarray],
    state: dict | None,
    lanes: tuple[np.ndarray, np.ndarray],
    mode: str = 'train',
  ) -> tuple[np.ndarray, dict]:
    """See Agent.policy. The state holds the posterior and the last action."""
    check_mode(mode)
    count = len(obs['is_first'])
    latent = self.model.rssm.latent
    uniform = lane_noise(lanes, latent.size + self._size)
    noise = latent.noise_of(uniform[:, : latent.size])
    if state is None:
      state = {
        **self.model.rssm.initial(count),
        'action': tf.zeros([count, self._size], tf.float32),
      }
    action, state = self._policy(
      {k: tf.convert_to_tensor(obs[k]) for k in (*self.input_keys, 'is_first')},
      state,
      tf.convert_to_tensor(noise),
      tf.convert_to_tensor(uniform[:, latent.size :]),
      mode,
    )
    return action.numpy(), state

  def acting_step(self, cdf: Callable[[tf.Tensor], tf.Tensor]) -> ActingStep:
    """See Agent.acting_step."""
    how, actor = self._exported_action(), self._acting[2]

    def step(obs, state, noise):
      state, feat = self._observe_step(obs, state, noise['latent'])
      dist = actor.dist(actor.outputs(feat))
      if how == 'mean' and hasattr(dist, 'mean_by'):
        action = dist.mean_by(cdf)
      else:
        action = getattr(dist, how)()
      return action, {**state, 'action': action}

    rssm = self.model.rssm
    start = {**rssm.initial(1), 'action': tf.zeros([1, self._size])}
    state = {k: (tuple(v.shape), v.dtype.name) for k, v in start.items()}
    noise = {'latent': (rssm.latent.noise_kind, (1, *rssm.shape))}
    return ActingStep(step, state, noise)

  def act(
    self,
    feat: tf.Tensor,
    uniform: tf.Tensor,
    mode: str = 'train',
    actor: Actor | None = None,
  ) -> tf.Tensor:
    """Actions [..., A] that `policy` takes in states it has come to know.

    Where episodes are collected with `collect_std` times the noise, samples
    are drawn towards the mean. A narrower truncated normal would have another
    mean: near a bound that of the policy lies far from its mode.

    Args:
      feat: [..., F] of the states.
      uniform: noise [..., A] within (0, 1), where actions are sampled.
      mode: as of `policy`.
      actor: one that takes the place of the trained one, such as an average.
    """
    actor = actor or self.behavior.actor
    dist = actor.dist(actor.outputs(feat))
    how = 'sample' if mode == 'train' else self._config.eval_action
    if how != 'sample':
      return getattr(dist, how)()
    action, share = dist.sample(noise=uniform), self._config.collect_std
    if mode == 'train' and share != 1:
      mean = dist.mean()
      action = tf.clip_by_value(mean + share * (action - mean), -1.0, 1.0)
    return action

  def fit(self, records: Callable[[str], np.ndarray]) -> None:
    """Mean and spread of vector observations; see Agent.fit."""
    units = self.model.standardize
    units.fit({key: records(key) for key in units.keys})

  def report(
    self, batches: list[dict[str, np.ndarray]], step: int
  ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Losses, predicted rewards, and open-loop videos of the first batch.

    Precision and recall are of rewards above 0.5, where these mean success.

    Returns:
      Mean metrics, and videos [T, H, W, C] uint8 by key, whose first frames
      have a green border: there the model saw the image.
    """
    found = [
      self._report(to_tensors(batch), self._seed(3, step + i))
      for i, batch in enumerate(batches)
    ]
    rows = [fetch(metrics) for metrics, _ in found]
    total = {k: sum(row[k] for row in rows) for k in rows[0]}
    hits, wrong, missed = (total.pop(f'reward_{k}') for k in ('tp', 'fp', 'fn'))
    metrics = {k: v / len(rows) for k, v in total.items()}
    if rewards_are_successes(self._config.task):
      metrics['reward_precision'] = hits / max(hits + wrong, 1)
      metrics['reward_recall'] = hits / max(hits + missed, 1)
    return metrics, {k: _mark(v.numpy()) for k, v in found[0][1].items()}

  def assess(self, episodes: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Values that the critics predict, and real ones; see Agent.assess.

    None where the behavior has no `predict_values`, or nothing was done.
    """
    if not hasattr(self.behavior, 'predict_values'):
      return {}
    state, found = self.model.rssm.initial(len(episodes)), []
    keys = (*self.input_keys, 'action', 'reward', 'is_first')
    for number, records in enumerate(windows(episodes, keys)):
      state, values = self._values(
        state, to_tensors(records), self._seed(4, number)
      )
      found.append(values)
    # Without the first, which leads from nothing into s[0].
    parts = zip(*found, strict=True)
    found = EpisodeValues(*(np.concatenate(part)[1:] for part in parts))
    compared = [
      compare_values(found, lane, episode, self._config.discount)
      for lane, episode in enumerate(episodes)
      if len(episode['reward']) > 1
    ]
    return overestimation(compared) if compared else {}

  def variables(self) -> dict[str, tf.Variable]:
    return {
      **self.model.named_variables('model/'),
      **self.model.standardize.state('model/standardize/'),
      **self.model.optimizer.named_variables('model_opt/'),
      **self.behavior.state(),
      **(self._average.state() if self._average else {}),
    }

  def policy_variables(self) -> dict[str, tf.Variable]:
    """Units, encoder, RSSM and actor, averaged ones where these act.

    Without decoder, reward head and priors, which are most of a model.
    """
    acting = ('model/encoder/', 'model/rssm/', 'actor/')
    acting = ('average/',) if self._average else acting
    wanted = ('model/standardize/', *acting)
    return {
      k: v
      for k, v in self.variables().items()
      if k.startswith(wanted) and '/rssm/prior/' not in k
    }

  def traces(self, batch: dict[str, np.ndarray]) -> Iterator[tuple]:
    """See Agent.traces.

    How many records each prior head gets is drawn; together it is all.
    """
    data, seed = to_tensors(batch), self._seed(1, 0)
    records = batch['reward'].size / self._config.rssm.ensemble
    model = self.functions['model'].get_concrete_function(data, seed)
    yield 'model', model.graph, records
    post, _ = model.structured_outputs
    behavior = self.functions['behavior'].get_concrete_function(
      post, data, seed, self._share(0)
    )
    yield 'behavior', behavior.graph, None

  def _train(self, batch, step):
    post, metrics = self.functions['model'](batch, self._seed(1, step))
    part, share = self.behavior.part(step), self._share(step)
    seed = self._seed(2, step)
    mets = self.functions['behavior'](post, batch, seed, share, part)
    if self._average:
      self._follow()
    return {**metrics, **mets}

  def _model_step(self, data, seed):
    return self.model.train(self.model.preprocess(data), seed)

  def _share(self, step):
    # As a tensor, since a number would be traced anew at every step.
    share = self.behavior.share(step)
    return None if share is None else tf.constant(share, tf.float32)

  def _behavior_step(self, post, data, seed, share=None, part='train'):
    data = {k: v for k, v in data.items() if k not in self.obs_keys}
    train = getattr(self.behavior, part)
    args = () if share is None else (share,)
    return train(post, self.model.preprocess(data), seed, *args)

  def _policy_step(self, obs, state, noise, uniform, mode):
    state, feat = self._observe_step(obs, state, noise)
    action = self.act(feat, uniform, mode, self._acting[2])
    return action, {**state, 'action': action}

  def _observe_step(self, obs, state, noise):
    """The state that an observation leads to, and its features."""
    obs = self.model.preprocess(obs)
    encoder, rssm, _ = self._acting
    embed = encoder(obs)
    state = dict(state)
    action = state.pop('action')
    state = rssm.obs_step(state, action, embed, obs['is_first'], noise)
    return state, rssm.get_feat(state)

  def _report_step(self, data, seed):
    loss_seed, video_seed = tfutils.split(seed, 2)
    data = self.model.preprocess(data)
    loss, post, metrics = self.model.loss(data, loss_seed)
    reward = self.model.predict_reward(post['feat'])
    metrics = {
      'model_loss': loss,
      **metrics,
      **success_metrics(reward, data['reward']),
      **self.behavior.report(post, data, tfutils.split(video_seed, 1)[0]),
    }
    return metrics, self.model.video(data, video_seed)

  def _values_step(self, state, records, seed):
    """Values along a window of `windows`, from the state of its first record.

    Returns:
      The state of its last record, and what `predict_values` returns.
    """
    noise_seed, action_seed = tfutils.split(seed, 2)
    data = {k: records[k][1:] for k in (*self.input_keys, 'is_first')}
    data = self.model.preprocess(data)
    embed, action = self.model.encoder(data), records['action']
    steps, count = embed.shape[:2]
    noise = self.model.rssm.latent.noise([steps, count], noise_seed)
    states = [state]
    for t in range(steps):
      now = action[t + 1], embed[t], data['is_first'][t], noise[t]
      states.append(self.model.rssm.obs_step(states[-1], *now))
    post = {k: tf.stack([s[k] for s in states]) for k in state}
    post['feat'] = self.model.rssm.get_feat(post)
    uniform = tfutils.uniform(action.shape.as_list(), action_seed)
    last = self.act(post['feat'], uniform, 'eval')
    return states[-1], self.behavior.predict_values(post, records, last)


def _mark(video, border=2):
  """To uint8, with a green border on the frames the model has seen."""
  video = (np.clip(video, 0, 1) * 255).astype(np.uint8)
  green = np.zeros(video.shape[-1], np.uint8)
  green[1:2] = 200
  frames = video[: min(CONTEXT, len(video) - 1)]
  frames[:, :border] = frames[:, -border:] = green
  frames[:, :, :border] = frames[:, :, -border:] = green
  return video
