"""Tasks of lm-eval under neuron edits."""
