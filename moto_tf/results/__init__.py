"""Runs on disk: small files to commit, curves, figures and tables."""
