"""Changing a running model: edits of neurons and attention heads, at any positions, undone on leaving."""
