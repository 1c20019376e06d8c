"""Frequency or necessity: what switching off single neurons costs, and what predicts it."""
