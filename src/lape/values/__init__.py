"""What is kept: the axis over all neurons, statistics of activations, and language neurons. None of it needs a model."""
