"""How docs/reference is made: `make reference`."""
