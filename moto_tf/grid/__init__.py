"""Grids of runs: tasks x methods x seeds, as the command `suite` starts them.

What a run has done is read from its directory alone; a grid keeps no record of
its own. In the code a grid is not called a suite, since that is a family of
environments.
"""

from moto_tf.errors import MotoError


class GridError(MotoError, ValueError):
  """A grid cannot be read or run; the message says why and what to do."""
