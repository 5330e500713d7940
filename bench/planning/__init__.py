"""Planning: from a suite to runs and their cost."""
