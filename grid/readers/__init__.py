"""Feeders of other tools, read into our three-phase network."""
