"""What is on disk: the run directory, its manifest, segments and results."""
