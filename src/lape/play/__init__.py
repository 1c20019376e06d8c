"""The playground: a local page on which a model answers twice, as it is and steered. Needs the extra `play`."""
