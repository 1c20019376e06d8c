"""Questions about passages, answered with neurons off and steered."""
