"""Exit codes of the command line; scripts rely on them."""

DONE = 0
INPUT = 2
FEDERATE = 3
CLEARING = 4
INTERRUPTED = 130
