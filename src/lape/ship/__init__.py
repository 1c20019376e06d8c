"""Shipping: edits as adapters and checkpoints that any engine serves, asked whether it does; published and fetched by name."""
