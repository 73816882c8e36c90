"""Three-phase primary market: AC-exact optimal power flow on the phase nodes of an unbalanced feeder."""
