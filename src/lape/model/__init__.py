"""A model's neurons: found by structure, proven by running, seen and changed through hooks."""
