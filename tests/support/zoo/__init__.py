"""Every model type of transformers' causal-LM mapping, hand-shrunk, with its MLPs written out by hand."""
