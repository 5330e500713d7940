"""ATAC-Net: "Zoomed view works better for Anomaly Detection" (arXiv 2406.14398)."""
