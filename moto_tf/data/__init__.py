"""Data: episodes on disk, how they are made or imported, and the replay."""
