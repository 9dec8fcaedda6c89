"""The processes that train together, as TF_CONFIG names them.

TF_CONFIG is TensorFlow's environment variable for this. It holds JSON, the same
on every machine but for the task:

  {"cluster": {"worker": ["host0:2222", "host1:2222"]},
   "task": {"type": "worker", "index": 0}}
"""

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from moto_tf.rules import ConfigError, brief

NAME = 'TF_CONFIG'
JOBS = 'chief', 'worker'  # In the order of their numbers.
EXAMPLE = (
  '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
  '"task": {"type": "worker", "index": 0}}'
)


class Cluster(NamedTuple):
  """Attributes: addresses of the processes, and the number of this one.

  Process 0 is the chief, which has the data, the environments and the log
  directory.
  """

  addresses: tuple[str, ...] = ()
  number: int = 0

  @property
  def size(self) -> int:
    """How many processes there are."""
    return max(len(self.addresses), 1)


def find(config, environ: Mapping[str, str] = os.environ) -> Cluster:
  """The processes of a run; itself alone where TF_CONFIG names no other.

  Raises:
    ConfigError: TF_CONFIG is not what TensorFlow expects, or `replicas` does
      not go with it.
  """
  cluster = _parse(environ.get(NAME, ''))
  if cluster.size > 1 and config.replicas % cluster.size:
    raise ConfigError(
      f'replicas: {config.replicas} cannot be spread over the {cluster.size} '
      f'processes that {NAME} names; give a multiple, such as --replicas '
      f'{cluster.size} for one device each, or unset {NAME}.'
    )
  return cluster


def _parse(text):
  if not text.strip():
    return Cluster()
  try:
    value = json.loads(text)
    jobs, task = value.get('cluster', {}), value.get('task', {})
    known = jobs.keys() <= {*JOBS} and len(jobs.get('chief', ())) < 2
    named = [(job, x) for job in JOBS for x in jobs.get(job, ())]
    addresses = tuple(address for _, address in named)
    texts = all(isinstance(x, str) and ':' in x for x in addresses)
    if len(addresses) < 2 and known:
      return Cluster()
    index = int(task['index'])
    if task['type'] == 'worker':
      index += len(jobs.get('chief', ()))
    right = known and texts and named[index][0] == task['type']
  except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
    right = False
  if not right or index < 0 or len(set(addresses)) < len(addresses):
    raise ConfigError(
      f'{NAME} is {brief(text)}, expected the addresses of one chief or none '
      'and of workers, each once, and which of them this process is, such as '
      f'{EXAMPLE}. Set it so, or unset it to train in this process alone.'
    )
  return Cluster(addresses, index)
