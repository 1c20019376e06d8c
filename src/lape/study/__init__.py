"""The paper's experiments, the methods it is compared with and its critics, as one run."""
