"""Datasets: cards, files, decoding, splits and draws."""

DATA_VERSION = 1
"""Version of the data pipeline (decoding, resizing, splits, draws); part of every run's identity.
Raised by hand when the same files would give other pixels, other splits or other draws."""
