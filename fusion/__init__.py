"""Embeddings to decisions: labels, anomaly scores, and how far to believe them. Knows embeddings, not streams."""
