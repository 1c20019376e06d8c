"""Measuring what edits do; every evaluation runs a model and returns a table."""
