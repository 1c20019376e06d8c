"""Two files of neurons side by side."""
