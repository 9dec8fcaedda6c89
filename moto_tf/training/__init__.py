"""Training: Algorithm 1, and all that starts, watches, saves and ends it."""
