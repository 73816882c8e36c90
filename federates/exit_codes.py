"""Exit codes of the command line; scripts rely on them."""

DONE = 0
INPUT = 2
FEDERATE = 3
CLEARING = 4
INTERRUPTED = 130
CROSSCHECK = 5
"""Another power-flow engine is farther from a run than its scenario allows."""
