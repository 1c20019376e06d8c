"""Script or language: the same sentences, written otherwise."""
