"""Is it the language that moves a neuron's weights, or chance? Two seeds of one language beside two languages."""
