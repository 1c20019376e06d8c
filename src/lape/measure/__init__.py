"""What experiments share: losses under edits, control neurons, answers and their quality, resampling and intervals."""
