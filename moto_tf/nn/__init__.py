"""Networks, distributions, optimizers: what is made of TensorFlow alone.

TensorFlow is loaded here, without its notices.
"""

from moto_tf import startup

with startup.quiet():
  import tensorflow  # noqa: F401
