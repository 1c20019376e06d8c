"""Changing a running model: edits of neurons, at any positions, undone on leaving."""
