"""Changing files: an edit as a checkpoint that any engine serves."""
