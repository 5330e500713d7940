"""Stored runs averaged, compared with each other and with publications."""
