"""Baselines beside ATAC-Net: one file or one folder a method."""
