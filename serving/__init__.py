"""HTTP services: one per stream, one for the decision, and their supervisor and client."""
