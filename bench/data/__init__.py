"""Datasets: cards, files, decoding, splits and draws."""
