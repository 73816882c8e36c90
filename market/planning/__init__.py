"""Multi-period planning of flexible devices."""
