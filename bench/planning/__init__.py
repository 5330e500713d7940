"""From a suite to runs: what is wanted, what is missing, what it will take."""
