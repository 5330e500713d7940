"""Where runs are carried out: an engine each."""
