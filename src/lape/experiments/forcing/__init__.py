"""Which way makes a model answer in another language, and what it costs."""
