"""Primary market: AC optimal power flow over the primary feeder."""
