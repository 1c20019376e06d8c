"""Where the neurons lie."""
