"""Action classification on fused embeddings: linear SVM, calibration, late fusion, ablation."""
