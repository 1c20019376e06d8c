"""What switching each language off does to each language's loss, beside controls."""
