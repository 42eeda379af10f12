"""Sources without an end: cameras, pipes, growing files."""
