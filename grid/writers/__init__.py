"""Our feeders, written as models of other tools."""
