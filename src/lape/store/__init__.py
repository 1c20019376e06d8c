"""Files and folders: written in one step, hashed, read lazily, gone on with."""
