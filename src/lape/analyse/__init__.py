"""Studying results without a model."""
