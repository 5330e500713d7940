"""Numbers in print, their sources, and the audit of them."""
