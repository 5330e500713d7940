"""Rivals of ATAC-Net, one file a method."""
