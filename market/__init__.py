"""How a market clears: primary, secondary, consumer, settlement, resilience rules."""
