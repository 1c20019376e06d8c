"""Experiments: one file or folder for each question."""
