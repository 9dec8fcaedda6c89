"""The penalty against the model's real error, on and off the data."""

from collections.abc import Iterable

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moto_tf.agents.penalties import statistics
from moto_tf.nn.tfutils import split, uniform
from moto_tf.results.plotting import COLORS, STYLE, new_figure
from moto_tf.studies import StudyResult, StudySkipped
from moto_tf.studies.common import LEGEND, SEED, fixed_seed, show, spearman

STATES = 512  # At most, that imagination starts from.
STEPS = 10  # Imagined under each kind of action.
# Style and name of the kinds of actions; the policy often hides the recorded.
KINDS = {
  'recorded': ('-', 'recorded actions'),
  'policy': ('--', 'samples of the policy'),
  'random': ('-', 'uniform noise'),
  'negated': ('-', 'recorded actions, negated'),
}


def measure(context) -> StudyResult:
  """The study `penalty` of a studies.context.Context."""
  numbers = measure_penalty(
    context.agent, context.recorded, context.recorded_posts
  )
  text = f'Imagined from {context.data}:\n{penalty_table(numbers)}'
  return StudyResult(numbers, text, {'penalty': draw(numbers)})


def draw_starts(lengths: list[int], steps: int) -> np.ndarray:
  """States that `steps` actions of the same episode follow.

  Args:
    lengths: transitions T of each episode, which has T + 1 records.

  Returns:
    Records, counted through all episodes, [N] with N up to STATES; uniform
    without replacement, in order.
  """
  firsts = np.cumsum([0, *(t + 1 for t in lengths)])
  starts = [
    first + i
    for first, t in zip(firsts, lengths, strict=False)
    for i in range(t - steps + 1)
  ]
  picked = np.random.default_rng(SEED).permutation(starts)[:STATES]
  return np.sort(picked).astype(int)


def imagine(
  agent,
  start: dict,
  actions: tf.Tensor | None,
  steps: int,
  mode: str = 'train',
  names: Iterable[str] | None = None,
  number: int = 0,
) -> tuple[dict[str, np.ndarray], list[tf.Tensor]]:
  """Rolls out in the model and measures the disagreement at every step.

      state     s[0]    s[1]    ...    s[K]
      action      a[0]    a[1]                  u[k] is of s[k], a[k] (Eq. 2)

  Members and noise are the same in every call, so that kinds of actions
  differ by nothing else. They are drawn as in WorldModel.imagine.

  Args:
    start: deter and stoch [N, ...].
    actions: [K, N, A], or None for those of the policy.
    mode: of the policy: train samples, as where it is trained, `collect_std`
      or not; eval acts as in evaluation. It is the trained one, also where
      averaged weights act.
    names: statistics that are measured; None for all that the agent's latents
      have.
    number: another one gives other members and noise.

  Returns:
    The statistics by name, [K, N], and the features of s[1] to s[K].
  """
  rssm, count = agent.model.rssm, start['deter'].shape[0]
  seed = fixed_seed(3, number) if number else fixed_seed(3)
  member_seed, stoch_seed, action_seed = split(seed, 3)
  members = rssm.draw_members(steps, member_seed)
  noise = rssm.latent.noise([steps, count], stoch_seed)
  shape = [steps + 1, count, agent.act_space.shape[0]]
  action_noise = uniform(shape, action_seed)

  def act(k, state):
    if actions is not None:
      return actions[k]
    feat, noise = rssm.get_feat(state), action_noise[k]
    if mode == 'eval':
      return agent.act(feat, noise, mode)
    actor = agent.behavior.actor
    return actor.dist(actor.outputs(feat)).sample(noise=noise)

  states = rssm.imagine(start, act, members, noise)[1:]
  penalties = statistics(rssm.latent)
  found = {name: [] for name in (penalties if names is None else names)}
  for state in states if found else ():
    stats = rssm.prior_all(state['deter'])
    for name, values in found.items():
      values.append(penalties[name](stats, state['stoch']).numpy())
  found = {k: np.array(v, np.float64) for k, v in found.items()}
  return found, [rssm.get_feat(state) for state in states]


def measure_penalty(
  agent, episodes: list[dict], posts: list[dict], steps: int = STEPS
) -> dict:
  """Disagreement under actions on and off the data, over imagined steps.

  From states of recorded episodes: the actions that were recorded next,
  samples of the policy, uniform noise, and the recorded actions negated. Where
  it is known what came, under the recorded actions, also the model's squared
  error.

  Args:
    posts: states of each episode, of `encode_all`.

  Returns:
    Numbers for JSON: `used`, the statistic that is the penalty, and `alpha`,
    its weight, None where the agent has no penalty; `statistics` by name and
    kind with mean, std and rise (over recorded, relative) at every step;
    `errors` by observation with mean of the model and of the posterior, which
    sees the observation, at every step, and the rank correlations of each
    statistic: `spearman` with the error over all states and steps,
    `spearman_at_step` the mean over steps of that over states,
    `spearman_excess` with the error beyond the posterior's.

  Raises:
    StudySkipped: all episodes are too short.
  """
  starts = draw_starts([len(e['reward']) - 1 for e in episodes], steps)
  if not len(starts):
    raise StudySkipped(
      f'no recorded episode has the {steps} transitions that are imagined; '
      'name another directory by --data DIR'
    )
  join = lambda x: {k: np.concatenate([y[k] for y in x]) for k in x[0]}
  posts, records = join(posts), join(episodes)
  start = {k: tf.gather(posts[k], starts) for k in ('deter', 'stoch')}
  recorded = np.stack([records['action'][starts + k + 1] for k in range(steps)])
  rng = np.random.default_rng(SEED)
  actions = {
    'recorded': recorded,
    'policy': None,
    'random': rng.uniform(-1, 1, recorded.shape).astype(np.float32),
    'negated': -recorded,
  }
  used, alpha = getattr(agent.behavior, 'penalty', None) or (None, None)
  found, feats = {}, {}
  for kind, action in actions.items():
    action = None if action is None else tf.convert_to_tensor(action)
    found[kind], feats[kind] = imagine(agent, start, action, steps)
  return {
    'episodes': len(episodes),
    'states': len(starts),
    'used': used,
    'alpha': alpha,
    'statistics': {
      name: {kind: _spread(found, kind, name) for kind in KINDS}
      for name in found['recorded']
    },
    'errors': _model_errors(
      agent, records, posts, starts, feats['recorded'], found['recorded']
    ),
  }


def penalty_table(numbers: dict) -> str:
  """Disagreement by statistic, kind and step, and its relation to the error."""
  lines = []
  for name, kinds in numbers['statistics'].items():
    count = len(kinds['recorded']['mean'])
    steps = sorted({0, count // 2 - 1, count - 1} - {-1})
    used = ' (the penalty)' * (name == numbers['used'])
    head = ''.join(f'{f"step {k + 1}":>24}' for k in steps)
    lines.append(f'{name + used:<26}{head}')
    for kind, found in kinds.items():
      cells = ''
      for k in steps:
        rise = f'{found["rise"][k]:+.0%}' if kind != 'recorded' else ''
        cell = f'{found["mean"][k]:.3f} +- {found["std"][k]:.3f} {rise:>6}'
        cells += f'{cell:>24}'
      lines.append(f'  {kind:<24}{cells}')
  for key, found in numbers['errors'].items():
    steps = len(found['mean'])
    lines.append(
      f'Squared error of {key!r}: {found["mean"][0]:.4f} at step 1, '
      f'{found["mean"][-1]:.4f} at step {steps}, of the posterior '
      f'{np.mean(found["posterior"]):.4f}; rank correlation with'
    )
    for name in numbers['statistics']:
      whole, at_step, excess = (
        show(found[f'spearman{kind}'][name])
        for kind in ('', '_at_step', '_excess')
      )
      lines.append(
        f'  {name:<24}{whole:>6} over states and steps, {at_step} at equal '
        f'steps, {excess} beyond the error of the posterior'
      )
  return '\n'.join(lines)


def draw(numbers: dict) -> Figure:
  """Disagreement over imagined steps by kind of action, and the error.

  Args:
    numbers: of `measure_penalty`.
  """
  with matplotlib.rc_context(STYLE):
    statistics, errors = numbers['statistics'], numbers['errors']
    fig = new_figure(11, 7.6)
    axes = list(fig.subplots(2, 2).flat)
    for ax, (name, kinds) in zip(axes, statistics.items(), strict=False):
      for color, (kind, found) in zip(COLORS, kinds.items(), strict=False):
        mean, std = np.array(found['mean']), np.array(found['std'])
        steps = np.arange(1, len(mean) + 1)
        style, label = KINDS[kind]
        ax.plot(steps, mean, style, color=color, label=label, lw=1.8)
        ax.fill_between(
          steps, mean - std, mean + std, color=color, alpha=0.13, lw=0
        )
      title = name
      if name == numbers['used']:
        title += f', the penalty (alpha {numbers["alpha"]:g})'
      ax.set_title(title, fontsize=11)
      ax.set_ylabel('Disagreement')
      ax.set_ylim(bottom=0)
      ranks = [
        f'rank correlation with the error of {key}: {show(x["spearman"][name])}'
        '\nwith its excess over the posterior: '
        f'{show(x["spearman_excess"][name])}'
        for key, x in errors.items()
      ]
      place = {'x': 0.03, 'y': 0.04, 'transform': ax.transAxes}
      ax.text(s='\n'.join(ranks), **place, fontsize=9)
    for color, (key, found) in zip(COLORS, errors.items(), strict=False):
      steps = np.arange(1, len(found['mean']) + 1)
      label = f'{key}, imagined'
      axes[-1].plot(steps, found['mean'], color=color, lw=1.8, label=label)
      style = {'color': color, 'ls': '--', 'lw': 1.2}
      label = f'{key}, seen by the posterior'
      axes[-1].plot(steps, found['posterior'], label=label, **style)
    axes[-1].set_title('Real error under recorded actions', fontsize=11)
    axes[-1].set_ylabel('Mean squared error')
    axes[-1].set_ylim(bottom=0)
    axes[-1].legend(loc='best', **LEGEND)
    for ax in axes[len(statistics) : -1]:
      ax.set_axis_off()
    for ax in axes:
      ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    fig.supxlabel(
      'Imagined steps (bands: standard deviation over '
      f'{numbers["states"]} states)',
      fontsize=10,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    style = {'loc': 'outside upper center', 'frameon': False}
    fig.legend(handles, labels, ncols=len(labels), **style)
  return fig


def _spread(found, kind, name):
  """Mean and deviation over states, and the mean's rise over recorded."""
  values, base = found[kind][name], found['recorded'][name].mean(1)
  mean = values.mean(1)
  return {
    'mean': mean.tolist(),
    'std': values.std(1).tolist(),
    'rise': (mean / base - 1).tolist(),
  }


def _model_errors(agent, records, posts, starts, feats, disagreement):
  """Squared error of decoded observations and its ranks, by observation."""
  model, errors, floors = agent.model, {}, {}
  for k, feat in enumerate(feats, 1):
    seen = model.decoder(tf.gather(posts['feat'], starts + k))
    for key, predicted in model.decoder(feat).items():
      target = {key: tf.convert_to_tensor(records[key][starts + k])}
      target = model.preprocess(target)[key]
      errors.setdefault(key, []).append(_squared_error(predicted, target))
      floors.setdefault(key, []).append(_squared_error(seen[key], target))
  result = {}
  for key in errors:
    error, floor = np.stack(errors[key]), np.stack(floors[key])
    ranks = {
      name: _ranks(values, error, floor)
      for name, values in disagreement.items()
    }
    result[key] = {
      'mean': error.mean(1).tolist(),
      'posterior': floor.mean(1).tolist(),
      **{
        kind: {name: ranks[name][kind] for name in ranks}
        for kind in ('spearman', 'spearman_at_step', 'spearman_excess')
      },
    }
  return result


def _ranks(disagreement, error, floor):
  """Rank correlations of values [K, N]."""
  pairs = zip(disagreement, error, strict=True)
  steps = [x for x in (spearman(u, e) for u, e in pairs) if x is not None]
  pooled = disagreement.ravel()
  return {
    'spearman': spearman(pooled, error.ravel()),
    'spearman_at_step': float(np.mean(steps)) if steps else None,
    'spearman_excess': spearman(pooled, (error - floor).ravel()),
  }


def _squared_error(dist, target):
  """Mean over the entries of an observation: [N, ...] to [N]."""
  square = tf.math.squared_difference(dist.mean(), tf.cast(target, tf.float32))
  square = tf.reshape(square, [square.shape[0], -1])
  return tf.reduce_mean(square, 1).numpy().astype(np.float64)
