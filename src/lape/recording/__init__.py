"""Recording: texts through a model, activations reduced to sums where they are."""
