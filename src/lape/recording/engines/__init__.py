"""Who runs the batches of a recording: this process, or the workers of a cluster."""
