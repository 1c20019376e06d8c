"""The null distribution of LAPE's entropy: slices of one language."""
