"""What the model answers while languages are off."""
