"""Power-flow engines behind one port."""
