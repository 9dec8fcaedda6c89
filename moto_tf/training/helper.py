"""Processes that help the chief of a run with its gradient steps.

They need neither data nor simulator nor log directory: settings, weights and
batches come from the chief.
"""

from moto_tf.agents import make_agent
from moto_tf.cluster import Cluster
from moto_tf.config import Config
from moto_tf.policy import spaces_from_meta
from moto_tf.presets import load_configs
from moto_tf.signals import StopRequest
from moto_tf.training.session import Stopped


def help_chief(config: Config, processes: Cluster) -> None:
  """Computes what the chief tells, until it ends the run.

  A first SIGTERM or Ctrl-C asks the chief to save and to stop.

  Args:
    config: settings, of which only `replicas` and `precision` matter here.
    processes: of the run.

  Raises:
    Stopped: the run was asked to stop, and is saved.
    ReplicaError: another process was lost, or the chief ended with an error.
  """
  from moto_tf.nn.crew import Crew, ReplicaError

  crew, stop, agent = Crew(config, processes), StopRequest(), None
  stop.listen()
  try:
    while True:
      head, arrays = crew.hear(stop.number is not None)
      if head['do'] == 'end':
        break
      if head['do'] == 'make':
        config = load_configs().defaults.replace(head['settings'])
        agent = make_agent(config, *spaces_from_meta(head['spaces']), crew)
      else:
        agent.follow(head, arrays)
  finally:
    stop.close()
  print('The chief has ended the run.', flush=True)
  if head['signal']:
    raise Stopped(head['signal'])
  if head['failed']:
    raise ReplicaError(
      'The chief has ended with an error, which it says itself. The same '
      'command, in all processes, continues from the last checkpoint.'
    )
