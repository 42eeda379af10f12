"""Anomaly detection on fused embeddings: detectors, thresholds, windows, events."""
