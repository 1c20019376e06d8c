"""Sentence similarity and dominance across layers."""
