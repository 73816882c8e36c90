"""Studies: comparisons made of several runs."""
