"""Obtain a dataset: licence, download, checksum, safe unpacking."""
