"""Finished runs on disk: published whole, checked on every read."""
