"""The world model: Eq. 1 and 4."""
