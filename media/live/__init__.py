"""Live sources: cameras, network streams, pipes, growing files."""
