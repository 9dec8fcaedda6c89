"""What is watched of a run: evaluations, reports, log rows, checkpoints due."""

import numpy as np

from moto_tf import images, memory
from moto_tf.errors import warn
from moto_tf.training import evaluation, rundir
from moto_tf.training.machine import peak_memory_gib
from moto_tf.training.session import Session
from moto_tf.training.when import Every

HELDOUT_BATCHES = 4
VIDEO_EPISODES = 6


class Monitor:
  """Does what is due after gradient steps and episodes of a session."""

  def __init__(self, session: Session):
    self._session = session
    self._driver = None
    self._seconds = {}
    self._episode_seconds = {'env': 0.0, 'policy': 0.0}
    config = session.config
    # The step before, if what is due after the last one is not done.
    done = session.counters.gradient_step - session.unfinished
    every = lambda period: Every(period, done)
    self._should_log = every(config.log_every)
    self._should_eval = every(config.eval_every)
    self._should_report = every(config.report_every)
    self._should_save = every(config.checkpoint_every)

  def after_step(self, batch: dict[str, np.ndarray], phase: str) -> None:
    """Evaluates, reports, logs and saves as the settings say.

    What was saved in the meantime is unfinished.

    Args:
      batch: of the gradient step, for the report.
      phase: the step's.
    """
    session, config = self._session, self._session.config
    step = session.counters.gradient_step
    ends = step in (config.offline_steps, session.total)
    evaluate = self._should_eval(step) or ends
    report = self._should_report(step) or (ends and config.report_every > 0)
    if evaluate or report:
      session.unfinished = True
      with session.logger.pause():
        if evaluate:
          self._evaluate(phase)
        if report:
          self._report(batch)
    session.unfinished = False
    save = self._should_save(step) or ends or rundir.is_milestone(config, step)
    if self._should_log(step) or evaluate or report or save:
      self.log(phase)  # Before saving, so that no metric is lost.
    if save:
      session.save()

  def after_episode(self, metrics: dict, seconds: dict[str, float]) -> None:
    """Adds a collected episode to the next log row.

    Args:
      metrics: of `evaluation.episode_metrics`.
      seconds: that environment and policy took, by name.
    """
    for key, value in seconds.items():
      self._episode_seconds[key] += value
    self._session.logger.add(metrics, 'episode')

  def log(self, phase: str) -> None:
    """One row, with the seconds each part took since the last one."""
    session = self._session
    total = {
      'data_wait': session.batches.wait,
      'train': session.agent.seconds,
      **{f'episode_{k}': v for k, v in self._episode_seconds.items()},
    }
    if session.config.collect == 'async':
      total['episode_wait'] = session.waited
    seconds = {k: v - self._seconds.get(k, 0) for k, v in total.items()}
    self._seconds = total
    logger = session.logger
    logger.add({f'{k}_seconds': v for k, v in seconds.items()}, 'time')
    logger.add(session.replay.stats(), 'replay')
    logger.add({'memory/peak_gib': peak_memory_gib()})
    logger.write({**session.counters.named(), 'phase': phase})
    session.logged = session.position

  def _evaluate(self, phase):
    session, config = self._session, self._session.config
    if self._driver is None:
      self._driver = session.make_driver(memory.eval_environments(config))
      session.close_with(self._driver.close)
    try:
      summary, rollouts = evaluation.evaluate(
        session.agent, self._driver, config.eval_episodes
      )
    except evaluation.EvaluationError as error:
      warn(str(error))
      session.logger.add({'lost': config.eval_episodes}, 'eval')
      return
    if summary['lost']:
      session.logger.add({'lost': summary['lost']}, 'eval')
    names = evaluation.episode_metrics(rollouts[0])
    session.logger.add({k: summary[k] for k in names}, 'eval')
    session.logger.add(session.agent.assess(rollouts), 'eval')
    session.records.evaluated(
      {**session.counters.named(), 'phase': phase},
      session.logger.seconds,
      summary,
    )
    for key in session.agent.obs_keys:
      if len(session.agent.obs_space[key].shape) == 3:
        videos = [e[key] for e in rollouts[:VIDEO_EPISODES]]
        session.logger.video(f'policy/{key}', images.side_by_side(videos, 3))

  def _report(self, batch):
    """What the agent says of the batch, or of held-out data if given."""
    session, name, batches = self._session, 'report', [batch]
    if session.heldout:
      name = 'heldout'
      batches = [session.heldout.sample(i) for i in range(HELDOUT_BATCHES)]
    metrics, videos = session.agent.report(batches, 0)
    session.logger.add(metrics, name)
    for key, video in videos.items():
      session.logger.video(f'openloop/{key}', images.upscale(video, 2))
