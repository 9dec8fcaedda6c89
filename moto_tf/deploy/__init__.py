"""Trained policies for devices without TensorFlow: export, check, runner."""
