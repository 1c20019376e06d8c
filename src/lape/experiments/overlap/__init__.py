"""Which languages share neurons, and whether genealogy, script or shared tokens explain it."""
