"""The report: one page from stored results alone. Never imports torch, never needs the data."""
