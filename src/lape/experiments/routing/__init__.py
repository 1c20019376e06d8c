"""Which experts of a mixture a language's tokens go to."""
