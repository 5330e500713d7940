"""The report of stored results; needs neither torch nor data."""
